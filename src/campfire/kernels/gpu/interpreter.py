"""Triton's interpreter, mended: loops between loaded numbers (NumPy 2.4 takes no array for a whole number), and bfloat16.

It keeps bfloat16 in 16-bit integers, multiplies those as they stand in a product of matrices, and cuts digits off where a
GPU rounds.
"""

from typing import Any

import torch


def mend() -> None:
    """Let kernels run as on a GPU; only ever for the interpreter."""
    from triton.runtime import interpreter

    patch: Any = getattr(interpreter, "_patch_lang_tensor", None)
    if patch is None or getattr(patch, "mended", False):
        return

    def mended(tensor: Any, *scope: Any) -> None:
        patch(tensor, *scope)
        tensor.__index__ = lambda self: int(self.handle.data.item())

    mended.mended = True  # pyright: ignore[reportFunctionMemberAccess]
    interpreter._patch_lang_tensor = mended  # pyright: ignore
    _mend_bfloat16(interpreter)


def _mend_bfloat16(interpreter: Any) -> None:
    from triton.language import bfloat16, float32

    builder, handle = interpreter.InterpreterBuilder, interpreter.TensorHandle
    dot, cast = builder.create_dot, builder.cast_impl

    def wide(x: Any) -> Any:
        return cast(None, x, float32) if x.dtype.scalar == bfloat16 else x

    def create_dot(self: Any, a: Any, b: Any, *more: Any) -> Any:
        return dot(self, wide(a), wide(b), *more)

    def cast_impl(self: Any, x: Any, dtype: Any) -> Any:
        if x.dtype.scalar != float32 or dtype.scalar != bfloat16:
            return cast(self, x, dtype)
        rounded = torch.from_numpy(x.data.copy()).to(torch.bfloat16).view(torch.uint16)
        return handle(rounded.numpy(), bfloat16)

    builder.create_dot, builder.cast_impl = create_dot, cast_impl
