"""ClickTrain: patterns and kernels are chosen early, pressed towards, and cut out late."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from campfire.errors import UsageError
from campfire.mask import pack_bits, unpack_bits, view4
from campfire.methods.base import Host, Method, Shape, Stage, read_tensors
from campfire.methods.group_lasso import GroupLasso
from campfire.schedules import OneShot, Schedule

SOON = 0.25  # of the time from e1 to e2 may pass until masks are chosen


@dataclass(frozen=True)
class ClickTrain(Method):
    """Masks are chosen at e1, where the schedule starts, a lasso presses on what they leave out, and at e2, its end, it goes.

        plain       epoch < e1          dense training
        select      from e1 on          importance (w g)^2, averaged over ``batches`` steps, decides patterns and kernels
        regularise  until e2            loss + lam (G_pattern + G_kernel), the masks stay
        hard        from e2 on          what the masks leave out is zero, and stays so

        G_pattern = sum over kernels of ||W outside its pattern||,  G_kernel = sum over the kernels that are to die of ||W||

    Goes with any structure; for others than `pattern` the group is what a kernel loses. The loop adds ``pruner.penalty()`` to
    the loss. The paper trains with mixup from e2 on, which `campfire train` does by itself (``--mixup 0.3``), and chooses by a
    single batch (``batches=1``).
    When: a patterned network is wanted for the time of one training.
    Source: Zhang et al. 2021, ClickTrain, and its code.
    """

    name = "clicktrain"
    lam: float = 2.5e-4
    batches: int = 10

    def __post_init__(self) -> None:
        if self.lam < 0 or self.batches < 1:
            raise UsageError(f"lam is >= 0 and batches are 1 or more; got {self.lam} and {self.batches}")

    def why_not(self, schedule: Schedule) -> list[str]:
        if isinstance(schedule, OneShot) or schedule.end <= schedule.start:
            return [
                "it chooses masks at e1, the schedule's start, and cuts at e2, its end, which must come later; "
                f"got e1 = {schedule.start:g} and e2 = {schedule.end:g}"
            ]
        return []

    def why_not_on(self, stages: Sequence[Stage]) -> list[str]:
        return [] if len(stages) == 1 else [f"it chooses once, and there are {len(stages)} phases"]

    def mode(self, pruner: Host, epoch: float) -> Literal["plain", "select", "regularise", "hard"]:
        """Where the training stands."""
        (stage,) = pruner.stages
        if stage.applied is not None:
            return "hard"
        if "parts" in self.memory:
            return "regularise"
        return "select" if epoch >= stage.schedule.start - 1e-9 else "plain"

    def before_step(self, pruner: Host, epoch: float) -> None:
        if self.mode(pruner, epoch) != "select":
            return
        (stage,) = pruner.stages
        sums, weights = self.memory.setdefault("sums", {}), pruner.weights(stage)
        for name, grad in pruner.gradients(stage).items():
            importance = (view4(weights[name].detach()).float() * grad).square_()
            sums[name] = sums[name].to(grad.device).add_(importance) if name in sums else importance
        self.memory["seen"] = seen = self.memory.get("seen", 0) + 1
        start, end = stage.schedule.start, stage.schedule.end
        if seen >= self.batches or epoch >= start + SOON * (end - start):
            self.memory["parts"] = pruner.select(stage, stage.schedule.target, self.memory.pop("sums"))

    def penalty(self, pruner: Host) -> Tensor | float:
        if self.lam == 0 or self.mode(pruner, pruner.epoch) != "regularise":
            return 0.0
        (stage,) = pruner.stages
        if "lasso" not in self.memory:
            self.memory["lasso"] = GroupLasso(self.memory["parts"])
        return self.lam * self.memory["lasso"](pruner.weights(stage))

    def after_step(self, pruner: Host, epoch: float) -> None:
        (stage,) = pruner.stages
        if self.mode(pruner, epoch) != "regularise" or epoch < stage.schedule.end - 1e-9:
            return
        weights, chosen = pruner.weights(stage), {}
        for name, parts in self.memory["parts"].items():  # those of a loaded state lie on the CPU
            chosen[name] = torch.stack([part.to(weights[name].device).float() for part in parts]).sum(0)
        pruner.update(stage, stage.schedule.target, scores=chosen)
        self.memory.clear()

    def state_dict(self) -> dict[str, Any]:
        parts = self.memory.get("parts", {})
        return {
            "seen": self.memory.get("seen", 0),
            "sums": dict(self.memory.get("sums", {})),
            "parts": {name: [pack_bits(part) for part in masks] for name, masks in parts.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any], shapes: Mapping[str, Shape]) -> None:
        sums, seen = read_tensors(state["sums"], shapes), int(state["seen"])
        parts = {n: tuple(unpack_bits(bits, shapes[n]) for bits in masks) for n, masks in state["parts"].items()}
        if parts and (set(parts) != set(shapes) or not all(parts.values())):
            raise ValueError("masks were chosen for some layers only")
        self.memory.clear()
        self.memory.update(seen=seen, **({"sums": sums} if sums else {}), **({"parts": parts} if parts else {}))
