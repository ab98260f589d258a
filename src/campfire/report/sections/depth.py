"""Sparsity layer by layer: a row a layer, from the input down, and a point for each setting."""

from collections.abc import Mapping, Sequence
from statistics import mean

from campfire.report.drawing.chart import Item
from campfire.report.drawing.rows import dots
from campfire.report.formats import fixed, plain
from campfire.report.records.record import Run
from campfire.report.records.settings import Look, drawn_apart

HEAD = ("setting", "least zeros, %", "most zeros, %")


def by_depth(runs: Sequence[Run], looks: Mapping[str, Look]) -> str | None:
    """SVG of the true sparsity of each layer, a ring where no setting prunes it; None where none prunes anything."""
    groups = groups_of(runs, looks)
    names = dict.fromkeys(layer.name for group in groups.values() for run in group for layer in run.layers)
    values = {item: _means(group) for item, group in groups.items()}
    return dots(_label(values), list(names), values, (0, 100), "zeros, %", " %") if values else None


def extremes(runs: Sequence[Run], looks: Mapping[str, Look]) -> list[tuple[str, ...]]:
    """For each setting its layers with the fewest and the most zeros, under `HEAD`."""
    rows = []
    for (label, _, _), group in groups_of(runs, looks).items():
        found = _means(group)
        low, high = min(found, key=found.__getitem__), max(found, key=found.__getitem__)
        rows.append((label, *(f"{fixed(found[name])} in {plain(name)}" for name in (low, high))))
    return rows


def shown(runs: Sequence[Run], looks: Mapping[str, Look]) -> str:
    """What the figure leaves out, as a sentence; nothing where all is in it."""
    every = len(drawn_apart(_pruned(runs), looks, len(runs)))
    drawn = len(groups_of(runs, looks))
    return f" Drawn are {drawn} of {every} settings, the sparsest of their kind." if drawn < every else ""


def groups_of(runs: Sequence[Run], looks: Mapping[str, Look]) -> dict[Item, list[Run]]:
    """The pruned runs, by what stands for them in a legend."""
    return drawn_apart(_pruned(runs), looks)


def _pruned(runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if any(layer.pruned and layer.true is not None for layer in run.layers)]


def _means(runs: Sequence[Run]) -> dict[str, float]:
    """Zeros of each pruned layer in percent, averaged over seeds."""
    found: dict[str, list[float]] = {}
    for layer in (layer for run in runs for layer in run.layers):
        if layer.pruned and layer.true is not None:
            found.setdefault(layer.name, []).append(100 * layer.true)
    return {name: mean(values) for name, values in found.items()}


def _label(values: Mapping[Item, Mapping[str, float]]) -> str:
    told = [f"{name} from {fixed(min(x.values()))} to {fixed(max(x.values()))}" for (name, _, _), x in values.items()]
    return f"Sparsity of each layer, zeros in %: {'; '.join(told)}."
