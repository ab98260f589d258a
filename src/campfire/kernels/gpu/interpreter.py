"""Triton's interpreter, mended: its scalars are arrays of one entry, which NumPy 2.4 no longer takes for whole numbers."""

from typing import Any


def mend() -> None:
    """Let a loop in a kernel run between loaded numbers, as it does on a GPU; only ever for the interpreter."""
    from triton.runtime import interpreter

    patch: Any = getattr(interpreter, "_patch_lang_tensor", None)
    if patch is None or getattr(patch, "mended", False):
        return

    def mended(tensor: Any, *scope: Any) -> None:
        patch(tensor, *scope)
        tensor.__index__ = lambda self: int(self.handle.data.item())

    mended.mended = True  # pyright: ignore[reportFunctionMemberAccess]
    interpreter._patch_lang_tensor = mended  # pyright: ignore
