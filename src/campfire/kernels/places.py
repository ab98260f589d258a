"""Places: where packed values lie in the dense weight as the library keeps it, and the copies there and back."""

import ctypes
import math

import torch
from torch import Tensor

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
        countable = outputs * channels * window < MOST and native.library("unpack") is not None
        whole = torch.int32 if countable and positions.device.type == "cpu" else torch.int64
        self.where = sorted_.to(whole)
        self.which = None if bool((order[1:] > order[:-1]).all()) else order.to(whole)

    def put(self, value: Tensor) -> Tensor:
        """The dense weight."""
        value, (_, c, rows, columns) = value.detach().reshape(-1), self.shape
        strides = (rows * columns * c, 1, columns * c, c)
        if (code := self._native(value)) is not None:
            dense = value.new_empty_strided(self.shape, strides)
            code.campfire_unpack(*self._arguments(value), _at(dense), ctypes.c_int64(dense.numel()))
            return dense
        dense = value.new_zeros(math.prod(self.shape))
        sorted_ = value if self.which is None else value[self.which]
        return dense.index_copy_(0, self.where.long(), sorted_).as_strided(self.shape, strides)

    def take(self, dense: Tensor) -> Tensor:
        """The values [n] out of a dense weight."""
        flat = dense.permute(0, 2, 3, 1).reshape(-1)
        if (code := self._native(flat)) is not None:
            value = flat.new_empty(self.where.shape)
            code.campfire_pick(*self._arguments(flat), _at(value))
            return value
        found = flat.index_select(0, self.where)
        return found if self.which is None else torch.empty_like(found).index_copy_(0, self.which.long(), found)

    def _native(self, x: Tensor) -> ctypes.CDLL | None:
        plain = x.device.type == "cpu" and self.where.dtype == torch.int32 and x.is_contiguous()
        if not plain or type(x) is not Tensor or x.dtype.itemsize not in (2, 4, 8) or not self.where.numel():
            return None
        return native.library("unpack")

    def _arguments(self, source: Tensor) -> tuple[object, ...]:
        size = ctypes.c_int32(source.dtype.itemsize)
        which = None if self.which is None else _at(self.which)
        return size, _at(source), _at(self.where), which, ctypes.c_int64(self.where.numel())


def _at(x: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(x.data_ptr())
