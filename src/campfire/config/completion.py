"""Defaults that depend on other options: a three-epoch run exercises everything a ninety-epoch run does."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from campfire.config.layers import Layer
from campfire.config.schema import Config, Optim, Pruning
from campfire.errors import UsageError

_LR = {"sgd": 0.1, "adam": 1e-3, "adamw": 1e-3}
_WEIGHT_DECAY = {"sgd": 5e-4, "adam": 0.0, "adamw": 0.05}


def derived(config: Config) -> Layer:
    """The values of options left open that follow from the others.

    >>> derived(Config()).values["pruning.era_start"], derived(Config()).values["pruning.era_length"]
    (6, 6)

    Raises:
        UsageError: the era does not end within the epochs; the largest legal values are named.
    """
    found = {"optim": _optim(config.optim)}
    if prunes(config.pruning):
        found["pruning"] = _pruning(config.pruning, config.optim.epochs)
    found["optim"] |= _mixup(config.pruning, found.get("pruning", {}))
    given = {section: getattr(config, section) for section in found}
    return Layer(
        "derived",
        {f"{s}.{key}": v for s, body in found.items() for key, v in body.items() if getattr(given[s], key) is None},
    )


def prunes(pruning: Pruning) -> bool:
    """Whether any layer is to be pruned."""
    return any(s not in (None, "dense") for s in (pruning.structure, *pruning.rules.values()))


def _optim(optim: Optim) -> dict[str, Any]:
    _check_milestones(optim)
    warmup = 0.3 * optim.epochs if optim.sched == "onecycle" else min(5.0, optim.epochs / 20)
    return {
        "lr": _LR[optim.opt],
        "weight_decay": _WEIGHT_DECAY[optim.opt],
        "warmup_epochs": warmup,
        "decay_epochs": optim.epochs / 3,
    }


def _check_milestones(optim: Optim) -> None:
    at = optim.decay_milestones
    if at is None:
        return
    if optim.sched != "step":
        raise UsageError(f"--decay-milestones goes with --sched step; this run has --sched {optim.sched}")
    if not at or sorted({*at}) != [*at] or at[0] < 0 or at[-1] >= optim.epochs:
        raise UsageError(
            f"--decay-milestones are epochs that rise from 0 up, below --epochs {optim.epochs}; got {[*at]}"
        )


def _mixup(pruning: Pruning, era: dict[str, Any]) -> dict[str, Any]:
    """ClickTrain mixes images once its masks are hard; nothing else does unasked."""
    if not era or _name(pruning) != "clicktrain":
        return {"mixup": 0.0, "mixup_start": 0.0}
    start, length = (
        era[k] if getattr(pruning, k) is None else getattr(pruning, k) for k in ("era_start", "era_length")
    )
    return {"mixup": 0.3, "mixup_start": start + length}


def _name(pruning: Pruning) -> str:
    return pruning.method.partition(":")[0].strip()


def _pruning(pruning: Pruning, epochs: int) -> dict[str, Any]:
    usual = _USUAL.get(_name(pruning), _Usual())
    schedule = pruning.schedule or ("steps" if pruning.steps is not None else usual.schedule)
    by = pruning.era_by or usual.by or ("step" if epochs == 1 and pruning.structure != "inter-epoch" else "epoch")
    start, length = _to_three_quarters(pruning, epochs, usual.first) if usual.early else _era(pruning, epochs, by)
    if schedule == "era" and usual.schedule != "oneshot":  # a method that prunes at once refuses it anyway
        _check_end(start, length, epochs, by)
    return {
        "schedule": schedule,
        "era_by": by,
        "era_start": start,
        "era_length": length,
        "era_initial": pruning.sparsity if usual.constant else 0.0,
        "steps": usual.steps(pruning.sparsity, start, length, epochs) if schedule == "steps" else None,
    }


def _thirds(sparsity: float, start: float, length: float, epochs: int) -> tuple[tuple[float, float], ...]:
    return tuple((start + i * length / 2, sparsity * ((i + 1) / 3)) for i in range(3))


def _rounds(sparsity: float, start: float, length: float, epochs: int) -> tuple[tuple[float, float], ...]:
    """Four trainings of equal length, an equal share of the living weights gone after each of the first three."""
    return tuple((epochs * i / 4, sparsity if i == 3 else 1 - (1 - sparsity) ** (i / 3)) for i in (1, 2, 3))


@dataclass(frozen=True)
class _Usual:
    """How a method is scheduled where nothing else was said."""

    schedule: Literal["era", "steps", "oneshot"] = "era"
    by: Literal["epoch", "step"] | None = None
    early: bool = False  # until three quarters of the run, and
    first: float = 0.0  # from this part of it on
    constant: bool = False  # the era is at its target from its start
    steps: Callable[[float, float, float, int], tuple[tuple[float, float], ...]] = _thirds


_INIT = _Usual("oneshot", early=True)
_REGROW = _Usual(by="step", early=True, constant=True)
_USUAL = {
    "iterative": _Usual("steps"),
    "l1-filter": _Usual("oneshot"),
    "lottery": _Usual("steps", steps=_rounds),
    "zhu-gupta": _Usual(by="step"),
    "prunetrain": _Usual(by="step", early=True),
    "clicktrain": _Usual(by="step", early=True, first=1 / 3),
    **dict.fromkeys(("snip", "grasp", "synflow", "random", "magnitude"), _INIT),
    **dict.fromkeys(("set", "rigl", "dsr", "deepr"), _REGROW),
}


def _to_three_quarters(pruning: Pruning, epochs: int, first: float) -> tuple[float, float]:
    start = first * epochs if pruning.era_start is None else pruning.era_start
    left = max(epochs - start, 0.0)
    return start, pruning.era_length or (left * (0.75 - first) / (1 - first)) or 0.75


def _era(pruning: Pruning, epochs: int, by: str) -> tuple[float, float]:
    """Start and length in epochs; the ones left open are a third of the epochs each, or what room there is."""
    least = 3 if pruning.structure == "inter-epoch" else 1
    third, last = (epochs / 3, epochs) if by == "step" else (max(least, epochs // 3), epochs - 1)
    start, length = pruning.era_start, pruning.era_length
    if start is None:
        start = max(0, min(epochs / 3 if by == "step" else epochs // 3, last - (length or third)))
    if length is None:
        length = third if start + third <= last or last - start < least else last - start
    return start, length


def _check_end(start: float, length: float, epochs: int, by: str) -> None:
    """The target must be reached in the last epoch or before it; by steps, before the last step."""

    def fits(end: float) -> bool:
        return end < epochs if by == "step" else end <= epochs - 1

    end = start + length
    if fits(end):
        return
    last, most = (epochs, "below") if by == "step" else (epochs - 1, "at most")
    cures = [f"--epochs {math.floor(end) + 1 if by == 'step' else math.ceil(end) + 1} or more"]
    if start < last:
        cures.insert(0, f"--era-length {most} {last - start:g} with --era-start {start:g}")
    if fits(length):
        cures.insert(0, f"--era-start {most} {last - length:g} with --era-length {length:g}")
    raise UsageError(
        f"the era would run from epoch {start:g} to {end:g}, and the last of {epochs} epochs, counted from 0, is "
        f"{epochs - 1}; legal: {', or '.join(cures)}"
    )
