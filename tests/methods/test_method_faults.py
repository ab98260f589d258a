"""The suite for methods bites: each planted fault is caught, by the check that is there for it."""

from dataclasses import dataclass

import pytest
import torch

from campfire import Era
from campfire.methods import Method
from campfire.methods.base import REGISTRY
from campfire.methods.regrow import drawn, magnitudes
from campfire.methods.rigl import RigL
from campfire.methods.set import Set
from campfire.testing import check_method

ERA = Era(0, 4, 0.5, initial=0.5, by="step")

pytestmark = pytest.mark.filterwarnings("ignore::campfire.errors.LostOutputs")


@dataclass(frozen=True)
class Honest(Set):
    """SET behind another class, to plant faults in. Source: none."""

    def __str__(self) -> str:
        return "set"

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = Method.__hash__


class DrawsFromTheGlobalGenerator(Honest):
    """Source: none."""

    def growth(self, pruner, stage):
        return {n: torch.rand_like(x) for n, x in drawn(pruner, stage).items()}


class CountsInAField(Honest):
    """What it remembers is not in its state. Source: none."""

    def growth(self, pruner, stage):
        self.memory["calls"] = self.memory.get("calls", 0) + 1
        return {n: (x * (1 + self.memory["calls"])) % 1 for n, x in drawn(pruner, stage).items()}


class GrowsTooMuch(Honest):
    """Another sparsity than the allocation's. Source: none."""

    def change(self, pruner, stage, epoch):
        sizes = magnitudes(pruner, stage)
        pruner.regrow(stage, stage.schedule(epoch), pruner.keeps(stage), sizes, dict.fromkeys(sizes, 0.25))


class LosesABudget(Honest):
    """Fewer weights than the allocation's. Source: none."""

    def change(self, pruner, stage, epoch):
        sizes = magnitudes(pruner, stage)
        pruner.regrow(stage, stage.schedule(epoch), pruner.keeps(stage), sizes, dict.fromkeys(sizes, 0.75))


class SetsMasksItself(Honest):
    """Reaches into the pruner: the structure has no say. Source: none."""

    def change(self, pruner, stage, epoch):
        for layer in pruner.layers.values():
            keep = layer.keep.clone()
            alive, dead = keep.flatten().nonzero()[0], (~keep).flatten().nonzero()[-1]
            keep.view(-1)[alive], keep.view(-1)[dead] = False, True
            layer.mask = type(layer.mask)(keep, layer.mask.plan)


class ForgetsTheWeights(Honest):
    """The mask moves, and what died stays in the model. Source: none."""

    def after_step(self, pruner, epoch):
        for layer in pruner.layers.values():
            if layer.mask is not None:
                layer.mask = type(layer.mask)(layer.keep.flip(0).contiguous(), layer.mask.plan)


class NeverFreezes(Honest):
    """Goes on after the schedule's end. Source: none."""

    def due(self, pruner, stage, epoch):
        return stage.updates + 1


class ChangesInASkippedStep(Honest):
    """Acts when a batch comes, not when a step does. Source: none."""

    def batch(self, pruner, loss, inputs):
        for layer in pruner.layers.values():
            if layer.mask is not None and layer.weight.grad is None:
                layer.mask = type(layer.mask)(layer.keep.flip(0).contiguous(), layer.mask.plan)


class UnmasksGradients(RigL):
    """Lets dense gradients into the loop. Source: none."""

    def __str__(self):
        return "rigl"

    def wants_gradients(self, pruner, epoch):
        for layer in pruner.layers.values():
            if layer.mask is not None:
                layer.weight.register_hook(torch.ones_like)
        return False

    __eq__ = Honest.__eq__
    __hash__ = Method.__hash__


class NoPage(Honest):
    """Says nothing of where it is from."""


FAULTS = {
    DrawsFromTheGlobalGenerator: "resumed at .* differs",
    CountsInAField: "resumed at .* differs",
    GrowsTooMuch: "weights live, the budget is",
    LosesABudget: "a unit of .* or more below the budget",
    SetsMasksItself: "breaks its structure's rule",
    ForgetsTheWeights: "dead weights of .* are not zero",
    NeverFreezes: "masks change after they were frozen",
    ChangesInASkippedStep: "masks change in a skipped step",
    UnmasksGradients: "gradients of dead weights reach the loop",
    NoPage: "has no page",
}


def test_without_a_fault_it_passes() -> None:
    assert check_method(Honest(), ["ck"], [ERA]) == 1


@pytest.mark.parametrize(("fault", "says"), FAULTS.items(), ids=lambda x: getattr(x, "__name__", ""))
def test_each_fault_is_caught(fault: type[Method], says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        check_method(fault(), ["ck"], [ERA])


def test_a_method_that_refuses_everything_is_not_passed() -> None:
    with pytest.raises(AssertionError, match="refuses all"):
        check_method("l1-filter", ["ck"])


def test_faults_do_not_register() -> None:
    assert REGISTRY["set"] is Set
    assert REGISTRY["rigl"] is RigL
