"""Numbers in as few bits as they need, the highest bit first, as numpy packs them."""

import numpy as np
from numpy.typing import NDArray

from campfire.errors import CheckpointError

Bytes = NDArray[np.uint8]
LOWEST = 30  # most low bits of a gap


def width_of(count: int) -> int:
    """Bits that tell ``count`` things apart.

    >>> [width_of(n) for n in (1, 2, 3, 36, 256)]
    [0, 1, 2, 6, 8]
    """
    return (count - 1).bit_length()


def pack_numbers(numbers: NDArray[np.integer], width: int) -> Bytes:
    """Numbers below 2^width, ``width`` bits each.

    >>> pack_numbers(np.array([5, 2, 7]), 3).tolist()  # 101 010 111
    [171, 128]
    """
    places = np.arange(width - 1, -1, -1, dtype=np.int64)
    return np.packbits((numbers[:, None] >> places & 1).astype(np.uint8))


def unpack_numbers(data: Bytes, width: int, count: int, what: str) -> NDArray[np.integer]:
    """What `pack_numbers` packed.

    Raises:
        CheckpointError: the bytes are not as many as ``count`` numbers take, or the bits left over are not zero.
    """
    if len(data) != -(-count * width // 8):
        raise CheckpointError(f"{what} has {len(data)} bytes; {count} numbers of {width} bits take another size")
    if len(data) and int(data[-1]) & (1 << len(data) * 8 - count * width) - 1:
        raise CheckpointError(f"the bits left over in {what} are not zero")
    if width == 8:
        return data
    dtype = np.uint8 if width < 8 else np.uint16 if width <= 16 else np.uint32
    numbers, bits = np.zeros(count, dtype), np.unpackbits(data, count=count * width).reshape(count, width)
    for place in range(width):
        numbers = numbers << dtype(1) | bits[:, place]
    return numbers


def pack_places(places: NDArray[np.integer], low: int) -> tuple[Bytes, Bytes]:
    """Rising places as the gaps between them (Rice's code): gap >> low zeros and a one for each, and the low bits apart.

    With ``low`` 0 the first is the bit mask itself, without the zero bytes at its end.

    >>> high, rest = pack_places(np.array([0, 3, 9]), 1)  # gaps 0 2 5: 1 01 001, and 0 0 1
    >>> f"{high[0]:08b} {rest[0]:08b}"
    '10100100 00100000'
    """
    gaps = np.diff(places, prepend=-1) - 1
    ends = np.cumsum((gaps >> low) + 1) - 1
    bits = np.zeros(int(ends[-1]) + 1 if len(ends) else 0, np.uint8)
    bits[ends] = 1
    return np.packbits(bits), pack_numbers(gaps & (1 << low) - 1, low)


def size_of_places(gaps: NDArray[np.integer], low: int) -> int:
    """Bytes that `pack_places` makes of these gaps."""
    return -(-(int((gaps >> low).sum()) + len(gaps)) // 8) + -(-len(gaps) * low // 8)


def best_low(places: NDArray[np.integer], count: int) -> tuple[int, int]:
    """How many low bits take the fewest bytes for ``places`` among ``count``, and the bytes.

    >>> best_low(np.arange(0, 8000, 10), 8000)
    (2, 500)
    """
    if not len(places):
        return 0, 0
    gaps = np.diff(places, prepend=-1) - 1
    near = width_of(count // len(places))
    lows = {0, *range(max(near - 2, 0), near + 2)}
    return min(((low, size_of_places(gaps, low)) for low in sorted(lows)), key=lambda x: x[1])


def unpack_places(high: Bytes, rest: Bytes | None, low: int, count: int, most: int) -> NDArray[np.bool_]:
    """Which of ``count`` places `pack_places` was given, bool [count].

    Args:
        most: no more places than this are there, so that little memory goes to a file that lies.

    Raises:
        CheckpointError: they are more, lie outside, or the low bits are not theirs.
    """
    if len(high) > -(-(count + most) // 8):
        raise CheckpointError(f"its index has {len(high)} bytes, too many for {count} units")
    bits = np.unpackbits(high)
    found = int(np.count_nonzero(bits))
    if found > most:
        raise CheckpointError(f"its index has {found} units, and there are values for {most} at most")
    if low == 0:
        if bits[count:].any():
            raise CheckpointError(f"its index points outside its {count} units")
        return np.concatenate([bits[:count], np.zeros(max(count - len(bits), 0), np.uint8)]).view(bool)
    alive = np.zeros(count, bool)
    ends = np.flatnonzero(bits)
    gaps = np.diff(ends, prepend=-1) - 1
    gaps <<= low  # they sum to less than 2^32 before, and low is 30 at most
    gaps += unpack_numbers(np.empty(0, np.uint8) if rest is None else rest, low, found, "low")
    places = np.cumsum(gaps + 1) - 1
    if found and int(places[-1]) >= count:
        raise CheckpointError(f"its index points outside its {count} units")
    alive[places] = True
    return alive
