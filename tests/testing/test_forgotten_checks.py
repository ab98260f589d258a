"""The suite for layouts damages parts: each check that ``why_invalid`` forgets is noticed."""

import math

import pytest
import torch

from campfire.packed import Layout
from campfire.packed.csr import CSR
from campfire.packed.grouped import Grouped
from campfire.packed.tap import Tap
from campfire.packed.tile import grid, read_tile, why_not_dividing
from campfire.packed.unit import Unit
from campfire.testing import check_layout

SHAPES = [(16, 8, 3, 3), (9, 7, 5, 3)]


class Honest(Unit):
    """unit under no name, to plant faults in."""

    name = ""


class AcceptsAnything(Honest):
    """Never looks."""

    def why_invalid(self, packed):
        return []


class Checked(Honest):
    """unit with its check of ``unit`` spelled out, to forget some of it."""

    def why_bad_indices(self, packed):
        tile = read_tile(packed.parts["tile"])
        reasons = why_not_dividing(packed.shape, tile)
        return reasons or self.why_bad(packed.parts["unit"], math.prod(grid(packed.shape, tile)))

    def why_bad(self, unit, stop):
        outside = unit.numel() and (int(unit.min()) < 0 or int(unit.max()) >= stop)
        return ["outside"] * bool(outside) or ["order"] * bool((unit.diff() <= 0).any())


class ForgetsBelow(Checked):
    """-1 passes."""

    def why_bad(self, unit, stop):
        return ["outside"] * bool((unit >= stop).any()) or ["order"] * bool((unit.diff() <= 0).any())


class OneTooFar(Checked):
    """``<=`` for ``<``."""

    def why_bad(self, unit, stop):
        return super().why_bad(unit, stop + 1)


class ForgetsOrder(Checked):
    """Only equal neighbours are refused."""

    def why_bad(self, unit, stop):
        return [] if super().why_bad(unit.sort().values, stop) == [] else ["bad"]


class ForgetsDuplicates(Checked):
    """``<`` for ``<=``."""

    def why_bad(self, unit, stop):
        return [] if super().why_bad(unit.unique(), stop) == [] and not (unit.diff() < 0).any() else ["bad"]


class ForgetsTheTile(Honest):
    """A tile may be anything whose grid exists."""

    def why_bad_indices(self, packed):
        tile = read_tile(packed.parts["tile"])
        if len(tile) != 4 or min(tile) < 1:
            return ["tile"]
        top = math.prod(grid(packed.shape, tile))
        return Checked.why_bad(self, packed.parts["unit"], top)  # pyright: ignore[reportArgumentType]


class CrashesOnDamage(Honest):
    """Divides by the tile before it looks at it."""

    def why_bad_indices(self, packed):
        grid(packed.shape, read_tile(packed.parts["tile"]))
        return super().why_bad_indices(packed)


class ForgetsDtypes(Honest):
    """int64 passes, and a kernel reads every other number."""

    parts = dict.fromkeys(Unit.parts, (1, (torch.int32, torch.int64)))


class ForgetsTheValue(Honest):
    """Values of any size."""

    def _why_bad_value(self, packed):
        return []


class ForgetsBack(Grouped):
    """Nobody checks ``back`` but its size."""

    name = ""

    def why_bad_indices(self, packed):
        unit, back = packed.parts["unit"], packed.parts["back"]
        whole = back.numel() == unit.numel() and bool(((back >= 0) & (back < len(unit))).all())
        reasons = super().why_bad_indices(packed)
        return [] if whole and reasons and reasons[0].startswith("back") else reasons


class ForgetsUnusedRows(Tap):
    """A book may have more rows than the kernels use, and twice the same."""

    name = ""

    def why_bad_indices(self, packed):
        reasons = super().why_bad_indices(packed)
        return [] if reasons and "book" in reasons[0] and "has" not in reasons[0] else reasons


class ForgetsRows(CSR):
    """Columns may fall within a row."""

    name = ""

    def why_bad_indices(self, packed):
        reasons = super().why_bad_indices(packed)
        return [] if reasons == ["the columns of a row do not rise"] else reasons


FAULTS = {
    AcceptsAnything: "why_invalid takes parts with no ",
    ForgetsBelow: "takes parts with (-1|the smallest)",
    OneTooFar: "they point outside the weight|lie in one place",
    ForgetsOrder: "another order than pack's",
    ForgetsDuplicates: "two values lie in one place",
    ForgetsTheTile: "why_not refuses the weight|reading them crashes",
    CrashesOnDamage: "why_invalid crashes",
    ForgetsDtypes: "takes parts with .* in torch.int64",
    ForgetsTheValue: "takes parts with an entry too (few|many)",
    ForgetsBack: "nobody has looked at it",
    ForgetsUnusedRows: "superfluous|too many of book",
    ForgetsRows: "another order than pack's|lie in one place",
}


def test_without_a_fault_it_passes() -> None:
    assert check_layout(Checked(), shapes=SHAPES) > 10


@pytest.mark.parametrize(("fault", "says"), FAULTS.items(), ids=lambda x: getattr(x, "__name__", ""))
def test_each_fault_is_caught(fault: type[Layout], says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        check_layout(fault(), shapes=SHAPES)
