"""Reading pickles as data: nothing in them is called, whatever they ask for."""

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from campfire.errors import CampfireError


class _Dtype:
    """Stands for ``numpy.dtype``: remembers which one was asked for."""

    def __init__(self, code: Any = None, *_: Any):
        self.code = code.decode("latin1") if isinstance(code, bytes) else code

    def __setstate__(self, state: Any) -> None:
        """Byte order and the like: a byte has none."""


class _Array:
    """Stands for ``numpy.ndarray``; only bytes become an array."""

    value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _version, shape, dtype, by_columns, raw = state
        if dtype.code != "u1":
            raise pickle.UnpicklingError(f"an array of {dtype.code} instead of bytes")
        self.value = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if by_columns else "C")


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _encode(text: str, codec: str) -> bytes:
    if codec != "latin1":
        raise pickle.UnpicklingError(f"text in {codec}")
    return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("_codecs", "encode"): _encode,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """The stand-in for the few names that an array of bytes needs; not even numpy's own functions are called."""
        try:
            return _STAND_INS[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks to run {module_name}.{global_name}, which data never does") from None


def read_pickle(path: Path) -> dict[str, Any]:
    """The dictionary in a pickle of plain values and uint8 arrays, by Python 2 or 3; keys become str.

    Raises:
        CampfireError: the file is damaged, holds anything else, or asks for code to be run (which is not done).
    """
    try:
        found = _Reader(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        return {_text(key): value.value if isinstance(value, _Array) else value for key, value in found.items()}
    except Exception as error:  # hostile bytes make the unpickler raise almost anything
        raise CampfireError(f"cannot read {path} as data ({error}): fetch the original file again") from error


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def read_names(path: Path, key: str) -> list[str]:
    """The list of names that such a pickle holds under ``key``.

    Raises:
        CampfireError: as `read_pickle`, or there is no such list.
    """
    found = read_pickle(path).get(key)
    if not isinstance(found, list):
        raise CampfireError(f"{path} has no list {key!r}: fetch the original file again")
    return [_text(name) for name in found]
