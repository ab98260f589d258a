"""Masks by native code, equal bit for bit to those torch makes; None where it cannot serve and torch must.

It serves dense float32 tensors on the CPU.
"""

import ctypes
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from campfire.native.loading import library

if TYPE_CHECKING:
    from torch import Tensor

LONGEST = 64  # entries of a row that can be ranked
MOST = 2**31  # entries of a tensor that can be counted


def keep_best(score: "Tensor", count: int, alive: "Tensor | None") -> "Tensor | None":
    """The ``count`` best living entries of [n], of equal ones the last, as bool [n]; None also where the scores hold NaN or
    fewer live."""
    if (found := _serving(score)) is None:
        return None
    import torch

    score, living = score.contiguous(), _contiguous(alive)
    keep = torch.empty(score.shape, dtype=torch.bool)
    refused = found.keep_best(
        score.data_ptr(), _at(living), score.numel(), count, keep.data_ptr(), torch.get_num_threads()
    )
    return None if refused else keep


def keep_best_rows(score: "Tensor", count: int, alive: "Tensor | None") -> "Tensor | None":
    """The ``count`` best living entries of every row of [n, t], of equal ones the last, as bool [n, t]."""
    if score.shape[1] > LONGEST or (found := _serving(score)) is None:
        return None
    import torch

    score, living = score.contiguous(), _contiguous(alive)
    keep = torch.empty(score.shape, dtype=torch.bool)
    count = max(0, min(count, LONGEST))
    found.keep_best_rows(score.data_ptr(), _at(living), *score.shape, count, keep.data_ptr(), torch.get_num_threads())
    return keep


def ranks(score: "Tensor") -> "Tensor | None":
    """The rank of every entry in its row of [n, t], 0 for the best, as uint8 [t, n]."""
    if score.shape[1] > LONGEST or (found := _serving(score)) is None:
        return None
    import torch

    score = score.contiguous()
    rank = torch.empty(score.shape, dtype=torch.uint8)
    found.ranks(score.data_ptr(), *score.shape, rank.data_ptr(), torch.get_num_threads())
    return rank.t()


def multiplication(work: Sequence[tuple["Tensor", Sequence["Tensor"]]]) -> Callable[[], None] | None:
    """A function that multiplies tensors in place by masks, all in one pass; it reads each mask once.

    Args:
        work: bool masks and the float32 tensors that belong to them, all on the CPU, dense, and in the same memory order.
            The function reads and writes their memory as it is now; it holds them, so that it stays theirs.
    """
    if (found := _library()) is None:
        return None
    masks = [keep for keep, _ in work]
    tensors = [x.detach() for _, xs in work for x in xs]
    arguments = (
        len(masks),
        (ctypes.c_int64 * len(masks))(*(x.numel() for x in masks)),
        (ctypes.c_void_p * len(masks))(*(x.data_ptr() for x in masks)),
        (ctypes.c_int64 * (len(masks) + 1))(0, *itertools.accumulate(len(xs) for _, xs in work)),
        (ctypes.c_void_p * len(tensors))(*(x.data_ptr() for x in tensors)),
    )
    return functools.partial(_multiply, found, arguments, masks, tensors)


def _multiply(found: ctypes.CDLL, arguments: tuple, read: list["Tensor"], written: list["Tensor"]) -> None:
    """``read`` and ``written`` own the memory that the arguments point to."""
    import torch

    found.multiply(*arguments, torch.get_num_threads())
    torch.autograd.graph.increment_version(written)


def _serving(score: "Tensor") -> ctypes.CDLL | None:
    """The library, if it can serve a tensor like this."""
    import torch

    plain = type(score) in (torch.Tensor, torch.nn.Parameter) and score.device.type == "cpu"
    if not plain or score.dtype != torch.float32 or not 0 < score.numel() < MOST or torch.compiler.is_compiling():
        return None
    return _library()


def _library() -> ctypes.CDLL | None:
    return None if (found := library("masks")) is None else _declared(found)


@functools.cache
def _declared(found: ctypes.CDLL) -> ctypes.CDLL:
    pointer, long, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    found.keep_best.argtypes = (pointer, pointer, long, long, pointer, number)
    found.keep_best_rows.argtypes = (pointer, pointer, long, number, number, pointer, number)
    found.ranks.argtypes = (pointer, long, number, pointer, number)
    found.multiply.argtypes = (long, pointer, pointer, pointer, pointer, number)
    return found


def _contiguous(alive: "Tensor | None") -> "Tensor | None":
    return None if alive is None else alive.contiguous()


def _at(tensor: "Tensor | None") -> int | None:
    return None if tensor is None else tensor.data_ptr()
