"""codegen: kernels with a few tap patterns, in the format chwn, by code that is generated from the patterns themselves."""

import torch

from campfire.kernels.base import Conv
from campfire.kernels.codegen import passes as codegen_passes
from campfire.kernels.codegen.book import patterns_of
from campfire.kernels.codegen.flat import fits
from campfire.kernels.codegen.flat_index import FlatIndex
from campfire.kernels.codegen.flat_way import FlatWay
from campfire.kernels.codegen.index import PatternIndex
from campfire.kernels.lanes import passes as lanes_passes
from campfire.kernels.lanes.kernel import LanePasses, Lanes
from campfire.kernels.lanes.plan import Geometry
from campfire.kernels.lanes.ways import AsTheyLie, InParts, Way, way_of
from campfire.packed import Packed

MOST_PATTERNS = 16  # each is a loop of its own in every register tile
MOST_TAPS = 9  # their weights stand in registers beside the sums


class Codegen(Lanes):
    """Patterned kernels: one loop a pattern, whose taps are known when it is compiled; float32 on the CPU, others run dense.

    An input vector that is read serves all taps and rows of the register tile that need it: 4 taps read 0.4 to 0.5 vectors
    a product, where a kernel that knows no patterns reads one. Kernels of a filter are listed pattern by pattern, so that
    there is no branch inside a loop. Compiled on first use, for the book, tile and stride alone, and kept.
    """

    name = "codegen"
    layouts = ("tap", "csr")

    def why_not(self, packed: Packed, conv: Conv, dtype: torch.dtype, device: torch.device) -> list[str]:
        reasons = super().why_not(packed, conv, dtype, device)
        if reasons or device.type == "meta":
            return reasons
        taps = packed.shape[2] * packed.shape[3]
        if not 1 < taps <= 62:
            return [f"a kernel has 2 to 62 taps; got {packed.shape[2]}x{packed.shape[3]}"]
        if conv.stride != 1:
            return [f"with a stride taps share too few vectors to gain over lanes; stride is 1, got {conv.stride}"]
        patterns = patterns_of(packed)
        if not 0 < len(patterns) <= MOST_PATTERNS:
            return [f"its kernels have 1 to {MOST_PATTERNS} patterns of taps; got {len(patterns)}"]
        if bool(patterns.all()):
            return ["its kernels are whole: lanes reads them as sparingly"]
        if int(patterns.sum(1).max()) > MOST_TAPS:
            return [f"a pattern has {MOST_TAPS} taps at most; got {int(patterns.sum(1).max())}"]
        return []

    def prepare(self, packed: Packed, conv: Conv) -> "CodegenPasses":
        return CodegenPasses(packed, conv)


class CodegenPasses(LanePasses):
    """The indices of one layer, and code for each of its passes, made once for each size of its input."""

    def _found(self, geometry: Geometry) -> Way:
        given = self._positions, geometry, lanes_passes.width()
        if fits(geometry):
            return FlatWay(FlatIndex(*given))
        return way_of(PatternIndex(*given), codegen_passes)

    def indices(self, size: tuple[int, ...]) -> tuple[PatternIndex, PatternIndex]:
        """For inputs [N, C, H, W]: the index whose ``ahead`` the forward pass reads, and whose ``back`` d_input does."""
        way = self._way(size)
        assert isinstance(way, AsTheyLie | InParts | FlatWay)
        assert isinstance(way.index, PatternIndex)
        assert isinstance(way.index_back, PatternIndex)
        return way.index, way.index_back
