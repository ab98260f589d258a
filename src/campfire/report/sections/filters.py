"""Filters before and after: the same corner of a layer in the dense run and in each pruned one, weight by weight.

A square is a weight, a cluster of squares a kernel; rows are outputs, columns inputs. Dead weights are left empty.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from campfire.report.drawing.svg import Drawing
from campfire.report.formats import fixed, plain
from campfire.report.records.record import Layer, Run
from campfire.report.records.settings import Look, drawn_apart
from campfire.report.sections.section import Figure, Section

KERNELS = 10  # drawn along either axis
RUNS, LAYERS = 6, 2
SIDE = 190.0  # pixels of a drawing
SHADES = (0.25, 0.45, 0.7, 1.0)  # of quarters of the weights, by size
WORDS = (
    "The first {n} outputs (rows) and inputs (columns) of a layer: a square is a weight, a cluster of squares a kernel, "
    "stronger means larger, an empty one is dead. Runs of one seed start from the same weights."
)


def filters(runs: Sequence[Run], looks: Mapping[str, Look]) -> Section:
    """Drawings of two layers in the dense run, if any, and in the first pruned ones; empty where no weights can be read."""
    dense = [run for run in runs if run.dense and run.model_bytes][:1]
    settings = drawn_apart([run for run in runs if run.model_bytes and not run.dense], looks, RUNS - len(dense))
    pruned = [group[0] for group in settings.values() if any(layer.pruned for layer in group[0].layers)]
    shown = [*dense, *pruned]
    figures = [drawn for i, name in enumerate(layers_of(pruned), 1) for drawn in _layer(i, name, shown, looks)]
    words = WORDS.format(n=KERNELS) if pruned and figures else ""
    return Section("filters", "Filters before and after", words, tuple(figures) if words else ())


def layers_of(pruned: Sequence[Run]) -> list[str]:
    """A layer in the middle that has 3x3 kernels, and the last of another size: pruned in the first run."""
    found = [layer for run in pruned[:1] for layer in run.layers if layer.pruned and len(layer.shape) == 4]
    wide = [layer for layer in found if layer.shape[2:] == (3, 3)] or found
    others = [layer for layer in found if layer.shape[2:] != (3, 3)]
    chosen = wide[len(wide) // 2 :][:1] + (others[-1:] or wide[-1:])
    return list(dict.fromkeys(layer.name for layer in chosen))[:LAYERS]


def _layer(number: int, name: str, runs: Sequence[Run], looks: Mapping[str, Look]) -> list[Figure]:
    figures = []
    for i, run in enumerate(runs, 1):
        corner = weights_of(run.path / "model.safetensors", name)
        if corner is not None:
            svg = draw(corner, looks[run.name].ink, f"Weights of {plain(name)} in {plain(run.name)}: {_alive(corner)}")
            layer = next((layer for layer in run.layers if layer.name == name), None)
            figures.append(Figure(f"filters-{number}-{i}", svg, f"{plain(run.name)}{_zeros(layer)}", plain(name)))
    return figures


def weights_of(path: Path, layer: str) -> Any:
    """The corner of a layer's weight that is drawn, [K, C, R, S]; None where it cannot be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            corner = file.get_slice(f"{layer}.weight")[:KERNELS, :KERNELS]
    except (SafetensorError, OSError, TypeError, ValueError):
        return None
    return corner if corner.ndim == 4 and max(corner.shape[2:]) <= 11 else None


def draw(weight: Any, ink: str, label: str) -> str:
    """SVG of weights [K, C, R, S], with a gap between kernels."""
    rows, columns, high, wide = weight.shape
    cell = SIDE / max(rows * (high + 1) - 1, columns * (wide + 1) - 1)
    drawing = Drawing(cell * (columns * (wide + 1) - 1), cell * (rows * (high + 1) - 1), label)
    size = np.abs(weight)
    levels = np.digitize(size, np.quantile(size[size > 0], (0.25, 0.5, 0.75)) if (size > 0).any() else [0, 0, 0])
    box = f"h{cell:.2f}v{cell:.2f}h-{cell:.2f}z"
    kernel = f"h{cell * wide:.2f}v{cell * high:.2f}h-{cell * wide:.2f}z"
    corners = ((c * (wide + 1) * cell, k * (high + 1) * cell) for k, c in np.ndindex(rows, columns))
    drawing.path("".join(f"M{x:.1f} {y:.1f}{kernel}" for x, y in corners), "line", opacity=0.35)
    for level, shade in enumerate(SHADES):
        at = np.argwhere((size > 0) & (levels == level))
        d = "".join(f"M{cell * (c * (wide + 1) + s):.1f} {cell * (k * (high + 1) + r):.1f}{box}" for k, c, r, s in at)
        if d:
            drawing.path(d, ink, opacity=shade)
    return drawing.done()


def _alive(weight: Any) -> str:
    kernels = np.abs(weight).reshape(*weight.shape[:2], -1)
    alive = int(kernels.any(-1).sum())
    return f"{alive} of {kernels.shape[0] * kernels.shape[1]} kernels drawn and {fixed(100 * float((kernels > 0).mean()), 1)} % of their weights live."


def _zeros(layer: Layer | None) -> str:
    return f": {fixed(100 * layer.true, 1)} % zeros" if layer and layer.pruned and layer.true is not None else ""
