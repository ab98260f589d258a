"""The weights beside the C file: arrays one behind the other, each on a cache line, and a digest of them all."""

import torch
from torch import Tensor

LINE = 64  # bytes
_TYPES = {torch.float32: "float", torch.int32: "uint32_t", torch.int16: "uint16_t"}


class Blob:
    """Little-endian arrays of float32, uint32 and uint16.

    >>> blob = Blob()
    >>> blob.add(torch.zeros(3)), blob.add(torch.zeros(2, dtype=torch.int16)), len(blob.bytes)
    ('AT(float, 0)', 'AT(uint16_t, 64)', 128)
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self.size = 0

    def add(self, array: Tensor) -> str:
        """The C expression for an array's beginning."""
        data = array.detach().contiguous().cpu().numpy()
        raw = data.astype(data.dtype.newbyteorder("<")).tobytes()
        at, self.size = self.size, self.size + -(-len(raw) // LINE) * LINE
        self._parts.append(raw.ljust(self.size - at, b"\0"))
        return f"AT({_TYPES[array.dtype]}, {at})"

    @property
    def bytes(self) -> bytes:
        """All of it."""
        return b"".join(self._parts)


def digest(data: bytes) -> int:
    """FNV-1a over words of four bytes: what the C file compares before it trusts its weights.

    >>> hex(digest(bytes(4)))
    '0x50c5d1f'
    """
    value = 2166136261
    for i in range(0, len(data), 4):
        value = ((value ^ int.from_bytes(data[i : i + 4], "little")) * 16777619) & 0xFFFFFFFF
    return value
