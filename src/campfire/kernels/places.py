"""Places: where packed values lie in the dense weight as the library keeps it, and the copies there and back."""

import ctypes
import math

import torch
from torch import Tensor, nn

from campfire import native

MOST = 2**31  # weights that can be counted


class Places:
    """Of values in a weight [K, C, R, S] that lies in NHWC order, which oneDNN likes best.

    >>> places = Places(torch.tensor([0, 5, 2]), (2, 2, 1, 2))
    >>> dense = places.put(torch.tensor([1.0, 2.0, 3.0]))
    >>> dense.flatten(), places.take(dense)
    (tensor([1., 0., 3., 0., 0., 2., 0., 0.]), tensor([1., 2., 3.]))
    """

    def __init__(self, positions: Tensor, shape: tuple[int, ...]):
        self.shape = shape
        outputs, channels, *taps = shape
        window = math.prod(taps)
        rest, tap = positions // window, positions % window
        place = (rest // channels * window + tap) * channels + rest % channels
        sorted_, order = place.sort()
        countable = outputs * channels * window < MOST and positions.device.type == "cpu" and len(positions)
        code = native.library("unpack") if countable else None
        whole = torch.int64 if code is None else torch.int32
        self.where = sorted_.to(whole)
        self.which = None if bool((order[1:] > order[:-1]).all()) else order.to(whole)
        self._code = None if code is None else _Code(code, self.where, self.which)
        self._strides = (window * channels, 1, taps[1] * channels, channels)
        self._size = math.prod(shape)

    def put(self, value: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """The dense weight, in another dtype if that is asked for."""
        dtype = dtype or value.dtype
        if self._code is not None and _plain(value) and value.is_contiguous():
            value = value if _one_pass(value.dtype, dtype) else value.to(dtype)
            dense = torch.empty_strided(self.shape, self._strides, dtype=dtype)
            self._code.unpack(value, dense, self._size)
            return dense
        value = value.detach().reshape(-1).to(dtype)
        sorted_ = value if self.which is None else value[self.which]
        dense = value.new_zeros(self._size)
        return dense.index_copy_(0, self.where.long(), sorted_).as_strided(self.shape, self._strides)

    def take(self, dense: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """The values [n] out of a dense weight, in another dtype if that is asked for."""
        dtype, dense = dtype or dense.dtype, dense.contiguous(memory_format=torch.channels_last)
        if self._code is not None and _plain(dense):
            dense = dense if _one_pass(dtype, dense.dtype) else dense.to(dtype)
            value = torch.empty(len(self.where), dtype=dtype)
            self._code.pick(dense, value)
            return value
        found = dense.permute(0, 2, 3, 1).reshape(-1).index_select(0, self.where).to(dtype)
        return found if self.which is None else torch.empty_like(found).index_copy_(0, self.which.long(), found)


class _Code:
    """The native copies, for one set of places."""

    def __init__(self, code: ctypes.CDLL, where: Tensor, which: Tensor | None):
        whole, at = ctypes.c_int64, ctypes.c_void_p
        self._unpack, self._pick = code.campfire_unpack, code.campfire_pick
        self._unpack.argtypes, self._pick.argtypes = (
            [whole, at, at, at, whole, at, whole],
            [whole, at, at, at, whole, at],
        )
        self._unpack.restype = self._pick.restype = None
        self._places = where.data_ptr(), None if which is None else which.data_ptr(), len(where)

    def unpack(self, value: Tensor, dense: Tensor, size: int) -> None:
        self._unpack(_kind(value, dense), value.data_ptr(), *self._places, dense.data_ptr(), size)

    def pick(self, dense: Tensor, value: Tensor) -> None:
        self._pick(_kind(value, dense), dense.data_ptr(), *self._places, value.data_ptr())


def _one_pass(values: torch.dtype, dense: torch.dtype) -> bool:
    """Whether native code converts while it copies."""
    return values == dense or (values == torch.float32 and dense == torch.bfloat16)


def _kind(value: Tensor, dense: Tensor) -> int:
    return value.itemsize if value.dtype == dense.dtype else 0


def _plain(x: Tensor) -> bool:
    """Whether native code can read it."""
    return type(x) in (Tensor, nn.Parameter) and x.device.type == "cpu" and x.itemsize in (2, 4, 8)
