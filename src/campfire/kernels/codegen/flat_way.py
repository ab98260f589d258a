"""Few images by generated code, pixels side by side; the gradient of the values, and all that has no code, by `lanes`."""

from functools import cached_property

from torch import Tensor

from campfire.kernels.codegen import passes
from campfire.kernels.codegen.flat_index import FlatIndex
from campfire.kernels.formats import empty
from campfire.kernels.lanes.ways import Way, way_of


class FlatWay(Way):
    """The three passes of a layer, whose code is looked for once."""

    def __init__(self, index: FlatIndex):
        self.index, self.index_back = index, index

    def forward(self, x: Tensor, value: Tensor, bias: Tensor | None, residual: Tensor | None, relu: bool) -> Tensor:
        if self._ahead is None:
            return self._lanes.forward(x, value, bias, residual, relu)
        g = self.index.geometry
        y = empty((g.images, g.outputs, *g.out_size), x, "chwn")
        return passes.run(self._ahead, self.index.ahead, x, value, bias, residual, relu, y)

    def d_input(self, dy: Tensor, value: Tensor) -> Tensor:
        if self._back is None:
            return self._lanes.d_input(dy, value)
        g = self.index.geometry
        dx = empty((g.images, g.inputs, g.height, g.width), dy, "chwn")
        return passes.run(self._back, self.index.back, dy, value, None, None, False, dx)

    def d_values(self, x: Tensor, dy: Tensor) -> Tensor:
        return self._lanes.d_values(x, dy)

    @cached_property
    def _ahead(self) -> passes.Code | None:
        return passes.code_of(self.index.ahead, self.index)

    @cached_property
    def _back(self) -> passes.Code | None:
        return passes.code_of(self.index.back, self.index)

    @cached_property
    def _lanes(self) -> Way:
        return way_of(self.index.scattered)
