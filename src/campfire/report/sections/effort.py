"""What the survivors cost: storage, MACs and memory references, and how fast kernels run them."""

from collections.abc import Mapping, Sequence
from typing import Any

from campfire.report.drawing.bars import bars
from campfire.report.drawing.chart import Item
from campfire.report.drawing.rows import dots
from campfire.report.formats import NONE, fixed, human, plain, share
from campfire.report.records.compare import Report
from campfire.report.records.counted import Cost, Kernels
from campfire.report.records.record import Run
from campfire.report.records.settings import Look, drawn_apart
from campfire.report.sections.section import Figure, Section, Table, figure

COST_HEAD = ("run", "file, %", "Mao, %", "MACs, %", "references, %", "moved")
LAYER_COSTS = ("layer", "file, %", "MACs, %", "references, %", "moved")
PASSES = {"forward": "series-0", "d_input": "series-1", "d_values": "series-2"}
SPEED_HEAD = ("layer", "zeros, %", *(f"{name}, times dense" for name in PASSES), "kernels")


def costs(report: Report, looks: Mapping[str, Look], draw: bool) -> Section:
    """Over the convolutions of each run that has a ``costs.json``; empty where none has."""
    known = [(run, run.costs) for run in report.runs if run.costs is not None]
    images = max((found.images for _, found in known), default=0)
    words = (
        "What is left of the convolutions, in percent of a dense network's. The packed file holds values and places of the "
        "survivors; Mao is storage by the formula of Mao et al., 8-bit values and 4-bit indices. References are to output "
        "memory, where products of one kernel row are added up before they are written and zeros among activations are "
        "skipped, in the dense network too; moved are bytes to and from memory. Both are for one image, averaged over "
        f"{images} test images."
    )
    table = Table("Convolutions of each run", COST_HEAD, [_cells(run.name, c.convolutions) for run, c in known])
    drawn = figure("costs", _drawn(known, looks) if draw else None, "What is left of a dense network's convolutions, %")
    return Section(
        "costs", "Storage, MACs and memory references", words if known else "", drawn, (table,) * bool(known)
    )


def speed(report: Report, looks: Mapping[str, Look], draw: bool) -> Section:
    """Layer by layer, of each run that trained compressed, a figure for each setting; empty where none did."""
    known = [(run, run.kernels) for run in report.runs if run.kernels is not None and run.kernels.layers]
    apart = {group[0].name for group in drawn_apart([run for run, _ in known], looks).values()}
    shown = [(run, kernels) for run, kernels in known if run.name in apart]
    figures = tuple(_speeds(i, run, kernels) for i, (run, kernels) in enumerate(shown, 1)) if draw else ()
    words = (
        "Each pass of each compressed layer, times faster than the dense library on the same layer; 1 where the library "
        "runs it. Another machine, or another batch, gives other numbers."
    )
    tables = tuple(_speed_table(run, kernels) for run, kernels in known)
    return Section("speed", "Speed of each layer", words if known else "", figures, tables)


def layer_costs(run: Run) -> list[tuple[str, ...]]:
    """A row for each layer under `LAYER_COSTS`."""
    rows = [] if run.costs is None else [_cells(layer.name, layer) for layer in run.costs.layers]
    return [(cells[0], cells[1], *cells[3:]) for cells in rows]


def _cells(name: str, cost: Cost) -> tuple[str, ...]:
    moved = None if cost.activity is None else cost.activity.moved_bytes
    refs = cost.references
    return (
        plain(name),
        _share(cost.file_bytes, cost.dense_bytes, "B"),
        fixed(100 * cost.mao_ratio),
        _share(cost.sparse_macs, cost.macs),
        NONE if refs is None else _share(*refs),
        human(moved, "B") or NONE,
    )


def _share(part: float, whole: float, unit: str = "") -> str:
    return f"{share(part, whole)} ({human(part, unit)})"


def _drawn(known: Sequence[tuple[Run, Any]], looks: Mapping[str, Look]) -> str | None:
    settings = drawn_apart([run for run, _ in known if not run.dense], looks)
    groups: dict[str, list[tuple[Item, float]]] = {}
    for item, runs in settings.items():
        assert runs[0].costs is not None
        for name, value in _left(runs[0].costs.convolutions).items():
            groups.setdefault(name, []).append((item, 100 * value))
    return bars("Left of a dense network's convolutions, %", groups) if groups else None


def _left(cost: Cost) -> dict[str, float]:
    pairs = {"storage": (cost.file_bytes, cost.dense_bytes), "MACs": (cost.sparse_macs, cost.macs)}
    pairs |= {} if cost.references is None else {"memory references": cost.references}
    return {name: part / whole for name, (part, whole) in pairs.items() if whole}


def _speeds(number: int, run: Run, kernels: Kernels) -> Figure:
    values: dict[Item, dict[str, float]] = {
        (name, ink, ""): {x.name: s for x in kernels.layers if (s := _speed(x.passes, name)) is not None}
        for name, ink in PASSES.items()
    }
    most = max((s for found in values.values() for s in found.values()), default=1.0)
    names = [layer.name for layer in kernels.layers]
    told = [f"{item[0]} up to {fixed(max(found.values()))}" for item, found in values.items() if found]
    label = f"Speed of each layer of {plain(run.name)}, times dense: {'; '.join(told)}."
    drawn = dots(label, names, values, (0, max(1.1, 1.05 * most)), "times faster than dense", " times dense", mark=1)
    return Figure(f"speed-{number}", drawn, f"{plain(run.name)}: {_how(kernels)}; the line is the dense library")


def _speed(passes: Mapping[str, Any], name: str) -> float | None:
    return passes[name].speed if name in passes else None


def _how(kernels: Kernels) -> str:
    threads = "" if kernels.threads is None else f", {kernels.threads} threads"
    whole = "" if kernels.whole is None else f"; the whole model {fixed(kernels.whole)} times dense"
    return ("measured" if kernels.measured else "predicted by the cost model, not measured") + threads + whole


def _speed_table(run: Run, kernels: Kernels) -> Table:
    rows = []
    for layer in kernels.layers:
        speeds = [fixed(_speed(layer.passes, name)) for name in PASSES]
        used = ", ".join(dict.fromkeys(plain(x.kernel) for x in layer.passes.values()))
        zeros = None if layer.density is None else 100 * (1 - layer.density)
        rows.append((plain(layer.name), fixed(zeros), *speeds, used))
    return Table(f"{plain(run.name)}: {_how(kernels)}", SPEED_HEAD, rows, folded=True)
