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
    threads = torch.get_num_threads()
    refused = found.keep_best(score.data_ptr(), _at(living), score.numel(), count, 0, keep.data_ptr(), threads)
    return None if refused else keep


def keep_largest(weight: "Tensor", alive: "Tensor | None", count: int, grain: int) -> "Tensor | None":
    """A mask of the ``count`` largest living weights of [K, C, R, S], by magnitude; of its kernels, by their largest weight, if
    ``grain`` is R S. The weight is read where it lies."""
    if not servable(weight) or _tracked(weight) or (found := _serving(weight)) is None:
        return None
    import torch

    (k, c, r, s), threads = weight.shape, torch.get_num_threads()
    if grain == 1 and (turned := magnitudes(weight)) is not None:
        weight = turned
    values, living, keep = weight, _contiguous(alive), torch.empty(weight.shape, dtype=torch.bool)
    if grain > 1:
        values = torch.empty(k * c)
        last = not weight.is_contiguous()
        found.kernel_bests(weight.data_ptr(), k, c, r * s, last, values.data_ptr(), threads)
        living = None if living is None else living.view(k * c, grain)[:, 0].contiguous()
    chosen = keep if grain == 1 else torch.empty(k * c, dtype=torch.bool)
    n, count = values.numel(), count // grain
    if found.keep_best(values.data_ptr(), _at(living), n, count, 1, chosen.data_ptr(), threads):
        return None
    if grain > 1:
        found.spread(chosen.data_ptr(), k * c, grain, keep.data_ptr(), threads)
    return keep


def servable(weight: "Tensor") -> bool:
    """Whether a weight [K, C, R, S] can be read where it lies."""
    import torch

    return weight.dim() == 4 and (weight.is_contiguous() or weight.is_contiguous(memory_format=torch.channels_last))


def channels_last(keep: "Tensor") -> "Tensor":
    """A contiguous mask [K, C, R, S] in that memory format; by torch where native code cannot."""
    import torch

    if keep.device.type != "cpu" or torch.compiler.is_compiling() or (found := _library()) is None:
        return keep.contiguous(memory_format=torch.channels_last)
    out = torch.empty(keep.shape, dtype=torch.bool, memory_format=torch.channels_last)
    k, c, r, s = keep.shape
    found.turn(keep.contiguous().data_ptr(), k, c, r * s, out.data_ptr(), torch.get_num_threads())
    return out


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


def magnitudes(weight: "Tensor") -> "Tensor | None":
    """|w| of a weight [K, C, R, S] that lies as [K, R, S, C], in row-major order: one pass in place of two."""
    import torch

    last = weight.dim() == 4 and not weight.is_contiguous()
    if not last or not weight.is_contiguous(memory_format=torch.channels_last) or _tracked(weight):
        return None
    if (found := _serving(weight)) is None:
        return None
    k, c, r, s = weight.shape
    out = torch.empty(weight.shape)
    found.magnitudes(weight.data_ptr(), k, c, r * s, out.data_ptr(), torch.get_num_threads())
    return out


def row_bests(score: "Tensor", alive: "Tensor") -> "tuple[Tensor, Tensor] | None":
    """Of every row of [n, t] the best living score, 0 where none lives, and how many live, int64."""
    if (found := _serving(score)) is None:
        return None
    import torch

    score, alive, n = score.contiguous(), alive.contiguous(), len(score)
    best, held = torch.empty(n), torch.empty(n, dtype=torch.int64)
    found.row_bests(
        score.data_ptr(), alive.data_ptr(), *score.shape, best.data_ptr(), held.data_ptr(), torch.get_num_threads()
    )
    return best, held


def thin_rows(score: "Tensor", alive: "Tensor", stays: "Tensor", level: int) -> "tuple[Tensor, Tensor, Tensor] | None":
    """The ``level`` best living entries of the rows of [n, t] that stay, as bool [n, t]; and of every row the score of the one
    that ranks next, float32 [n], and its place, uint8 [n]. Level < t."""
    if score.shape[1] > LONGEST or (found := _serving(score)) is None:
        return None
    import torch

    score, alive, stays, n = score.contiguous(), alive.contiguous(), stays.contiguous(), len(score)
    keep, following = torch.empty(score.shape, dtype=torch.bool), torch.empty(n)
    place = torch.empty(n, dtype=torch.uint8)
    given, made = (x.data_ptr() for x in (score, alive, stays)), (x.data_ptr() for x in (keep, following, place))
    found.thin_rows(*given, *score.shape, level, *made, torch.get_num_threads())
    return keep, following, place


