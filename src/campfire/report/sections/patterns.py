"""Patterns of a run: which are in use, how often, what connectivity is left, and what storage and compression follow."""

from collections import Counter
from collections.abc import Sequence

from campfire.report.formats import fixed, percent, plain, share
from campfire.report.records.record import Layer, Run

HEAD = (
    "layer",
    "kernels alive, %",
    "patterns",
    "most frequent",
    "FKW, bytes",
    "of dense, %",
)
SHORTCUTS = ("downsample", "shortcut")  # ClickTrain neither prunes nor counts projections
ACROSS, LISTED = 12, 4  # patterns in a drawing, and in a line of the table


def patterned(run: Run) -> list[Layer]:
    """The layers whose kernels have patterns."""
    return [layer for layer in run.layers if layer.patterns]


def compression(run: Run) -> float | None:
    """Weights over kept weights as ClickTrain counts: of all convolutions but the projections of shortcuts."""
    convs = [x for x in run.layers if x.conv and not any(part in x.name for part in SHORTCUTS)]
    kept = sum(x.kept_weights or 0 for x in convs)
    return sum(x.weights or 0 for x in convs) / kept if kept else None


def lede(run: Run) -> str:
    """The compression of a run, and how many patterns are how good for it."""
    ratio, layers = compression(run), patterned(run)
    found = {number for layer in layers for number, _, _ in layer.patterns}
    return (
        f"Convolutions compressed {fixed(ratio)} times (kept weights, projections of shortcuts not counted); "
        f"{len(found)} patterns in {len(layers)} layers."
    )


def drawing(run: Run) -> str:
    """The most frequent patterns of the whole network side by side, with number and share of the kernels that have one."""
    votes: Counter[tuple[int, str]] = Counter()
    for layer in patterned(run):
        for number, rows, kernels in layer.patterns:
            votes[number, rows] += kernels
    total, shown = sum(votes.values()), votes.most_common(ACROSS)
    columns = [_column(number, rows, kernels / total) for (number, rows), kernels in shown]
    high = max(map(len, columns), default=0)
    padded = [column + [""] * (high - len(column)) for column in columns]
    widths = [max(map(len, column)) for column in padded]
    lines = [
        [cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in zip(*padded, strict=True)
    ]
    return "\n".join("   ".join(line).rstrip() for line in lines)


def _column(number: int, rows: str, part: float) -> list[str]:
    taps = [" ".join("x" if tap == "1" else "." for tap in row) for row in rows.split("/")]
    return [f"#{number}", f"{fixed(100 * part, 1)} %", *taps]


def fkw_bytes(layer: Layer) -> int:
    """Filter-kernel-weight storage of a layer whose kernels have patterns, float32 weights and 16-bit indices.

    Kernels before each filter (32 bits), the filters' order, each kernel's input, where each pattern starts in each filter, and
    the weights.

    >>> fkw_bytes(Layer("conv", (64, 64, 3, 3), kept_kernels=1843, kept_weights=7372, patterns=((3, "", 1),) * 4))
    34202
    """
    filters, kernels = layer.shape[0], layer.kept_kernels or 0
    strides = filters * (len(layer.patterns) + 1)
    return 4 * (filters + 1) + 2 * (filters + kernels + strides) + 4 * (layer.kept_weights or 0)


def cells(layer: Layer) -> tuple[str, ...]:
    """A layer's row under `HEAD`."""
    with_pattern = sum(kernels for _, _, kernels in layer.patterns)
    often = ", ".join(f"#{number} {share(kernels, with_pattern)} %" for number, _, kernels in layer.patterns[:LISTED])
    stored = fkw_bytes(layer)
    return (
        plain(layer.name),
        share(layer.kept_kernels, layer.kernels),
        str(len(layer.patterns)),
        often,
        fixed(stored, 0),
        percent(stored / (4 * layer.weights)) if layer.weights else plain(None),
    )


def table(run: Run) -> Sequence[tuple[str, ...]]:
    """A row for each layer with patterns."""
    return [cells(layer) for layer in patterned(run)]
