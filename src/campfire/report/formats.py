"""How values read: one place, so that every renderer says the same."""

import re
from collections.abc import Sequence

NONE = "\N{EN DASH}"
PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")  # escape sequences, text direction


def plain(value: object) -> str:
    """``value`` on one line without control characters; a dash for nothing.

    >>> plain("ck\\x1b[31m"), plain(None)
    ('ck�[31m', '–')
    """
    return NONE if value in (None, "") else CONTROL.sub("�", str(value))


def fixed(value: float | None, digits: int = 2, sign: str = "") -> str:
    """A number with so many digits, thousands set apart, and a true minus.

    >>> fixed(-0.4049, sign="+"), fixed(12345.6, 0), fixed(None)
    ('−0.40', '12,346', '–')
    """
    return NONE if value is None else f"{value:{sign}z,.{digits}f}".replace("-", "\N{MINUS SIGN}")


def percent(fraction: float | None) -> str:
    """A fraction in percent.

    >>> percent(0.69987)
    '69.99'
    """
    return fixed(None if fraction is None else 100 * fraction)


def share(part: float | None, whole: float | None) -> str:
    """A part of a whole in percent.

    >>> share(81_270, 270_896), share(1, None)
    ('30.00', '–')
    """
    return percent(part / whole if part is not None and whole else None)


def human(count: float | None, unit: str = "") -> str:
    """A count in three digits; nothing for None.

    >>> human(41_234_567, "B"), human(512, "B"), human(9_999)
    ('41.2 MB', '512 B', '10.0 k')
    """
    if count is None:
        return ""
    factor, prefix = next(((f, p) for f, p in PREFIXES if count >= 0.9995 * f), (1, ""))
    digits = max(3 - len(f"{count / factor:.0f}"), 0) if prefix else 0
    return f"{count / factor:.{digits}f} {prefix}{unit}".strip()


def thin(points: Sequence, limit: int) -> list:
    """At most ``limit`` of the points, evenly spread, the first and the last among them.

    >>> thin(range(10), 4)
    [0, 3, 6, 9]
    """
    if len(points) <= limit:
        return list(points)
    return [points[round(i * (len(points) - 1) / (limit - 1))] for i in range(limit)]
