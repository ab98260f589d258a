"""A network named on a command line: a run, a model by name, or a file of weights; and images that it takes."""

import copy
import itertools
import json
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from campfire import data, models
from campfire.bench.nets import pruned
from campfire.errors import UsageError
from campfire.pruner import Pruner

CLASSES = 1000


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
        if self.pruner is not None:
            raise UsageError(f"{self.name} is pruned already ({self.structure}); give a dense run, or a model")
        model = copy.deepcopy(self.model)
        pruner, _ = pruned(model, structure, sparsity)
        pruner.detach()
        return replace(self, structure=structure, model=model.eval(), pruner=pruner, top1=None)


def network(name: str, args: Namespace) -> Network:
    """What a name means: a run if there is such a folder or checkpoint, a file with ``--model``, else a model.

    Raises:
        UsageError: nothing of that name, or a structure that does not fit it.
        CheckpointError: a file is damaged.
    """
    if args.size < 1:
        raise UsageError(f"--size is a number of pixels; got {args.size}")
    if not Path(name).exists():
        return _by_name(name, args).under(args.structure, args.sparsity)
    return _of_file(name, args) if args.model else of_run(name)


def of_run(name: str) -> Network:
    """The network of a run, and its test images.

    Raises:
        UsageError: there is no such run.
        CheckpointError: it is damaged.
    """
    from campfire.training import load_run
    from campfire.training.build import load_data

    path = Path(name)
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
    stem = {"small_input": args.size <= 64} if name in models.names() else {}  # others have the stem they have
    model = models.create(name, **{"num_classes": CLASSES, **stem, **args.model_kwargs}).eval()

    def noise(n: int) -> Tensor:
        return torch.randn(n, 3, args.size, args.size, generator=torch.Generator().manual_seed(0))

    return Network(name, "dense", model, None, (3, args.size, args.size), noise, "noise")


def _of_file(name: str, args: Namespace) -> Network:
    from campfire.files import weights
    from campfire.training import checkpoint

    state = weights(Path(name))
    classes = [len(x) for x in state.values() if x.dim() == 2]
    kwargs = {"num_classes": classes[-1] if classes else CLASSES, **args.model_kwargs}
    one = _by_name(args.model, Namespace(**{**vars(args), "model_kwargs": kwargs}))
    checkpoint.fill(one.model, state, name)
    return replace(one, name=name, structure="as it is")
