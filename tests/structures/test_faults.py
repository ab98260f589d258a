"""The conformance suite bites: each planted fault is caught, by the check that is there for it."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from campfire.mask import Mask
from campfire.structures.base import Structure
from campfire.structures.granularity import CK
from campfire.structures.window import Window
from campfire.testing import check_structure


@dataclass(frozen=True)
class Honest(Structure):
    """CK behind a different class, to plant faults in."""

    def count(self, shape, sparsity):
        return CK().count(shape, sparsity)

    def any_mask(self, shape):
        return CK().any_mask(shape)

    def project(self, score: Tensor, count, plan, alive: Tensor) -> Tensor:
        return CK().project(score, count, plan, alive)

    def why_invalid(self, mask: Mask):
        return CK().why_invalid(mask)


class KeepsTheWorst(Honest):
    def project(self, score, count, plan, alive):
        if (
            score.unique().numel() > 10 and (score < 0.99).any()
        ):  # the order of ties stays right: only the choice is wrong
            best = score.amax((2, 3), keepdim=True)
            score = (best.max() + 1 - best).expand_as(score)
        return CK().project(score, count, plan, alive)


class BoastsOfRuns(Honest):
    def run(self, shape):
        return shape[3]  # rows of a kernel, but whole kernels live


class OneUnitMore(Honest):
    def project(self, score, count, plan, alive):
        return CK().project(score, min(count + 9, int(alive.sum())), plan, alive)


class ThresholdOnTies(Honest):
    def project(self, score, count, plan, alive):
        worst = score.amax((2, 3))[CK().project(score, count, plan, alive).any(-1).any(-1)].min()
        return alive & (score.amax((2, 3), keepdim=True) >= worst)


class Revives(Honest):
    def project(self, score, count, plan, alive):
        return CK().project(score, count, plan, torch.ones_like(alive))


class DeadMeansScoreZero(Honest):
    def project(self, score, count, plan, alive):
        living = alive & (score.amax((2, 3), keepdim=True) > 0)
        return CK().project(score, min(count, int(living.sum())), plan, living)


class Random(Honest):
    def project(self, score, count, plan, alive):
        return CK().project(torch.rand_like(score), count, plan, alive)


class FloatMask(Honest):
    def project(self, score, count, plan, alive):
        return CK().project(score, count, plan, alive).float()


class FlatMask(Honest):
    def project(self, score, count, plan, alive):
        return CK().project(score, count, plan, alive).flatten()


class HalfAUnit(Honest):
    def project(self, score, count, plan, alive):
        keep = CK().project(score, count, plan, alive)
        first, last = keep.flatten().nonzero()[0], (~keep & alive).flatten().nonzero()
        if len(last):  # move one weight into a dead kernel: the count stays right
            keep.view(-1)[first], keep.view(-1)[last[-1]] = False, True
        return keep


class TiesTheOtherWay(Honest):
    def project(self, score, count, plan, alive):
        flipped = CK().project(score.flip(0, 1), count, plan, alive.flip(0, 1))
        return flipped.flip(0, 1).contiguous()


class ChangesTheScore(Honest):
    def project(self, score, count, plan, alive):
        return CK().project(score.mul_(2), count, plan, alive)


class ChangesTheOldMask(Honest):
    def project(self, score, count, plan, alive):
        return alive.copy_(CK().project(score, count, plan, alive))


class CountRises(Honest):
    def count(self, shape, sparsity):
        return CK().count(shape, 0.9 - sparsity if 0 < sparsity <= 0.9 else sparsity)


class CountsNothing(Honest):
    def count(self, shape, sparsity):
        return 0 if sparsity > 0.8 else super().count(shape, sparsity)


class PrunesAtZero(Honest):
    def count(self, shape, sparsity):
        return CK().count(shape, max(sparsity, 0.2))


class AcceptsAnything(Honest):
    def why_invalid(self, mask):
        return []


class RefusesItsOwn(Honest):
    def why_invalid(self, mask):
        return CK().why_invalid(mask) or (["no"] if mask.sparsity > 0.5 else [])


class NotHashable(Honest):
    __hash__ = None  # pyright: ignore[reportAssignmentType]


@dataclass(frozen=True)
class UnevenWindows(Window):
    """A window structure whose budget is met by the layer but not by each kernel."""

    name = ""

    def project(self, score, count, plan, alive):
        keep = torch.zeros(score.numel(), dtype=torch.bool)
        living = score.masked_fill(~alive, -1).flatten()
        keep[living.argsort(stable=True)[living.numel() - count :]] = True
        return keep.view_as(score)


FAULTS = {
    KeepsTheWorst: "keeps worse weights",
    BoastsOfRuns: "not the best runs",
    OneUnitMore: "weights, declared",
    ThresholdOnTies: "weights, declared",
    Revives: "dead weights came back",
    DeadMeansScoreZero: "weights, declared",
    Random: "not deterministic",
    FloatMask: "a mask is bool",
    FlatMask: "a mask is bool",
    HalfAUnit: "breaks its|break its|lowest index",
    TiesTheOtherWay: "lowest index goes first",
    ChangesTheScore: "changes its inputs",
    ChangesTheOldMask: "changes its inputs|shares memory",
    CountRises: "count rises",
    CountsNothing: r"not in \[1",
    PrunesAtZero: "sparsity 0 must keep",
    AcceptsAnything: "lets every broken mask pass",
    RefusesItsOwn: "its rule|its own rule",
    NotHashable: "unhashable",
    UnevenWindows: "break",
}


def test_without_a_fault_it_passes() -> None:
    assert check_structure(Honest()) > 0


@pytest.mark.parametrize(("fault", "says"), FAULTS.items(), ids=lambda x: getattr(x, "__name__", ""))
def test_each_fault_is_caught(fault: type[Structure], says: str) -> None:
    with pytest.raises((AssertionError, TypeError), match=says):
        check_structure(fault())


def test_a_layout_that_loses_values_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    from campfire.packed import LAYOUTS

    pack = type(LAYOUTS["csr"]).pack

    def lossy(self, weight, mask):
        return {**pack(self, weight, mask), "value": pack(self, weight, mask)["value"].half().float()}

    monkeypatch.setattr(type(LAYOUTS["csr"]), "pack", lossy)
    with pytest.raises(AssertionError, match="unpacking does not give it back"):
        check_structure(Honest())
