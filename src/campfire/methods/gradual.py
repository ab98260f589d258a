"""Gradual: the masks tighten along the schedule while training goes on."""

from dataclasses import dataclass

from campfire.methods.base import Host, Method


@dataclass(frozen=True)
class Gradual(Method):
    """Every step of the era makes the masks anew for the target of the moment, inside the previous ones.

    Source: Campfire (Gamboa et al. 2020), Algorithm 2; Zhu and Gupta 2017.
    """

    name = "gradual"

    def after_step(self, pruner: Host, epoch: float) -> None:
        for stage in pruner.stages:
            target = stage.schedule(epoch)
            if epoch < stage.schedule.start or (stage.applied is not None and target <= stage.applied):
                continue  # masks that hold their exact count and never revive cannot change at a target that has not risen
            if pruner.steps % pruner.every == 0 or target >= stage.schedule.target:
                pruner.update(stage, target)
