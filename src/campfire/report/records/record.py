"""What a run directory says about its run, as frozen values: the only source of every number in a report."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from campfire.report.records.counted import Attacks, Costs, Kernels


@dataclass(frozen=True)
class Status:
    """``status.json``: where the run stands; ``running`` also stands there after a kill that nobody saw."""

    state: str = "unknown"  # running | done | diverged | preempted | failed
    exit_code: int | None = None
    reason: str | None = None
    epoch: float | None = None
    step: int | None = None


@dataclass(frozen=True)
class Epoch:
    """One line of ``metrics.jsonl``: accuracies in percent, sparsities as fractions of zeros over the pruned layers."""

    epoch: float
    step: int | None = None
    train_loss: float | None = None
    train_top1: float | None = None
    eval_loss: float | None = None
    eval_top1: float | None = None
    eval_top5: float | None = None
    lr: float | None = None
    sparsity_requested: float | None = None
    sparsity_true: float | None = None
    seconds: float | None = None
    images_per_second: float | None = None


@dataclass(frozen=True)
class Layer:
    """One layer of ``sparsity.json``; a layer without structure is dense, and ``reason`` says why; ``remark``: of others."""

    name: str
    shape: tuple[int, ...] = ()
    structure: str | None = None
    requested: float | None = None
    true: float | None = None
    kept_kernels: int | None = None
    kernels: int | None = None
    kept_weights: int | None = None
    weights: int | None = None
    reason: str | None = None
    remark: str | None = None
    conv: bool = True
    patterns: tuple[
        tuple[int, str, int], ...
    ] = ()  # in use: number, rows such as 000/011/011, how many kernels have it

    @property
    def pruned(self) -> bool:
        return self.structure is not None


@dataclass(frozen=True)
class Total:
    """Weights, and those kept, over one scope: the pruned layers, the convolutions, or the whole model."""

    weights: int | None = None
    kept: int | None = None
    sparsity: float | None = None


@dataclass(frozen=True)
class Summary:
    """``summary.json``: what was run and what came out; of an unfinished run, only what was asked for."""

    model: str | None = None
    data: str | None = None
    structure: str | None = None
    method: str | None = None
    seed: int | None = None
    top1: float | None = None
    top5: float | None = None
    best_top1: float | None = None
    sparsity_requested: float | None = None
    sparsity_true: float | None = None
    kept_weights: int | None = None
    weights: int | None = None
    macs: int | None = None
    sparse_macs: int | None = None
    epochs: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Run:
    """One run directory."""

    SCOPES: ClassVar = ("pruned", "convs", "model")

    path: Path
    name: str  # the folder's, with as many parents as tell it from the other runs
    status: Status
    summary: Summary
    epochs: tuple[Epoch, ...] = ()
    layers: tuple[Layer, ...] = ()
    pruned: Total = Total()
    convs: Total = Total()
    model: Total = Total()
    config: dict[str, str] = field(default_factory=dict)  # config.yaml, flattened: optim.lr
    environment: dict[str, str] = field(default_factory=dict)  # env.json, flattened likewise
    model_bytes: int | None = None  # size on disk of model.safetensors
    costs: Costs | None = None
    kernels: Kernels | None = None
    attacks: Attacks | None = None

    @property
    def done(self) -> bool:
        return self.status.state == "done"

    @property
    def dense(self) -> bool:
        """Whether nothing was asked to be pruned; rules may prune although ``structure`` is dense."""
        if self.layers:
            return self.summary.sparsity_requested == 0 or not any(layer.pruned for layer in self.layers)
        return self.summary.structure in (None, "dense") and not any(k.startswith("pruning.rules") for k in self.config)
