"""What was pruned: one record a layer, and totals (floor 1: no torch)."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class LayerSparsity:
    """One layer: what was asked, what is true, or why it is dense. Shapes are [K, C / groups, R, S]."""

    name: str
    shape: tuple[int, ...]
    structure: str | None  # None: dense
    requested: float
    true: float
    kept_kernels: int | None  # None: not known yet
    kernels: int
    kept_weights: int
    weights: int
    reason: str | None = None  # why it is dense
    conv: bool = True
    patterns: tuple[tuple[int, str, int], ...] = ()  # in use: number, rows (000/011/011), how many kernels have it
    remark: str = ""  # what is worth knowing of its structure on this shape

    @classmethod
    def dense(cls, name: str, shape: tuple[int, ...], reason: str, conv: bool) -> "LayerSparsity":
        """A layer that keeps every weight."""
        kernels, weights = shape[0] * shape[1], math.prod(shape)
        return cls(name, shape, None, 0.0, 0.0, kernels, kernels, weights, weights, reason, conv)


@dataclass(frozen=True)
class Total:
    """Weights of a scope: how many, and how many live. ``sparsity`` is the fraction of zeros."""

    weights: int
    kept: int

    @classmethod
    def of(cls, layers: Iterable[LayerSparsity]) -> "Total":
        layers = list(layers)
        return cls(sum(r.weights for r in layers), sum(r.kept_weights for r in layers))

    @property
    def sparsity(self) -> float:
        return 1 - self.kept / self.weights if self.weights else 0.0

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "sparsity": self.sparsity}


@dataclass(frozen=True)
class SparsityReport:
    """All layers of a model; ``other`` counts parameters outside convolution and linear weights (biases, norms)."""

    layers: list[LayerSparsity]
    other: int = 0
    standing: str = ""  # what is still to come

    @property
    def pruned(self) -> Total:
        """Over the layers that have a structure."""
        return Total.of(r for r in self.layers if r.structure is not None)

    @property
    def convs(self) -> Total:
        """Over all convolutions, the dense ones included."""
        return Total.of(r for r in self.layers if r.conv)

    @property
    def model(self) -> Total:
        """Over all parameters of the model."""
        total = Total.of(self.layers)
        return Total(total.weights + self.other, total.kept + self.other)

    @property
    def requested(self) -> float:
        """The requested sparsity over the pruned layers, each weighed by its size."""
        pruned = [r for r in self.layers if r.structure is not None]
        return sum(r.requested * r.weights for r in pruned) / max(1, sum(r.weights for r in pruned))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for ``sparsity.json``."""
        totals = {scope: getattr(self, scope).to_dict() for scope in ("pruned", "convs", "model")}
        return {"layers": [asdict(r) for r in self.layers], **totals, "requested": self.requested}

    def __str__(self) -> str:
        wide = max([len(r.name) for r in self.layers] + [5])
        known = any(r.kept_kernels is not None for r in self.layers if r.structure is not None)
        kernels = "  kernels kept" * known
        lines = [
            f"{'layer':{wide}}  {'shape':>16}  {'structure':22} {'asked':>6} {'true':>6} {'weights kept':>21}{kernels}"
        ]
        for r in self.layers:
            head = f"{r.name:{wide}}  {'x'.join(map(str, r.shape)):>16}  "
            if r.structure is None:
                lines.append(f"{head}dense: {r.reason}")
            else:
                kept = f"{r.kept_weights:,} / {r.weights:,}"
                kernels = "" if r.kept_kernels is None else f"  {r.kept_kernels:,} / {r.kernels:,}"
                lines.append(f"{head}{r.structure:22} {r.requested:6.3f} {r.true:6.3f} {kept:>21}{kernels}")
                lines += [f"{'':{wide}}  {r.remark}"] * bool(r.remark)
        for scope, total in (("pruned layers", self.pruned), ("convolutions", self.convs), ("whole model", self.model)):
            lines.append(f"{scope}: {total.sparsity:.4f} zeros, {total.kept:,} of {total.weights:,} weights kept")
        return "\n".join([*lines, *[self.standing] * bool(self.standing)])
