"""Whose costs are counted: a run, a model by name, or a file of weights, with images for it."""

import copy
import itertools
import json
from argparse import Namespace
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from campfire import data, models
from campfire.bench.nets import pruned
from campfire.costs import Energy, cost
from campfire.costs.equal import Point, common_level, crossing
from campfire.errors import UsageError
from campfire.files.encoding import encode

CLASSES = 1000
COMPARED = ("mao_ratio", "file_ratio", "file_bytes", "sparse_macs")


@dataclass(frozen=True)
class Subject:
    """A network, which of its weights live (those not zero, where it is not said), and images it takes."""

    name: str
    structure: str
    model: nn.Module
    keep: dict[str, Tensor]
    images: Tensor | None
    shape: tuple[int, ...]  # of an image
    source: str  # of the images
    top1: float | None = None


def subject(name: str, args: Namespace) -> Subject:
    """What a name means: a run if there is such a folder or checkpoint, a file with ``--model``, else a model.

    Raises:
        UsageError: nothing of that name, or a structure that does not fit it.
        CheckpointError: a file is damaged.
    """
    if not Path(name).exists():
        return _pruned(_by_name(name, args), args, args.structure)
    return _of_file(name, args) if args.model else _of_run(Path(name), args)


def structures_of(args: Namespace) -> Iterator[Subject]:
    """One network under each structure, at the same sparsity.

    Raises:
        UsageError: it has been pruned already.
    """
    one = subject(args.names[0], args)
    if one.keep:
        raise UsageError(f"{one.name} is pruned already ({one.structure}); give a dense run, or a model")
    for structure in args.compare.split(","):
        yield _pruned(one, args, structure.strip())


def runs(args: Namespace) -> Iterator[Subject]:
    """Several runs."""
    for name in args.names:
        if not Path(name).exists():
            raise UsageError(f"there is no run {name}; --compare without structures wants run directories")
        yield _of_run(Path(name), args)


def counted(one: Subject, args: Namespace) -> dict[str, Any]:
    """All its costs."""
    found = cost(
        one.model,
        one.shape,
        one.keep,
        one.images,
        value_bits=args.value_bits,
        array=args.array,
        energy=Energy.of(args.energy),
        mask_bytes=lambda keep: encode(keep.cpu().numpy()).nbytes,
    ).to_dict()
    about = {"name": one.name, "structure": one.structure, "top1": one.top1, "images_from": one.source}
    return {**about, "value_bits": args.value_bits, "array": args.array, **found}


def compared(subjects: Iterable[Subject], args: Namespace) -> dict[str, Any]:
    """A row for each, and where all have an accuracy, what each structure costs at the same one."""
    rows = [counted(one, args) for one in subjects]
    for row in rows:
        row.pop("layers")
    return {"rows": rows, "equal_accuracy": _equal(rows, args.at)}


def _equal(rows: list[dict[str, Any]], at: float | None) -> dict[str, Any] | None:
    if any(row["top1"] is None for row in rows):
        return None
    curves: dict[str, list[Point]] = {}
    for row in rows:
        total = row["convolutions"]
        costs = {name: float(total[name]) for name in COMPARED}
        if total["activity"]:
            costs["row_merge_references"] = total["activity"]["references"]["row_merge"]
        curves.setdefault(row["structure"], []).append(Point(row["top1"], total["living"] / total["weights"], costs))
    level = common_level(curves) if at is None else at
    found = {name: crossing(points, level) for name, points in curves.items()}
    return {"top1": level, "structures": {name: None if x is None else vars(x) for name, x in found.items()}}


# --- where they come from ----------------------------------------------------------------------------------------------


def _of_run(path: Path, args: Namespace) -> Subject:
    from campfire.training import load_run
    from campfire.training.build import load_data

    trained = load_run(path)
    size = (trained.channels, trained.image_size, trained.image_size)
    images = None
    if args.images:
        same = {name: getattr(trained, name) for name in ("channels", "image_size", "mean", "std")}
        found = load_data(trained.config.data, **same)
        batches = data.batches(found, "test", 1, epoch=0, seed=0, train=False)
        images = torch.cat([x for x, _ in itertools.islice(batches, args.images)])
    keep = {} if trained.pruner is None else {name: mask.keep for name, mask in trained.pruner.masks.items()}
    structure = trained.config.pruning.structure if keep else "dense"
    return Subject(str(path), structure, trained.model, keep, images, size, "the run's test images", _top1(path))


def _top1(path: Path) -> float | None:
    summary = path / "summary.json"
    return json.loads(summary.read_text())["top1"] if summary.is_file() else None


def _by_name(name: str, args: Namespace) -> Subject:
    torch.manual_seed(0)
    stem = {"small_input": args.size <= 64} if name in models.names() else {}  # others have the stem they have
    model = models.create(name, **{"num_classes": CLASSES, **stem, **args.model_kwargs}).eval()
    return Subject(name, "dense", model, {}, _noise(args), (3, args.size, args.size), "noise")


def _of_file(name: str, args: Namespace) -> Subject:
    from campfire.files import weights
    from campfire.training import checkpoint

    state = weights(Path(name))
    classes = [len(x) for x in state.values() if x.dim() == 2]
    args.model_kwargs = {"num_classes": classes[-1] if classes else CLASSES, **args.model_kwargs}
    one = _by_name(args.model, args)
    checkpoint.fill(one.model, state, name)
    return Subject(name, "as it is", one.model, {}, one.images, one.shape, "noise")


def _noise(args: Namespace) -> Tensor | None:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(args.images, 3, args.size, args.size, generator=generator) if args.images else None


def _pruned(one: Subject, args: Namespace, structure: str) -> Subject:
    """It under a structure, all at once by magnitude."""
    if structure == "dense":
        return one
    model = copy.deepcopy(one.model)
    pruner, _ = pruned(model, structure, args.sparsity)
    pruner.detach()
    keep = {name: mask.keep for name, mask in pruner.masks.items()}
    name = one.name if structure == args.structure else f"{one.name}, {structure}"
    return Subject(name, structure, model.eval(), keep, one.images, one.shape, one.source)
