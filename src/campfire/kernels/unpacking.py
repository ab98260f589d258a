"""Where the dense library runs all three passes: a weight that is unpacked once, and the library's own autograd.

Both gradients then come from one call, as those of a dense layer, with one node of ours around it instead of three operators.
"""

import torch
from torch import Tensor, nn
from torch.autograd import Function

from campfire.kernels.passes import Passes, living, numbered
from campfire.kernels.reference import Dense
from campfire.kernels.turning import turn

_library = torch.library.Library("campfire", "FRAGMENT")
_library.define("unpack(Tensor value, ScalarType dtype, int layer) -> Tensor")
_library.define("pick(Tensor dense, ScalarType dtype, int layer) -> Tensor")


def _unpack(value: Tensor, dtype: torch.dtype, layer: int) -> Tensor:
    return _dense(layer).weight(value, dtype)


def _pick(dense: Tensor, dtype: torch.dtype, layer: int) -> Tensor:
    return _dense(layer).pick(dense, dtype)


_library.impl("unpack", _unpack, "CompositeExplicitAutograd")
_library.impl("pick", _pick, "CompositeExplicitAutograd")


@torch.library.register_fake("campfire::unpack")
def _(value: Tensor, dtype: torch.dtype, layer: int) -> Tensor:
    k, c, r, s = numbered(layer).shape  # nothing is prepared here: indices have no numbers
    return value.new_empty_strided((k, c, r, s), (r * s * c, 1, s * c, c), dtype=dtype)


@torch.library.register_fake("campfire::pick")
def _(dense: Tensor, dtype: torch.dtype, layer: int) -> Tensor:
    return dense.new_empty(numbered(layer).value_shape, dtype=dtype)


def _dense(layer: int) -> Dense:
    library = numbered(layer).library
    assert library is not None
    return library()


class _Unpack(Function):
    @staticmethod
    def forward(ctx, value: Tensor, dtype: torch.dtype, layer: int) -> Tensor:  # pyright: ignore
        ctx.shape, ctx.dtype, ctx.layer, ctx.passes = value.shape, value.dtype, layer, living(layer)
        return _way(value, torch.ops.campfire.unpack, _unpack)(value, dtype, layer)

    @staticmethod
    def backward(ctx, dense: Tensor):  # pyright: ignore
        again = torch.is_grad_enabled()  # somebody wants the gradient's gradient
        pick = _Pick.apply if again else _way(dense, torch.ops.campfire.pick, _pick)
        return pick(dense, ctx.dtype, ctx.layer).view(ctx.shape), None, None


class _Pick(Function):
    @staticmethod
    def forward(ctx, dense: Tensor, dtype: torch.dtype, layer: int) -> Tensor:  # pyright: ignore
        ctx.dtype, ctx.layer, ctx.passes = dense.dtype, layer, living(layer)
        return _way(dense, torch.ops.campfire.pick, _pick)(dense, dtype, layer)

    @staticmethod
    def backward(ctx, value: Tensor):  # pyright: ignore
        return _Unpack.apply(value, ctx.dtype, ctx.layer), None, None


def _way(x: Tensor, operator, function):  # pyright: ignore[reportMissingParameterType]
    """The operator where somebody traces, who must not see inside; else the function itself, which costs less."""
    tracing = torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
    if tracing or x.device.type == "meta":
        return operator
    return function if type(x) in (Tensor, nn.Parameter) else operator


def dense_conv(x: Tensor, value: Tensor, bias: Tensor | None, passes: Passes, dtype: torch.dtype) -> Tensor:
    """The library's convolution of x with the unpacked weight in ``dtype``; differentiable in x, value and bias, twice too."""
    if torch.is_grad_enabled() and value.requires_grad:
        weight: Tensor = _Unpack.apply(value, dtype, passes.number)  # pyright: ignore[reportAssignmentType]
    else:
        weight = _way(value, torch.ops.campfire.unpack, _unpack)(value, dtype, passes.number)
    c, x = passes.conv, x if x.is_contiguous() else turn(x, "nhwc")
    return nn.functional.conv2d(x, weight, bias, c.stride, c.padding, c.dilation, c.groups)
