"""Plan: which kernels run a compressed model, layer by layer and pass by pass, and why; plain data that can be kept."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from campfire.errors import CheckpointError
from campfire.kernels.choice import PASSES, Choice
from campfire.kernels.formats import FORMATS
from campfire.nn import keep_formats_
from campfire.nn.base import SparseLayer
from campfire.nn.entrances import open_

GAIN = 1.02  # what is less between two whole models is no difference


@dataclass(frozen=True)
class PassPlan:
    """One pass of one layer: times faster than the dense library, by the cost model and by the clock."""

    kernel: str  # "reference": the dense library
    predicted: float
    measured: float | None  # None: nothing was timed
    why_not: dict[str, str]  # of every other kernel


@dataclass(frozen=True)
class LayerPlan:
    """One sparse layer and the input it was planned for."""

    name: str
    shape: tuple[int, ...]  # [K, C, R, S]
    layout: str
    density: float
    size: tuple[int, ...]  # [N, C, H, W]
    dtype: str
    format: str  # of its activations
    passes: dict[str, PassPlan]

    @property
    def choice(self) -> Choice:
        """What the layer is assigned."""
        return Choice(**{name: found.kernel for name, found in self.passes.items()}, format=self.format)


@dataclass(frozen=True)
class Plan:
    """What `tune_` chose. Milliseconds are those of the sparse layers and of conversions between memory formats."""

    layers: list[LayerPlan] = field(default_factory=list)
    training: bool = True
    measured: bool = False
    threads: int = 1
    dense_ms: float = 0.0  # all of them on the dense library, out of their packed values
    ms: float = 0.0
    forced: dict[str, str] = field(default_factory=dict)  # layers that were made with a kernel, and keep it
    entrances: dict[str, str] = field(default_factory=dict)  # modules whose input is turned to a memory format
    whole: float | None = None  # times faster than the dense model it stands for: the whole model, where that was timed
    refused: float | None = None  # the same with kernels, where there are none because they did not gain

    @property
    def formats(self) -> set[str]:
        """In which activations lie."""
        return {layer.format for layer in self.layers}

    def apply(self, model: nn.Module) -> dict[str, list[str]]:
        """Let the layers of a model, compressed as that which was tuned, run as planned.

        Returns:
            the reasons of the layers that cannot, as on a machine without a compiler: those run dense.

        Raises:
            CheckpointError: the model has other sparse layers. Nothing has changed then.
        """
        layers = {name: module for name, module in model.named_modules() if isinstance(module, SparseLayer)}
        for planned in self.layers:
            _require(planned, layers.get(planned.name))
        if missing := self.entrances.keys() - dict(model.named_modules()).keys():
            raise CheckpointError(f"the plan is of another model: this one has no part {min(missing)!r}")
        refused: dict[str, list[str]] = {}
        for planned in self.layers:
            layer, dtype = layers[planned.name], getattr(torch, planned.dtype)
            if reasons := planned.choice.why_not(layer.packed, layer.conv, dtype, layer.value.device):
                refused[planned.name] = reasons
            layer.assign(Choice() if reasons else planned.choice, dtype)
        if "chwn" in self.formats:
            keep_formats_(model)
        for dtype in {layer.dtype for layer in self.layers}:
            open_(model, {} if refused else self.entrances, getattr(torch, dtype))
        return refused

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> "Plan":
        """What `to_dict` gave.

        Raises:
            CheckpointError: it is something else.
        """
        try:
            layers = [_layer(row) for row in saved["layers"]]
            entrances = dict(saved.get("entrances", {}))
            if not set(entrances.values()) <= set(FORMATS):
                raise ValueError(f"entrances to {sorted(set(entrances.values()))}")
            return cls(**{**saved, "layers": layers, "forced": dict(saved["forced"]), "entrances": entrances})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"this is no plan of kernels ({type(error).__name__}: {error})") from None

    def __str__(self) -> str:
        rows = [(layer.name, "x".join(map(str, layer.shape)), _told(layer)) for layer in self.layers]
        wide = max([len(name) for name, *_ in rows] + [5])
        lines = [f"{name:{wide}}  {shape:>16}  {told}" for name, shape, told in rows]
        return "\n".join([*lines, self.summary()])

    def summary(self) -> str:
        """One line."""
        dense = sum(layer.choice.dense for layer in self.layers)
        return (
            f"{len(self.layers) - dense} of {len(self.layers)} sparse layers run on kernels of their own, "
            f"{dense} dense; {'measured' if self.measured else 'predicted'} {self.ms:.2f} ms "
            f"{'a training step' if self.training else 'a forward pass'}, all dense {self.dense_ms:.2f} ms"
            f"{self._told_whole()}"
        )

    @property
    def pays(self) -> bool:
        """Whether the whole model, where it was timed, is not slower than the dense one."""
        return self.whole is None or self.whole >= 1 / GAIN

    def _told_whole(self) -> str:
        if self.whole is None:
            return ""
        refused = "" if self.refused is None else f", with kernels {self.refused:.2f}, so there are none"
        dtypes = " and ".join(sorted({layer.dtype for layer in self.layers}))
        slower = f": in {dtypes} compression saves memory here, and no time (decompress_ gives the dense model back)"
        return f"; the whole model measured {self.whole:.2f} x dense{refused}{'' if self.pays else slower}"


def _require(planned: LayerPlan, found: SparseLayer | None) -> None:
    if found is None or tuple(found.shape) != planned.shape:
        have = "none" if found is None else f"one of shape {tuple(found.shape)}"
        raise CheckpointError(
            f"the plan is of another model: it has a sparse layer {planned.name!r} of shape {planned.shape}, "
            f"and this model {have}"
        )


def _layer(row: Mapping[str, Any]) -> LayerPlan:
    passes = {name: PassPlan(**row["passes"][name]) for name in PASSES}
    sizes = {name: tuple(map(int, row[name])) for name in ("shape", "size")}
    layer = LayerPlan(**{**row, **sizes, "passes": passes})
    if not isinstance(getattr(torch, layer.dtype), torch.dtype):
        raise TypeError(f"{layer.dtype!r} is no dtype")
    Choice.from_dict(layer.choice.to_dict())
    return layer


def _told(layer: LayerPlan) -> str:
    ratios = [found.predicted if found.measured is None else found.measured for found in layer.passes.values()]
    return f"{layer.choice!s:24} " + " ".join(f"{ratio:5.2f}" for ratio in ratios)
