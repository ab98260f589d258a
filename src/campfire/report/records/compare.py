"""Runs side by side: one `Row` a run, all that the three renderers and ``--json`` show of it."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from campfire.errors import UsageError
from campfire.report.formats import plain
from campfire.report.records.data_sets import data_of
from campfire.report.records.gathering import LeftOut, gather
from campfire.report.records.notes import notes_on, warnings_on
from campfire.report.records.options import SEED, differences
from campfire.report.records.record import Run, Total

CURE = "report on one at a time, or give --separate for a report on each"
SAME = ("model.kwargs", "data.img_size", "data.options")


@dataclass(frozen=True)
class Row:
    """One run in numbers: accuracies in percent, sparsities as fractions of zeros, ``gap`` in points of top-1."""

    run: str
    state: str
    reason: str | None
    model: str | None
    data: str | None
    structure: str | None
    method: str | None
    seed: int | None
    top1: float | None
    top5: float | None
    gap: float | None  # top-1 minus that of the dense run
    gap_at_drop: float | None  # the same with both before the last drop of a learning rate that steps
    against: str | None  # the dense run
    sparsity_requested: float | None
    sparsity_pruned: float | None  # over the pruned layers
    sparsity_convs: float | None  # over all convolutions
    sparsity_model: float | None  # over the whole model
    kept_weights: int | None
    weights: int | None
    sparse_macs: int | None
    macs: int | None
    epochs: int  # trained
    epochs_asked: float | None
    seconds: float | None
    images_per_second: float | None


@dataclass(frozen=True)
class Report:
    """The runs, their comparison, and what a reader must know: of these runs (warnings) and of any (notes)."""

    runs: tuple[Run, ...]
    rows: tuple[Row, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    left_out: tuple[LeftOut, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The comparison as plain values for JSON."""
        rows, left_out = ([asdict(one) for one in many] for many in (self.rows, self.left_out))
        return {"runs": rows, "left_out": left_out, "warnings": list(self.warnings), "notes": list(self.notes)}


def load(folders: Iterable[str | Path]) -> Report:
    """Read runs, folders of runs, and sweeps, and compare them.

    Raises:
        UsageError: one does not exist, none is a run, or they are of different data.
        CheckpointError: none can be read.
    """
    found = load_by_data(folders)
    if len(found) > 1:
        told = "; ".join(f"{plain(data)} ({_some([row.run for row in one.rows])})" for data, one in found.items())
        raise UsageError(f"a report is of runs on the same data; these are of {len(found)}: {told}; {CURE}")
    return next(iter(found.values()))


def load_by_data(folders: Iterable[str | Path]) -> dict[str, Report]:
    """Data set -> the comparison of the runs on it; raises as `load` does, but for different data."""
    runs, left_out = gather(folders)
    by_data: dict[str, list[Run]] = {}
    for run, data in zip(runs, data_of(runs), strict=True):
        by_data.setdefault(data, []).append(run)
    return {data: report_of(tuple(group), left_out) for data, group in by_data.items()}


def report_of(runs: tuple[Run, ...], left_out: tuple[LeftOut, ...] = ()) -> Report:
    """The comparison of some runs."""
    rows = tuple(row_of(run, dense_twin(run, runs)) for run in runs)
    against = {row.run: row.against for row in rows}
    notes = tuple(map(plain, notes_on(runs, against)))
    return Report(runs, rows, tuple(map(plain, warnings_on(runs, against))), notes, left_out)


def _some(names: Sequence[str]) -> str:
    return plain(", ".join(names[:3]) + (", ..." if len(names) > 3 else ""))


def dense_twin(run: Run, runs: Sequence[Run]) -> Run | None:
    """The finished dense run of the same model on the same data: of several the one configured most alike, of equals the
    one with the same seed."""
    if run.dense or not run.done:
        return None
    twins = [other for other in runs if other.done and other.dense and _key(other) == _key(run)]

    def unlike(other: Run) -> tuple[int, bool]:
        found = set(differences(run, other))
        return len(found - {SEED}), SEED in found

    return min(twins, key=unlike, default=None)


def row_of(run: Run, twin: Run | None = None) -> Row:
    """Put ``run`` in numbers; what it has not measured stays None."""
    asked, last = run.summary, (run.epochs[-1] if run.epochs else None)
    top1 = _or(asked.top1, last and last.eval_top1)
    against = twin.summary.top1 if twin else None
    speeds = [e.images_per_second for e in run.epochs if e.images_per_second is not None]
    seconds = [e.seconds for e in run.epochs if e.seconds is not None]
    return Row(
        run=run.name,
        state=run.status.state,
        reason=run.status.reason or None,
        model=asked.model,
        data=asked.data,
        structure=_structures(run),
        method=None if run.dense else asked.method,
        seed=asked.seed,
        top1=top1,
        top5=_or(asked.top5, last and last.eval_top5),
        gap=None if top1 is None or against is None else top1 - against,
        gap_at_drop=_gap_at_drop(run, twin) if twin else None,
        against=twin.name if twin else None,
        sparsity_requested=0.0 if run.dense else _or(asked.sparsity_requested, last and last.sparsity_requested),
        sparsity_pruned=_or(asked.sparsity_true, _zeros(run.pruned), last and last.sparsity_true),
        sparsity_convs=_zeros(run.convs),
        sparsity_model=_zeros(run.model),
        kept_weights=_or(run.model.kept, asked.kept_weights),
        weights=_or(run.model.weights, asked.weights),
        sparse_macs=_or(asked.sparse_macs, asked.macs if run.dense else None),
        macs=asked.macs,
        epochs=len(run.epochs),
        epochs_asked=asked.epochs,
        seconds=_or(asked.seconds, sum(seconds) if seconds else None),
        images_per_second=median(speeds) if speeds else None,
    )


def _gap_at_drop(run: Run, twin: Run) -> float | None:
    """Points of top-1 after the last epoch before the learning rate last fell."""
    pairs = zip(run.epochs, run.epochs[1:], strict=False)
    before = [e for e, then in pairs if e.lr is not None and then.lr is not None and then.lr < e.lr]
    if run.config.get("optim.sched") != "step" or not before or before[-1].eval_top1 is None:
        return None
    held = next((e.eval_top1 for e in twin.epochs if e.epoch == before[-1].epoch), None)
    return None if held is None else before[-1].eval_top1 - held


def _key(run: Run) -> tuple[str | None, str | None, list[tuple[str, str]]]:
    """What makes accuracies comparable at all."""
    return run.summary.model, run.summary.data, sorted(i for i in run.config.items() if i[0].startswith(SAME))


def _structures(run: Run) -> str | None:
    """The structure asked for, or those that rules gave to layers."""
    if run.dense:
        return None
    named = dict.fromkeys(layer.structure for layer in run.layers if layer.structure)
    return ", ".join(named) if named and run.summary.structure in (None, "dense") else run.summary.structure


def _zeros(total: Total) -> float | None:
    if total.sparsity is None and total.weights and total.kept is not None:
        return 1 - total.kept / total.weights
    return total.sparsity


def _or(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)
