"""The operator campfire::turn: a tensor in another memory format, whose gradient is turned back."""

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from campfire.kernels.formats import FORMATS, empty, is_format, to_format

_library = torch.library.Library("campfire", "FRAGMENT")
_library.define("turn(Tensor x, str format) -> Tensor")


def _turn(x: Tensor, format: str) -> Tensor:
    y = to_format(x, format)
    return y.clone() if y is x else y  # an operator returns memory of its own


_library.impl("turn", _turn, "CompositeExplicitAutograd")


@torch.library.register_fake("campfire::turn")
def _(x: Tensor, format: str) -> Tensor:
    return empty(x.shape, x, format)


class _Turn(Function):
    @staticmethod
    def forward(ctx, x: Tensor, format: str) -> Tensor:  # pyright: ignore
        ctx.was = FORMATS[is_format(x, "chwn")]
        return torch.ops.campfire.turn(x, format)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor):  # pyright: ignore
        return dy if is_format(dy, ctx.was) else torch.ops.campfire.turn(dy, ctx.was), None


def turn(x: Tensor, format: str) -> Tensor:
    """x [N, C, H, W] in a format, x itself where it has it; its gradient comes back in the format that x had.

    >>> x = torch.zeros(2, 3, 4, 4, requires_grad=True)
    >>> y = turn(x, "chwn")
    >>> is_format(y, "chwn"), turn(y, "chwn") is y
    (True, True)
    """
    if is_format(x, format):
        return x
    if torch.is_grad_enabled() and x.requires_grad:
        return _Turn.apply(x, format)  # pyright: ignore[reportReturnType]
    return torch.ops.campfire.turn(x, format)
