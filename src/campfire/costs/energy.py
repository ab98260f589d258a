"""Bytes that move for one image, and an energy proxy out of published picojoules."""

import dataclasses
from dataclasses import dataclass

from campfire.errors import UnknownName, UsageError


@dataclass(frozen=True)
class Energy:
    """Picojoules of what a layer does. The defaults are of 45 nm at 0.9 V (Horowitz, ISSCC 2014, "Computing's energy
    problem"); all can be set.

    ``mac``: float32, 3.7 for the product and 0.9 for the sum. ``sram``: 32 bits in or out of an 8 KB memory, half of 10 for
    64 bits; every output reference is a read and a write. ``dram``: a byte, an eighth of 1300 for 64 bits; weights and
    inputs are read, outputs written, once an image.

    >>> Energy.of({"mac": 0.3}).mac  # int8: 0.2 for the product, 0.1 for a sum of 32 bits
    0.3
    """

    mac: float = 4.6
    sram: float = 5.0
    dram: float = 162.5

    @classmethod
    def of(cls, given: dict[str, float]) -> "Energy":
        """The defaults, but for what is given.

        Raises:
            UnknownName: there is no such operation.
            UsageError: not a number of 0 or more.
        """
        known = [f.name for f in dataclasses.fields(cls)]
        for name, value in given.items():
            if name not in known:
                raise UnknownName("energy", name, known)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
                raise UsageError(f"the energy of {name!r} is in picojoules, 0 or more; got {value!r}")
        return cls(**{name: float(value) for name, value in given.items()})

    def spent(self, products: float, references: float, moved: float) -> dict[str, float]:
        """Picojoules of products, output references, and bytes to and from memory."""
        parts = {
            "arithmetic": products * self.mac,
            "references": 2 * references * self.sram,
            "memory": moved * self.dram,
        }
        return {**parts, "total": sum(parts.values())}


def compressed_bytes(values: float, living: float, value_bits: int) -> float:
    """Bytes of activations: as they are, or as a bit each and the non-zero ones, whichever is less."""
    return min(values * value_bits, values + living * value_bits) / 8
