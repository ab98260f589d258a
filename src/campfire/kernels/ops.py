"""The operators campfire::conv, conv_d_input and conv_d_values: what autograd, compilation and dispatch see of a packed layer.

A layer's prepared kernels are Python objects, so operators are handed their number. Autograd stays outside the operators
(it would cost more than small layers).
"""

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from campfire.errors import CampfireError, DoesNotFit
from campfire.kernels.formats import empty, to_format
from campfire.kernels.passes import Passes, living, numbered
from campfire.kernels.turning import turn
from campfire.kernels.unpacking import dense_conv

_library = torch.library.Library("campfire", "DEF")
_library.define(
    "conv(Tensor x, Tensor value, Tensor? bias, int layer, Tensor? residual=None, bool relu=False) -> Tensor"
)
_library.define("conv_d_input(Tensor dy, Tensor value, SymInt[] size, int layer) -> Tensor")
_library.define("conv_d_values(Tensor dy, Tensor x, int layer) -> Tensor")


def _own(layer: int, value: Tensor) -> Passes:
    """Those of this number, if they are of these values: a program that was saved may run in another process."""
    passes = numbered(layer)
    if value.shape != passes.value_shape:
        raise CampfireError("this program was made of a compressed model in another process; use campfire export")
    return passes


def _conv(
    x: Tensor, value: Tensor, bias: Tensor | None, layer: int, residual: Tensor | None = None, relu: bool = False
) -> Tensor:
    passes = _own(layer, value)
    return to_format(passes.forward.forward(x, value, bias, residual, relu), passes.format)


def _conv_d_input(dy: Tensor, value: Tensor, size: list[int], layer: int) -> Tensor:
    passes = _own(layer, value)
    return to_format(passes.d_input.d_input(dy, value, tuple(size)), passes.format)


def _conv_d_values(dy: Tensor, x: Tensor, layer: int) -> Tensor:
    return numbered(layer).d_values.d_values(dy, x)


for _name, _run in (("conv", _conv), ("conv_d_input", _conv_d_input), ("conv_d_values", _conv_d_values)):
    _library.impl(_name, _run, "CompositeExplicitAutograd")


@torch.library.register_fake("campfire::conv")
def _(
    x: Tensor, value: Tensor, bias: Tensor | None, layer: int, residual: Tensor | None = None, relu: bool = False
) -> Tensor:
    passes = numbered(layer)
    return empty(passes.conv.output(tuple(x.shape), passes.shape), x, passes.format)


@torch.library.register_fake("campfire::conv_d_input")
def _(dy: Tensor, value: Tensor, size: list[int], layer: int) -> Tensor:
    return empty(tuple(size), dy, numbered(layer).format)


@torch.library.register_fake("campfire::conv_d_values")
def _(dy: Tensor, x: Tensor, layer: int) -> Tensor:
    return dy.new_empty(numbered(layer).value_shape)


def _hold(layer: int) -> list[Tensor]:
    passes = numbered(layer)
    return passes.forward.hold() if passes.d_input is passes.forward else []


class _Conv(Function):
    @staticmethod
    def forward(ctx, x: Tensor, value: Tensor, bias: Tensor | None, layer: int) -> Tensor:  # pyright: ignore
        ctx.save_for_backward(x, value)
        ctx.layer, ctx.size, ctx.held, ctx.passes = layer, x.shape, None, living(layer)
        if ctx.needs_input_grad[0] and not torch.compiler.is_compiling():
            ctx.held = _hold(layer), value  # with the values it is made of: nothing else can lie where they do
        return torch.ops.campfire.conv(x, value, bias, layer)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor):  # pyright: ignore
        x, value = ctx.saved_tensors
        wants_x, wants_value, wants_bias, _ = ctx.needs_input_grad
        dx = torch.ops.campfire.conv_d_input(dy, value, list(ctx.size), ctx.layer) if wants_x else None
        dv = torch.ops.campfire.conv_d_values(dy, x, ctx.layer) if wants_value else None
        db = dy.sum((0, 2, 3)) if wants_bias else None
        ctx.held = None
        return dx, dv, db, None


def conv(
    x: Tensor,
    value: Tensor,
    bias: Tensor | None,
    passes: Passes,
    residual: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    """The convolution of x [N, C, H, W] with packed values, in any shape, plus ``residual``, then ReLU.

    Differentiable once in x, value, bias and residual. Sum and ReLU are part of the kernel where no gradient is asked for
    and the residual has the result's shape and dtype. Under autocast it runs in autocast's dtype, like the dense
    convolution.

    Raises:
        DoesNotFit: the input has other channels, is smaller than the kernel, or lies on another device.
    """
    dtype = autocast_dtype(x)
    if dtype is not None and isinstance(residual, Tensor):
        residual = residual.to(dtype)
    if passes.library is not None:
        return finish(dense_conv(x, value, bias, passes, dtype or value.dtype), residual, relu)
    value = value if value.shape == passes.value_shape else value.view(passes.value_shape)
    if dtype is not None:
        x, value, bias = x.to(dtype), value.to(dtype), None if bias is None else bias.to(dtype)
    _require_fits(x, value, bias, passes)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, value, bias)):
        x = turn(x, passes.format)  # once; and what made x has its gradient in the format of what it kept
        y: Tensor = _Conv.apply(x, value, bias, passes.number)  # pyright: ignore[reportAssignmentType]
        return finish(y, residual, relu)
    if residual is not None and not _joins(residual, x, passes):
        return finish(torch.ops.campfire.conv(x, value, bias, passes.number), residual, relu)
    return torch.ops.campfire.conv(x, value, bias, passes.number, residual, relu)


def _require_fits(x: Tensor, value: Tensor, bias: Tensor | None, passes: Passes) -> None:
    """Native code believes the sizes it is told, and would read whatever lies beyond a smaller tensor."""
    channels = passes.shape[1] * passes.conv.groups
    if x.dim() != 4 or x.shape[1] != channels:
        wrong = f"it reads [N, {channels}, H, W]; give an input of {channels} channels"
    elif min(passes.conv.output(tuple(x.shape), passes.shape)[2:]) < 1:
        wrong = f"with padding {passes.conv.padding} no kernel of {passes.shape[2:]} taps lies inside it; give larger images"
    elif any(t.device != value.device for t in (x, bias) if t is not None):
        wrong = f"its weight is on {value.device}; move the model or the input"
    elif bias is not None and (bias.dtype != value.dtype or bias.numel() != passes.shape[0]):
        wrong = f"its bias is {bias.numel()} numbers of {bias.dtype}, its weight has {passes.shape[0]} outputs of {value.dtype}"
    else:
        return
    raise DoesNotFit(f"an input of shape {tuple(x.shape)} on {x.device}", "this layer", [wrong])


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """That in which autocast wants x computed with, where it is on; the meta device has none."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if kind != "meta" and torch.is_autocast_enabled(kind) else None


def finish(y: Tensor, residual: Tensor | None, relu: bool) -> Tensor:
    """The sum and the ReLU outside of a kernel."""
    y = y if residual is None else y + residual
    return y.relu() if relu else y


def _joins(residual: object, x: Tensor, passes: Passes) -> bool:
    """Whether a kernel can add it: a tensor that is not broadcast, not converted, and not differentiated."""
    return (
        isinstance(residual, Tensor)
        and (residual.dtype, residual.device) == (x.dtype, x.device)
        and residual.shape == passes.conv.output(tuple(x.shape), passes.shape)
        and not (residual.requires_grad and torch.is_grad_enabled())
    )