def add_places(keep: "Tensor", place: "Tensor", more: "Tensor") -> bool:
    """Let live one entry, that at ``place``, uint8 [n], in every row of a bool [n, t] with ``more``; whether that was done."""
    if place.device.type != "cpu" or place.dtype.itemsize > 1 or (found := _library()) is None:
        return False
    found.add_places(place.data_ptr(), more.data_ptr(), *keep.shape, keep.data_ptr())
    return True


def product(x: "Tensor", mask: "Tensor") -> "Tensor | None":
    """``x`` times a bool mask of its shape; None also where they do not lie in one order."""
    import torch

    orders = (torch.contiguous_format, torch.channels_last) if x.dim() == 4 else (torch.contiguous_format,)
    alike = any(x.is_contiguous(memory_format=o) and mask.is_contiguous(memory_format=o) for o in orders)
    if not alike or x.shape != mask.shape or _tracked(x) or (found := _serving(x)) is None:
        return None
    out = torch.empty_like(x)
    found.product(x.data_ptr(), mask.data_ptr(), x.numel(), out.data_ptr(), torch.get_num_threads())
    return out


def multiplication(
    work: Sequence[tuple["Tensor", Sequence["Tensor"]]], was: "Sequence[Tensor | None] | None" = None
) -> Callable[[], None] | None:
    """A function that multiplies tensors in place by masks, all in one pass; it reads each mask once.

    Args:
        work: bool masks and the float32 tensors that belong to them, all on the CPU, dense, and in the same memory order.
            The function reads and writes their memory as it is now; it holds them, so that it stays theirs.
        was: the masks, in the same order, that the tensors were multiplied by before; nothing is done where they are the same.
    """
    if (found := _library()) is None:
        return None
    masks = [keep for keep, _ in work]
    tensors = [x.detach() for _, xs in work for x in xs]
    before = [None] * len(masks) if was is None else list(was)
    arguments = (
        len(masks),
        (ctypes.c_int64 * len(masks))(*(x.numel() for x in masks)),
        (ctypes.c_void_p * len(masks))(*map(_at, masks)),
        (ctypes.c_void_p * len(masks))(*map(_at, before)),
        (ctypes.c_int64 * (len(masks) + 1))(0, *itertools.accumulate(len(xs) for _, xs in work)),
        (ctypes.c_void_p * len(tensors))(*(x.data_ptr() for x in tensors)),
    )
    return functools.partial(_multiply, found, arguments, [*masks, *before], tensors)


def _multiply(found: ctypes.CDLL, arguments: tuple, read: list["Tensor | None"], written: list["Tensor"]) -> None:
    """``read`` and ``written`` own the memory that the arguments point to."""
    import torch

    found.multiply(*arguments, torch.get_num_threads())
    torch.autograd.graph.increment_version(written)


def _tracked(x: "Tensor") -> bool:
    """Whether autograd wants to know what is done with it."""
    import torch

    return x.requires_grad and torch.is_grad_enabled()


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
    found.keep_best.argtypes = (pointer, pointer, long, long, number, pointer, number)
    found.kernel_bests.argtypes = (pointer, long, long, long, number, pointer, number)
    found.spread.argtypes = (pointer, long, long, pointer, number)
    found.turn.argtypes = (pointer, long, long, long, pointer, number)
    found.add_places.argtypes = (pointer, pointer, long, number, pointer)
    found.keep_best_rows.argtypes = (pointer, pointer, long, number, number, pointer, number)
    found.ranks.argtypes = (pointer, long, number, pointer, number)
    found.magnitudes.argtypes = (pointer, long, long, long, pointer, number)
    found.row_bests.argtypes = (pointer, pointer, long, number, pointer, pointer, number)
    found.thin_rows.argtypes = (pointer, pointer, pointer, long, number, number, pointer, pointer, pointer, number)
    found.product.argtypes = (pointer, pointer, long, pointer, number)
    found.multiply.argtypes = (long, pointer, pointer, pointer, pointer, pointer, number)
    return found


def _contiguous(alive: "Tensor | None") -> "Tensor | None":
    return None if alive is None else alive.contiguous()


def _at(tensor: "Tensor | None") -> int | None:
    return None if tensor is None else tensor.data_ptr()
