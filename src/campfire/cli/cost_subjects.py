"""``campfire cost``: the costs of one network, and of several side by side."""

from argparse import Namespace
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from campfire.cli.networks import Network, network, of_run
from campfire.costs import Energy, cost
from campfire.costs.equal import Point, common_level, crossing
from campfire.errors import UsageError
from campfire.files.encoding import encode

COMPARED = ("mao_ratio", "file_ratio", "file_bytes", "sparse_macs")


def structures_of(args: Namespace) -> Iterator[Network]:
    """One network under each structure, at the same sparsity.

    Raises:
        UsageError: it has been pruned already.
    """
    one = network(args.names[0], args)
    for structure in args.compare.split(","):
        found = one.under(structure.strip(), args.sparsity)
        yield replace(found, name=f"{one.name}, {structure.strip()}")


def runs(args: Namespace) -> Iterator[Network]:
    """Several runs.

    Raises:
        UsageError: one is not there.
    """
    for name in args.names:
        if not Path(name).exists():
            raise UsageError(f"there is no run {name}; --compare without structures wants run directories")
        yield of_run(name)


def counted(one: Network, args: Namespace) -> dict[str, Any]:
    """All costs of a network."""
    found = cost(
        one.model,
        one.shape,
        one.keep,
        one.images(args.images) if args.images else None,
        value_bits=args.value_bits,
        array=args.array,
        energy=Energy.of(args.energy),
        mask_bytes=lambda keep: encode(keep.cpu().numpy()).nbytes,
    ).to_dict()
    about = {"name": one.name, "structure": one.structure, "top1": one.top1, "images_from": one.source}
    return {**about, "value_bits": args.value_bits, "array": args.array, **found}


def compared(networks: Iterable[Network], args: Namespace) -> dict[str, Any]:
    """A row for each, and where all have an accuracy, what each structure costs at the same one."""
    rows = [counted(one, args) for one in networks]
    for row in rows:
        row.pop("layers")
    return {"rows": rows, "equal_accuracy": _equal(rows, args.at)}


def _equal(rows: list[dict[str, Any]], at: float | None) -> dict[str, Any] | None:
    if any(row["top1"] is None for row in rows):
        return None
    curves: dict[str, list[Point]] = {}
    for row in rows:
        curves.setdefault(row["structure"], []).append(_point(row))
    level = common_level(curves) if at is None else at
    found = {name: crossing(points, level) for name, points in curves.items()}
    return {"top1": level, "structures": {name: None if x is None else vars(x) for name, x in found.items()}}


def _point(row: dict[str, Any]) -> Point:
    total = row["convolutions"]
    costs = {name: float(total[name]) for name in COMPARED}
    if total["activity"]:
        costs["row_merge_references"] = total["activity"]["references"]["row_merge"]
    return Point(row["top1"], total["living"] / total["weights"], costs)
