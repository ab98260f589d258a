"""The suite for layouts bites: each fault planted in packing is caught, by the check that is there for it."""

import math

import pytest
import torch

from campfire.packed import LAYOUTS, Layout
from campfire.packed.csr import CSR
from campfire.packed.grouped import Grouped
from campfire.packed.tile import grid, read_tile, tile_positions
from campfire.packed.unit import Unit
from campfire.testing import check_layout, masks

SHAPES = [(16, 8, 3, 3), (9, 7, 5, 3)]


class Honest(Unit):
    """unit under no name, to plant faults in."""

    name = ""


class OffByOnePosition(Honest):
    """One too far."""

    def positions(self, packed):
        return (super().positions(packed) + 1) % math.prod(packed.shape)


class ForgetsTheOrder(Grouped):
    """Tiles over rows as they come."""

    name = ""

    def positions(self, packed):
        return tile_positions(packed.shape, read_tile(packed.parts["tile"]), packed.parts["unit"]).flatten()


class WholeTiles(Honest):
    """Stores the whole weight."""

    def indices(self, mask, **options):
        parts = super().indices(mask, **options)
        count = math.prod(grid(tuple(mask.keep.shape), read_tile(parts["tile"])))
        return {**parts, "unit": torch.arange(count, dtype=torch.int32)}


class TakesAnyMask(Honest):
    """Takes masks that are not made of its tile."""

    def why_not(self, mask, **options):
        return []

    def indices(self, mask, *, tile=None, **options):
        whole = (1, 1, *mask.keep.shape[2:])
        return super().indices(mask, tile=whole if tile is None else tile)


class PackForgetsWhyNot(Honest):
    """Packs what it says it cannot."""

    def _why_not_pack(self, shape, mask, options):
        return []


class OtherReasons(Honest):
    """Gives no reason."""

    def _why_not_pack(self, shape, mask, options):
        return ["no"] if super()._why_not_pack(shape, mask, options) else []


class HoldsNothing(Honest):
    """Refuses all but the full mask."""

    def why_not(self, mask, **options):
        return super().why_not(mask, **options) or (["too sparse"] if mask.sparsity else [])


class IgnoresItsOptions(Honest):
    """Always a kernel a tile, then asked for another tile goes astray."""

    def options_of(self, packed):
        return {"tile": torch.ones(4, dtype=torch.int32)}


class LosesBits(Honest):
    """Half precision, then back."""

    def gather(self, packed, dense):
        return super().gather(packed, dense).half().to(dense.dtype)


class AlwaysFloat32(Honest):
    """Forgets the dtype."""

    def scatter(self, packed, value):
        return super().scatter(packed, value.float())


class MultipliesByTheMask(Honest):
    """NaN times zero is NaN."""

    def unpack(self, packed):
        keep = super().scatter(packed, torch.ones_like(packed.parts["value"]))
        return super().unpack(packed) + (1 - keep) * packed.parts["value"].sum()


class FlushesZeros(Honest):
    """Minus zero is another number, and so is one that is not normal."""

    def scatter(self, packed, value):
        return super().scatter(packed, value + 0.0)


class NotDifferentiable(Honest):
    """Detaches."""

    def scatter(self, packed, value):
        return super().scatter(packed, value.detach())


class SortedGather(Honest):
    """Gathers in the order of the weight; scatter does not."""

    def gather(self, packed, dense):
        places = self.positions(packed).sort().values
        return dense.flatten()[places].view(self.value_shape(packed))


class GatherAnything(Honest):
    """Reads the front of a tensor that is too long."""

    def gather(self, packed, dense):
        return dense.reshape(-1)[self.positions(packed)].view(self.value_shape(packed))


class AliasesTheWeight(CSR):
    """A full mask needs no copy, it thinks."""

    name = ""

    def gather(self, packed, dense):
        whole = packed.parts["column"].numel() == dense.numel()
        return dense.detach().view(-1) if whole and dense.is_contiguous() else super().gather(packed, dense)


class Fat(Honest):
    """Four bytes of index for a weight."""

    parts = {**Unit.parts, "more": Unit.parts["unit"]}

    def indices(self, mask, **options):
        return {**super().indices(mask, **options), "more": torch.arange(mask.keep.numel(), dtype=torch.int32)}

    def why_bad_indices(self, packed):
        more = torch.arange(math.prod(packed.shape), dtype=torch.int32)
        return super().why_bad_indices(packed) or ["more"] * (not torch.equal(packed.parts["more"], more))


class RefusesNaN(Honest):
    """Values may be anything."""

    def why_invalid(self, packed):
        return super().why_invalid(packed) or ["NaN"] * bool(packed.parts["value"].isnan().any())


class RefusesItsOwn(Honest):
    """Refuses what it packed."""

    def why_bad_indices(self, packed):
        return super().why_bad_indices(packed) or ["empty"] * (packed.parts["unit"].numel() == 0)


FAULTS = {
    OffByOnePosition: "positions are not those of the living weights",
    ForgetsTheOrder: "positions are not those of the living weights|another order than pack's",
    WholeTiles: "values of .* living weights",
    TakesAnyMask: "living weights",
    PackForgetsWhyNot: "pack takes what why_not refuses",
    OtherReasons: "pack says .*, why_not",
    HoldsNothing: "holds none of the sparse masks",
    IgnoresItsOptions: "its own options pack it differently",
    LosesBits: "does not give back torch.float32",
    AlwaysFloat32: "unpacks torch.float64 to torch.float32",
    MultipliesByTheMask: "does not give back",
    FlushesZeros: "does not give back",
    NotDifferentiable: "not differentiable",
    SortedGather: "does not give back|order of positions",
    GatherAnything: "gather takes a tensor of shape",
    AliasesTheWeight: "share memory",
    Fat: "bytes, the dense weight",
    RefusesNaN: "refuses values",
    RefusesItsOwn: "refuses its own parts",
}


def test_without_a_fault_it_passes() -> None:
    assert check_layout(Honest(), shapes=SHAPES) > 10


@pytest.mark.parametrize(("fault", "says"), FAULTS.items(), ids=lambda x: getattr(x, "__name__", ""))
def test_each_fault_is_caught(fault: type[Layout], says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        check_layout(fault(), shapes=SHAPES)


def test_a_layout_without_a_page_is_refused() -> None:
    class Bare(Unit):
        name = ""

    with pytest.raises(AssertionError, match="docstring draws its parts"):
        check_layout(Bare())


def test_the_faults_are_not_registered() -> None:
    assert not [name for name, layout in LAYOUTS.items() if type(layout) in FAULTS]


def test_one_checks_masks_of_ones_own() -> None:
    given = [mask for _, mask in masks((8, 4, 3, 3), 0.7)]
    assert check_layout("csr", given) == len(given)
    assert check_layout("shrunk", [dict(masks((8, 4, 3, 3), 0.7))["filters"]]) == 1
