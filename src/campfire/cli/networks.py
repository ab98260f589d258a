"""A network named on a command line: a run, a model by name, or a file of weights; and images that it takes."""

import copy
import itertools
import json
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from campfire import data, models
from campfire.bench.nets import pruned
from campfire.errors import UsageError
from campfire.pruner import Pruner

CLASSES, CHANNELS = 1000, 3
SMALL = 64  # pixels: up to here a 3x3 stem without pooling


@dataclass(frozen=True)
class Network:
    """A network in evaluation mode, how it was pruned, and ``images(n)``, [n, C, H, W]."""

    name: str
    structure: str
    model: nn.Module
    pruner: Pruner | None
    shape: tuple[int, ...]  # of an image
    images: Callable[[int], Tensor]
    source: str  # of the images
    top1: float | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    classes: tuple[str, ...] = ()
    masked: bool = False  # it came with masks, which its zeros show and ``pruner`` need not hold

    @property
    def keep(self) -> dict[str, Tensor]:
        """Which weights live, of the layers that were pruned."""
        return {} if self.pruner is None else {name: mask.keep for name, mask in self.pruner.masks.items()}

    def under(self, structure: str, sparsity: float) -> "Network":
        """A copy pruned at once, by magnitude; itself where ``structure`` is dense.

        Raises:
            UsageError: it is pruned already, or the structure fits no layer.
        """
        if structure == "dense":
            return self
        if self.pruner is not None or self.masked:
            raise UsageError(
                f"{self.name} is pruned already ({self.structure}), and {structure!r} is asked for; leave --structure and "
                "--compare out, or give a dense run, file or model"
            )
        model = copy.deepcopy(self.model)
        pruner, _ = pruned(model, structure, sparsity)
        pruner.detach()
        return replace(self, structure=structure, model=model.eval(), pruner=pruner, top1=None)


def network(name: str, args: Namespace) -> Network:
    """What a name means: a run if there is such a folder or checkpoint, a file with ``--model``, else a model.

    Where ``--structure`` is given it is pruned at once, whichever of these it is.

    Raises:
        UsageError: nothing of that name, one that has masks of its own besides ``--structure``, or a structure that does not
            fit it.
        CheckpointError: a file is damaged.
    """
    if args.size < 1:
        raise UsageError(f"--size is a number of pixels; got {args.size}")
    return _as_it_is(name, args).under(args.structure, args.sparsity)


def _as_it_is(name: str, args: Namespace) -> Network:
    if not Path(name).exists():
        return _by_name(name, args)
    if args.model:
        return _of_file(name, args)
    if _weights_alone(Path(name)):
        raise UsageError(f"{name} holds weights, and not whose: give --model NAME")
    return of_run(name)


def _weights_alone(path: Path) -> bool:
    from campfire.files.foreign import is_packed, read_any
    from campfire.training import checkpoint

    if path.is_dir():
        return False
    if is_packed(path) or path.suffix == ".safetensors":
        return not path.with_name("last.pt").exists()  # of a run's own model.safetensors
    state = read_any(path)
    return not (isinstance(state, dict) and state.get("format") == checkpoint.FORMAT)


def of_run(name: str) -> Network:
    """The network of a run, and its test images.

    Raises:
        UsageError: there is no such run, or a file of weights alone.
        CheckpointError: it is damaged.
    """
    from campfire.training import load_run
    from campfire.training.build import load_data

    path = Path(name)
    if path.is_file() and _weights_alone(path):
        raise UsageError(
            f"{name} holds weights, and wanted is a run: its directory or checkpoint; a file is counted by itself, "
            f"campfire cost {name} --model NAME"
        )
    trained = load_run(path)

    def images(n: int) -> Tensor:
        same = {name: getattr(trained, name) for name in ("channels", "image_size", "mean", "std")}
        try:
            found = load_data(trained.config.data, memory_limit=1, **same)  # image files: only those asked for are read
        except UsageError:  # arrays are in memory as they are
            found = load_data(trained.config.data, **same)
        batches = data.batches(found, "test", 1, epoch=0, seed=0, train=False)
        return torch.cat([x for x, _ in itertools.islice(batches, n)])

    return Network(
        name,
        "dense" if trained.pruner is None else trained.config.pruning.structure,
        trained.model,
        trained.pruner,
        (trained.channels, trained.image_size, trained.image_size),
        images,
        "the run's test images",
        _top1(path),
        tuple(trained.mean),
        tuple(trained.std),
        tuple(trained.classes),
    )


def _top1(path: Path) -> float | None:
    summary = path / "summary.json"
    return json.loads(summary.read_text())["top1"] if summary.is_file() else None


def _by_name(name: str, args: Namespace) -> Network:
    torch.manual_seed(0)
    channels = args.model_kwargs.get("in_channels", CHANNELS)
    shape = (channels, args.size, args.size)

    def noise(n: int) -> Tensor:
        return torch.randn(n, *shape, generator=torch.Generator().manual_seed(0))

    return Network(name, "dense", _made(name, args, {}), None, shape, noise, "noise")


def _made(name: str, args: Namespace, further: dict[str, Any]) -> nn.Module:
    stem = {"small_input": args.size <= SMALL} if name in models.names() else {}  # others have the stem they have
    return models.create(name, **{"num_classes": CLASSES, **stem, **further, **args.model_kwargs}).eval()


def _of_file(name: str, args: Namespace) -> Network:
    from campfire.files import weights
    from campfire.files.foreign import unmasked
    from campfire.training import checkpoint

    state, masks = unmasked(weights(Path(name)))
    state = _without_holder(state, args)
    kwargs = {**_as_stored(state, args), **args.model_kwargs}
    one = _by_name(args.model, Namespace(**{**vars(args), "model_kwargs": kwargs}))
    checkpoint.fill(one.model, state, name)
    return replace(one, name=name, structure="as it is", masked=bool(masks) or _holds_masks(Path(name)))


def _holds_masks(path: Path) -> bool:
    """Whether a file of ours says which weights live: a packed one with packed layers, or one with a pruner's state."""
    from campfire.files import read
    from campfire.files.foreign import is_packed, read_any

    if is_packed(path):
        return bool(read(path).masks)
    held = read_any(path)
    return isinstance(held, dict) and bool(held.get("pruner"))


def _without_holder(state: dict[str, Tensor], args: Namespace) -> dict[str, Tensor]:
    """Names without the attribute under which a training framework holds the model, as ``model.`` in Lightning's files."""
    with torch.device("meta"):
        own = _made(args.model, args, {}).state_dict().keys()
    if len({name.partition(".")[0] for name in state}) > 1 or own & state.keys():
        return state
    return {name.partition(".")[2]: x for name, x in state.items()}


def _as_stored(state: Mapping[str, Tensor], args: Namespace) -> dict[str, Any]:
    """Arguments that make the model which a state dict is of: its logits; of ours also its channels, and the stem."""
    logits = [len(x) for x in state.values() if x.dim() == 2]
    own: dict[str, Any] = {"num_classes": logits[-1] if logits else CLASSES}
    if args.model not in models.names():
        return own
    small = args.size <= SMALL
    ways = [{**own, "in_channels": c, "small_input": s} for s in (small, not small) for c in (CHANNELS, 1)]
    return next((way for way in ways if _fits(state, args, way)), own)


def _fits(state: Mapping[str, Tensor], args: Namespace, further: dict[str, Any]) -> bool:
    with torch.device("meta"):
        wanted = _made(args.model, args, further).state_dict()
    return {n: x.shape for n, x in state.items()} == {n: x.shape for n, x in wanted.items()}
