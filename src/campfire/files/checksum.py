"""One number for a dense state dict, whatever it is stored in."""

import hashlib
from collections.abc import Iterable

import numpy as np

from campfire.files.container import Bits


def checksum(tensors: Iterable[tuple[str, str, tuple[int, ...], Bits]]) -> str:
    """SHA-256 over (name, dtype, shape, bits) of every tensor, by rising name; as 64 hexadecimal digits.

    Of each: the name, a zero byte, the dtype, a zero byte, the sizes as decimal numbers with an x between, a zero byte, and
    the numbers row-major in little endian.

    >>> checksum([])[:8]
    'e3b0c442'
    """
    digest = hashlib.sha256()
    for name, dtype, shape, bits in sorted(tensors, key=lambda entry: entry[0]):
        digest.update(f"{name}\0{dtype}\0{'x'.join(map(str, shape))}\0".encode())
        digest.update(bits.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
