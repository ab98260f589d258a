"""What was compressed, layer by layer, or why a layer stayed dense."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from campfire.compress.plan import Plan


@dataclass(frozen=True)
class LayerReport:
    """One pruned layer. Bytes are those of its weight, its gradient and its optimizer state, if there are any."""

    name: str
    shape: tuple[int, ...]
    weights: int
    kept: int
    layout: str | None = None  # None: dense
    kernel: str | None = None  # or three, of the three passes
    before: int = 0  # bytes
    after: int = 0
    indices: int = 0  # bytes
    reason: str | None = None  # why it is dense
    already: bool = False  # it was compressed before


@dataclass(frozen=True)
class Report:
    """What `compress_` did.

    >>> dense = LayerReport("head", (10, 64, 1, 1), 640, 64, before=2560, after=2560, reason="its weight is tied")
    >>> print(Report([LayerReport("body", (16, 8, 3, 3), 1152, 288, "csr", "reference", 4608, 1152, 1220), dense]))
    layer             shape  layout    kernel                  weights kept
    body           16x8x3x3  csr       reference                288 / 1,152
    head          10x64x1x1  dense: its weight is tied
    1 layer compressed, 1 dense: weights, gradients and optimizer state take 3.6 KiB, before 7.0 KiB; indices 1.2 KiB
    """

    layers: list[LayerReport]
    plan: Plan | None = None  # how they run, where they were tuned
    held: bool = True  # whether an optimizer holds their values

    @property
    def compressed(self) -> list[str]:
        """The layers that are compressed now."""
        return [row.name for row in self.layers if row.layout is not None]

    @property
    def dense(self) -> dict[str, str]:
        """The reason of each pruned layer that stayed dense."""
        return {row.name: row.reason for row in self.layers if row.reason is not None}

    @property
    def changed(self) -> bool:
        """Whether this call compressed anything."""
        return any(row.layout is not None and not row.already for row in self.layers)

    @property
    def before(self) -> int:
        """Bytes of weights, gradients and optimizer state of all pruned layers before."""
        return sum(row.before for row in self.layers)

    @property
    def after(self) -> int:
        """The same now, without indices."""
        return sum(row.after for row in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        plan = None if self.plan is None else self.plan.to_dict()
        layers = [asdict(row) for row in self.layers]
        return {"layers": layers, "before": self.before, "after": self.after, "plan": plan}

    def __str__(self) -> str:
        wide = max([len(row.name) for row in self.layers] + [5])
        head = f"{'layer':{wide}}  {'shape':>16}  {'layout':8}  {'kernel':12} {'weights kept':>23}"
        plan = [] if self.plan is None else [self.plan.summary()]
        if not self.held and self.changed:
            plan.append("no optimizer that was made before holds these values: to train on, make it now")
        return "\n".join([head, *(_line(row, wide) for row in self.layers), self._summary(), *plan])

    def _summary(self) -> str:
        if not self.changed:
            return _nothing_done(self.layers)
        indices = sum(row.indices for row in self.layers)
        count = len(self.compressed)
        dense = f", {len(self.dense)} dense" if self.dense else ""
        return (
            f"{count} layer{'s' * (count != 1)} compressed{dense}: weights, gradients and optimizer state take "
            f"{_kib(self.after)}, before {_kib(self.before)}; indices {_kib(indices)}"
        )


def _nothing_done(rows: Iterable[LayerReport]) -> str:
    done = sum(row.already for row in rows)
    return f"nothing to do: {done} layers are compressed already" if done else "nothing was compressed"


def _line(row: LayerReport, wide: int) -> str:
    head = f"{row.name:{wide}}  {'x'.join(map(str, row.shape)):>16}  "
    if row.layout is None:
        return f"{head}dense: {row.reason}"
    return f"{head}{row.layout:8}  {row.kernel or '':12} {f'{row.kept:,} / {row.weights:,}':>23}"


def _kib(size: int) -> str:
    return f"{size / 1024:,.1f} KiB"
