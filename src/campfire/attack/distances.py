"""Distances as users write them, and whether they make sense in the units of the images."""

import math
from collections.abc import Sequence

from campfire.errors import UsageError

SPACES = ("pixel", "normalised")
LEVELS = 255  # of a byte


def read_eps(text: str) -> float:
    """``8/255`` or ``0.03`` as a number.

    >>> read_eps("8/255") == 8 / 255
    True

    Raises:
        UsageError: it is no number from 0 up.
    """
    upper, slash, lower = text.partition("/")
    try:
        value = float(upper) / (float(lower) if slash else 1.0)
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if not 0 <= value < math.inf:
        raise UsageError(f"eps is a distance from 0 up, such as 0.03 or 8/255; got {text!r}")
    return value


def check_eps(eps: float, norm: str, space: str, ranges: Sequence[float], shape: Sequence[int]) -> str | None:
    """A remark on an ``eps`` that is allowed and odd.

    Args:
        ranges: how far apart the largest and the smallest value of each channel are.
        shape: of an image, [C, H, W].

    Raises:
        UsageError: no two images are as far apart; most often it counts in 255 levels.

    >>> check_eps(8 / 255, "linf", "pixel", [1.0], [1, 28, 28])
    """
    pixels = shape[1] * shape[2]
    furthest = max(ranges) if norm == "linf" else math.sqrt(pixels * sum(r * r for r in ranges))
    if eps > furthest:
        scale = f"; in levels of a byte it is written {eps:g}/{LEVELS}" if eps > 1 else ""
        raise UsageError(
            f"eps {eps:g} is more than any two images differ by in {norm} ({furthest:.3g}): {_units(space, ranges)}{scale}"
        )
    if eps == 0:
        return None
    if norm == "linf":
        grey = eps >= min(ranges) / 2
        return f"eps {eps:g} turns any image into a grey one: no network withstands it" if grey else None
    levels = LEVELS * eps / (math.sqrt(pixels * len(ranges)) * max(ranges))
    odd = not 0.25 <= levels <= 25
    return f"L2 eps {eps:g} is {levels:.2g} of 255 levels a value (root mean square): is that meant?" if odd else None


def _units(space: str, ranges: Sequence[float]) -> str:
    if space == "pixel":
        return "in pixel space values lie in [0, 1]"
    return f"normalised, values span {', '.join(f'{r:.3g}' for r in ranges)}"
