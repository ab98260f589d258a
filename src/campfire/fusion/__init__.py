"""Fusion: an inference copy of a model in which normalisations are folded, and sparse layers add and rectify (floor 5).

conv -> BN -> (+ shortcut) -> ReLU        conv(x, residual=shortcut, relu=True)
four passes over memory            --->   one
"""

from dataclasses import dataclass, field
from typing import TypeGuard

import torch
from torch import fx, nn

from campfire.fusion.absorbing import Absorption
from campfire.fusion.copying import copied
from campfire.fusion.effects import is_plain
from campfire.fusion.rewriting import Rewriting
from campfire.fusion.tracing import trace
from campfire.naming import bare
from campfire.nn import SparseConv2d, SparseLinear
from campfire.nn.base import SparseLayer
from campfire.nn.entrances import close_

__all__ = ["FusionReport", "fuse"]

_KEPT_BY_COPIES = "_user_preserved_attributes"  # torch.fx's name for it


@dataclass(frozen=True)
class FusionReport:
    """What `fuse` did.

    >>> print(FusionReport({"bn1": "conv1"}, sums=["conv2"], kept={"bn2": "it follows add"}))
    1 batch normalisation folded, 1 left (bn2: it follows add); in sparse layers: 1 sum, 0 ReLUs
    """

    folded: dict[str, str] = field(default_factory=dict)  # batch normalisation -> the layer it went into
    kept: dict[str, str] = field(default_factory=dict)  # batch normalisation -> why it stays
    sums: list[str] = field(default_factory=list)  # sparse layers that add a residual
    relus: list[str] = field(default_factory=list)  # sparse layers that end with a ReLU
    dense: list[str] = field(default_factory=list)  # sparse layers that were dense for the kernels chosen
    opaque: dict[str, str] = field(default_factory=dict)  # modules that run as they are -> why they cannot be traced
    absorbed: dict[str, str] = field(
        default_factory=dict
    )  # regrouped layers whose outputs stay as they lie -> their readers
    restored: dict[str, str] = field(default_factory=dict)  # regrouped layers that put their outputs in order -> why

    def __str__(self) -> str:
        dense = f"; dense: {_count(self.dense, 'sparse layer')}" if self.dense else ""
        left = f", {len(self.kept)} left ({_reasons(self.kept)})" if self.kept else ""
        opaque = f"; not traced: {_reasons(self.opaque)}" if self.opaque else ""
        folded = _count(self.folded, "batch normalisation")
        inside = f"{_count(self.sums, 'sum')}, {_count(self.relus, 'ReLU')}"
        return f"{folded} folded{left}; in sparse layers: {inside}{self._orders()}{dense}{opaque}"

    def _orders(self) -> str:
        if not self.absorbed and not self.restored:
            return ""
        restored = f", {len(self.restored)} restored ({_reasons(self.restored)})" if self.restored else ""
        return f"; in their readers: {_count(self.absorbed, 'order')} of outputs{restored}"


def fuse(model: nn.Module, dtype: torch.dtype | None = None) -> fx.GraphModule:
    """A copy for inference, in eval mode and without gradients, that computes the same in fewer passes over memory.

    Every batch normalisation behind a convolution or linear layer, dense or sparse, whose result nobody else reads is
    folded into weights (or packed values) and bias; sums with a residual and ReLUs that follow a sparse layer become
    part of its kernel. Outputs that were regrouped stay as they lie where only convolutions read them, whose inputs
    are numbered anew; where sums join several orders, one of them stays. All this is decided from the modules that
    the forward pass calls, so subclasses, hooks and functional batch normalisation stay as they are; a part whose
    steps depend on its input, that switches autocast, draws random numbers, or writes to what outlives the call runs
    unchanged. ``report`` says what was done. Kernels stay those that were chosen for the original, which is not
    changed (so `tune_` it before); layers that were left to the dense library become ordinary ones.

    The copy takes images of any size and number. Optional arguments of the forward pass are fixed at their defaults.

    Args:
        dtype: of the copy, by default the model's. Give it here rather than to ``.to`` afterwards: normalisations are then
            folded before weights are rounded, and which layers are left to the library is decided for this dtype.

    Raises:
        UsageError: the outermost module is itself such a part, has hooks, or a forward replaced on the instance; or it
            holds tensors that torch cannot copy.

    >>> import torch
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4))
    >>> fused, x = fuse(model), torch.randn(1, 3, 8, 8)
    >>> print(fused.report)
    2 batch normalisations folded; in sparse layers: 0 sums, 0 ReLUs
    >>> torch.allclose(fused(x), model.eval()(x), atol=1e-6)
    True
    """
    model = bare(model)
    twin = copied(model).eval().requires_grad_(False)
    _share_kernels(model, twin)
    for other in (torch.float32, torch.bfloat16, torch.float16):
        if dtype not in (None, other):
            close_(twin, other)  # they would do nothing in this dtype, and as hooks forbid to fuse
    dense = _to_dense_(twin, dtype)
    graph, opaque = trace(twin)
    modules = dict(twin.named_modules(remove_duplicate=False))
    done = Rewriting(graph, modules, list(opaque))
    orders = Absorption(graph, modules, done.why_not_own, dtype)
    for name in orders.changed:
        twin.set_submodule(name, modules[name])
    fused = fx.GraphModule(twin, graph, type(model).__name__).eval()
    found = (done.folded, done.kept, done.sums, done.relus, dense, opaque, orders.absorbed, orders.restored)
    fused.report = FusionReport(*found)  # pyright: ignore
    fused.meta[_KEPT_BY_COPIES] = {"report": fused.report}
    return fused if dtype is None else fused.to(dtype)


def _to_dense_(twin: nn.Module, dtype: torch.dtype | None) -> list[str]:
    """Ordinary layers in the place of those that the dense library runs, which would unpack their weights at every call."""
    found = []
    for name, layer in list(twin.named_modules()):
        if name and _is_ordinary(layer) and _runs_dense(layer, dtype):
            dense = layer.dense().requires_grad_(False)
            if isinstance(dense, nn.Conv2d):
                dense = dense.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
            for parent in twin.modules():
                parent._modules.update({key: dense for key, child in parent._modules.items() if child is layer})
            found.append(name)
    return found


def _is_ordinary(layer: nn.Module) -> TypeGuard[SparseConv2d | SparseLinear]:
    """Whether it runs the forward pass of a sparse layer and nothing else; subclasses may do anything."""
    return type(layer) in (SparseConv2d, SparseLinear) and is_plain(layer)


def _runs_dense(layer: SparseLayer, dtype: torch.dtype | None) -> bool:
    choice = layer.choice(dtype if dtype in (torch.bfloat16, torch.float16) else None)
    return layer.kernel == "auto" and choice.forward == "reference" and choice.format == "nhwc"


def _share_kernels(model: nn.Module, twin: nn.Module) -> None:
    """Prepared kernels depend on indices alone, which both have in common."""
    for old, new in zip(model.modules(), twin.modules(), strict=True):
        if isinstance(old, SparseLayer) and isinstance(new, SparseLayer):
            new._passes = dict(old._passes)


def _count(found: list[str] | dict[str, str], what: str) -> str:
    return f"{len(found)} {what}{'s' * (len(found) != 1)}"


def _reasons(found: dict[str, str]) -> str:
    """By reason, so that it stays one line."""
    by: dict[str, list[str]] = {}
    for name, reason in found.items():
        by.setdefault(reason, []).append(name)
    return "; ".join(f"{names[0]}{f' and {len(names) - 1} more' * (len(names) > 1)}: {r}" for r, names in by.items())
