"""Runs that differ in their seed alone are one setting; settings that differ in sparsity too are points of one series."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from campfire.report.drawing.chart import Item
from campfire.report.drawing.svg import SERIES
from campfire.report.formats import fixed, plain
from campfire.report.records.compare import Row
from campfire.report.records.identity import Key, names_of, series_key, setting_key
from campfire.report.records.record import Run

DASHES = ("", "7 3", "2 3", "9 3 2 3")
MOST = 8  # settings that fit side by side


@dataclass(frozen=True)
class Spread:
    """Values of one setting over its seeds; ``deviation`` is of the sample, None for a single value."""

    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Iterable[float | None]) -> "Spread | None":
        """Of those that are there; None where none is."""
        known = tuple(value for value in values if value is not None)
        return cls(known) if known else None

    @property
    def mean(self) -> float:
        return mean(self.values)

    @property
    def deviation(self) -> float | None:
        return stdev(self.values) if len(self.values) > 1 else None

    def told(self, digits: int = 2, sign: str = "") -> str:
        """Mean, and deviation where there is one.

        >>> Spread((1.0, 2.0)).told(sign="+"), Spread((1.0,)).told()
        ('+1.50 ± 0.71', '1.00')
        """
        middle = fixed(self.mean, digits, sign)
        return middle if self.deviation is None else f"{middle} ± {fixed(self.deviation, digits)}"


@dataclass(frozen=True)
class Setting:
    """Finished runs that differ in their seed alone, and their rows."""

    runs: tuple[Run, ...]
    rows: tuple[Row, ...]

    @property
    def dense(self) -> bool:
        return self.runs[0].dense

    @property
    def requested(self) -> float | None:
        return self.rows[0].sparsity_requested

    @property
    def zeros(self) -> Spread | None:
        """Over all convolutions, or over the pruned layers where nothing else is known."""
        return self._over_seeds(r.sparsity_pruned if r.sparsity_convs is None else r.sparsity_convs for r in self.rows)

    @property
    def top1(self) -> Spread | None:
        return self._over_seeds(r.top1 for r in self.rows)

    @property
    def gap(self) -> Spread | None:
        """Points of top-1, of each run to its own dense run."""
        return self._over_seeds(r.gap for r in self.rows)

    @property
    def gap_at_drop(self) -> Spread | None:
        """The same, before the last drop of the learning rate."""
        return self._over_seeds(r.gap_at_drop for r in self.rows)

    @property
    def converged(self) -> Spread | None:
        """The epoch, counted from 1, of the best top-1 with the final sparsity."""
        return self._over_seeds(map(best_epoch, self.runs))

    def _over_seeds(self, values: Iterable[float | None]) -> Spread | None:
        """One value for each seed, the mean where a run was repeated or copied: that tells nothing of other seeds."""
        by_seed: dict[int | str, list[float]] = {}
        for row, value in zip(self.rows, values, strict=True):
            if value is not None:
                by_seed.setdefault(row.run if row.seed is None else row.seed, []).append(value)
        return Spread.of(map(mean, by_seed.values()))


@dataclass(frozen=True)
class Series:
    """Settings that differ in sparsity alone, in its order."""

    name: str
    settings: tuple[Setting, ...]

    @property
    def dense(self) -> bool:
        return self.settings[0].dense


@dataclass(frozen=True)
class Look:
    """How the runs of a setting are drawn, and what they are called."""

    ink: str
    dash: str
    label: str


def series_of(runs: Sequence[Run], rows: Sequence[Row]) -> list[Series]:
    """All finished runs, sorted into settings and series."""
    pairs = [(run, row) for run, row in zip(runs, rows, strict=True) if run.done]
    by_series: dict[Key, dict[Key, list[tuple[Run, Row]]]] = {}
    for run, row in pairs:
        by_series.setdefault(series_key(run), {}).setdefault(setting_key(run), []).append((run, row))
    names = names_of({key: next(iter(group.values()))[0] for key, group in by_series.items()})
    return [Series(names[key], _in_order(group.values())) for key, group in by_series.items()]


def looks(runs: Sequence[Run], rows: Sequence[Row]) -> dict[str, Look]:
    """By the run's name: a colour for each setting, or where they are too many for each series. Dense is dashed ink."""
    pruned = [run for run in runs if not run.dense]
    few = len(set(map(setting_key, pruned))) <= len(SERIES) or len(set(map(series_key, pruned))) == 1
    key_of = setting_key if few else series_key
    groups: dict[Key, list[int]] = {}
    for index, run in enumerate(runs):
        groups.setdefault(key_of(run), []).append(index)
    names = names_of(
        {series_key(runs[members[0]]): (runs[members[0]], rows[members[0]]) for members in groups.values()}
    )
    found: dict[str, Look] = {}
    turns = {True: 0, False: 0}
    for members in groups.values():
        first = runs[members[0]]
        name = names[series_key(first)]
        label = _label(name, [runs[i] for i in members], rows[members[0]]) if few else name
        look = _look(first.dense, turns[first.dense], label)
        turns[first.dense] += 1
        found |= {runs[i].name: look for i in members}
    return {run.name: found[run.name] for run in runs}


def drawn_apart(runs: Sequence[Run], looks: Mapping[str, Look], most: int = MOST) -> dict[Item, list[Run]]:
    """Settings side by side, by what stands for them in a legend; too many of them: the sparsest of each look."""
    groups: dict[Key, list[Run]] = {}
    for run in runs:
        groups.setdefault(setting_key(run), []).append(run)
    settings = list(groups.values())
    if len(settings) > most:
        sparsest = {looks[group[0].name]: group for group in sorted(settings, key=lambda group: _asked(group[0]))}
        settings = [group for group in settings if sparsest[looks[group[0].name]] is group][:most]
    shared = Counter(looks[group[0].name] for group in groups.values())
    return {_item(looks[group[0].name], group, shared): group for group in settings}


def _item(look: Look, group: Sequence[Run], shared: Mapping[Look, int]) -> Item:
    level = f", {100 * _asked(group[0]):.4g} %" if shared[look] > 1 else ""
    return (look.label + level, look.ink, look.dash)


def _asked(run: Run) -> float:
    return run.summary.sparsity_requested or 0.0


def best_epoch(run: Run) -> float | None:
    """The epoch, counted from 1, of the best top-1 among those with the final sparsity."""
    last = run.epochs[-1].sparsity_true if run.epochs else None
    at_target = [e for e in run.epochs if e.eval_top1 is not None and (last is None or e.sparsity_true == last)]
    return max(at_target, key=lambda e: e.eval_top1 or 0.0).epoch + 1 if at_target else None


def _in_order(groups: Iterable[list[tuple[Run, Row]]]) -> tuple[Setting, ...]:
    settings = [Setting(*map(tuple, zip(*group, strict=True))) for group in groups]
    return tuple(sorted(settings, key=lambda setting: setting.zeros.mean if setting.zeros else 0.0))


def _label(name: str, members: Sequence[Run], row: Row) -> str:
    if len(members) == 1:
        return plain(members[0].name)
    level = "" if members[0].dense else f", {100 * (row.sparsity_requested or 0):.4g} %"
    seeds = {run.summary.seed for run in members}
    return f"{name}{level}, {len(members)} {'seeds' if len(seeds) == len(members) else 'runs'}"


def _look(dense: bool, turn: int, label: str) -> Look:
    ink = "ink" if dense else f"series-{turn % len(SERIES)}"
    again = turn + 1 if dense else turn // len(SERIES)
    return Look(ink, DASHES[again % len(DASHES)], label)
