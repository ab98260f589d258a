"""The pruner that a configuration asks for."""

import dataclasses
from collections.abc import Callable, Mapping

from torch import nn

from campfire import schedules
from campfire.config import Config, prunes
from campfire.config.schema import Pruning
from campfire.errors import UsageError
from campfire.pruner import Phase, Pruner, inter_epoch, resolve, targets
from campfire.pruner.rules import Rules, Selector
from campfire.pruner.rulesets import RULESETS
from campfire.schedules import Schedule
from campfire.structures import Structure, named


def make_pruner(model: nn.Module, config: Config) -> Pruner | None:
    """The pruner that the configuration asks for; None for a dense run."""
    pruning = config.pruning
    if not prunes(pruning):
        return None
    if config.compute.compile and pruning.method.partition(":")[0] == "grasp":
        raise UsageError("grasp needs second derivatives, and compiled models have none; leave --compile out")
    phased = pruning.structure == "inter-epoch"
    return Pruner(
        model,
        _phases(pruning) if phased else _rules(model, pruning),
        None if phased else make_schedule(pruning),
        score=pruning.score,
        method=pruning.method,
        allocation=pruning.allocation,
        every=pruning.update_interval,
        seed=config.run.seed,
    )


def _phases(pruning: Pruning) -> list[Phase]:
    if pruning.method != "gradual":
        raise UsageError(f"structure inter-epoch is two gradual eras; it does not go with --method {pruning.method}")
    if pruning.rules or (pruning.schedule, pruning.era_by) != ("era", "epoch"):
        raise UsageError(
            "structure inter-epoch brings its own rules and eras; it takes no --rules, --schedule or --era-by"
        )
    phases = inter_epoch(pruning.era_start or 0, pruning.era_length or 0, pruning.sparsity)
    everywhere = pruning.scope == "all"
    return [dataclasses.replace(p, rules={nn.Conv2d: str(p.rules)}) if everywhere else p for p in phases]


def _rules(model: nn.Module, pruning: Pruning) -> Rules:
    """The given rules first, then the structure on what they leave of its scope."""
    rules: dict[Selector, Structure | str | None] = {**pruning.rules}
    if pruning.structure == "dense":
        return rules
    if pruning.scope == "all":
        return {**rules, **_everywhere(pruning.structure)}
    if not rules:
        return pruning.structure
    inside = resolve(targets(model)[0], pruning.structure)[0]
    return {**rules, **{_layers_of(inside, structure): structure for structure in dict.fromkeys(inside.values())}}


def _everywhere(structure: str) -> dict[Selector, Structure | str | None]:
    if structure in RULESETS:
        raise UsageError(
            f"--scope all lays one structure on all layers; {structure} is a rule set for the default scope"
        )
    return {nn.Linear if named(structure).scope == "linear" else nn.Conv2d: structure}


def _layers_of(inside: Mapping[str, Structure], structure: Structure) -> Callable[[str, nn.Module], bool]:
    return lambda name, module: inside.get(name) == structure


def make_schedule(pruning: Pruning) -> Schedule:
    """The schedule of a configuration that is complete."""
    start, target = pruning.era_start or 0.0, pruning.sparsity
    if pruning.schedule == "steps":
        return schedules.Steps(pruning.steps or ())
    if pruning.schedule == "oneshot":
        return schedules.OneShot(start, target)
    initial, by = pruning.era_initial or 0.0, pruning.era_by or "epoch"
    return schedules.Era(start, pruning.era_length or 1.0, target, initial, pruning.era_power, by)


def check_compress(pruner: Pruner | None, config: Config) -> None:
    """Whether the run can be compressed when its masks are final, if it is to be."""
    if not config.pruning.compress:
        return
    if pruner is None:
        raise UsageError("--compress keeps what pruning leaves, and this run prunes nothing; leave it out")
    if config.optim.model_ema:
        raise UsageError("--compress and --model-ema do not go together: the average is one of dense weights")


def check_reached(pruner: Pruner, epochs: int, steps_per_epoch: int) -> None:
    """The last step must find the target reached."""
    schedule = pruner.stages[-1].schedule
    if schedule(epochs - 1 / steps_per_epoch) < schedule.target:
        raise UsageError(
            f"the schedule reaches its target in epoch {schedule.end:g}, and the last of {epochs} epochs, "
            f"counted from 0, is {epochs - 1}; prune earlier, or train longer"
        )
