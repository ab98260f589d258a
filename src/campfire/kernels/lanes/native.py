"""Calls of the native code for tensors in the format chwn."""

import ctypes
from typing import Any

from torch import Tensor

from campfire import native


def available(library: str = "lanes_layers") -> bool:
    """Whether there is such a library; compiled code takes it for a constant."""
    return native.library(library) is not None


# What `torch.compiler.assume_constant_result` does, but for importing the compiler: seconds of every program's start.
vars(available)["_dynamo_marked_constant"] = True


def call(library: str, name: str, *arguments: Any) -> Any:
    """What ``campfire_lanes_NAME`` returns; tensors are handed over as pointers, whole numbers as int32."""
    code = native.library(library)
    assert code is not None, "callers ask `available` first"
    return getattr(code, f"campfire_lanes_{name}")(*map(_as_c, arguments))


def _as_c(argument: Any) -> Any:
    if isinstance(argument, Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    return ctypes.c_int32(argument) if isinstance(argument, int) else argument
