"""What every format shows after the comparison: sections of words, tables and figures, made once."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby


@dataclass(frozen=True)
class Table:
    """Cells as text under a head; the first column names the rows.

    ``quoted`` rows are not from these runs; ``folded`` where a figure shows the same.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    quoted: frozenset[int] = frozenset()
    folded: bool = False


@dataclass(frozen=True)
class Figure:
    """An SVG, with a name for files and links, and the words under it."""

    name: str
    svg: str
    caption: str
    group: str = ""  # figures of one heading stand together


@dataclass(frozen=True)
class Section:
    """A part of a report; ``key`` is what links to it."""

    key: str
    title: str
    lede: str = ""
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()

    @property
    def groups(self) -> list[tuple[str, list[Figure]]]:
        """The figures under their headings."""
        return [(name, list(found)) for name, found in groupby(self.figures, key=lambda figure: figure.group)]

    @property
    def empty(self) -> bool:
        return not self.figures and not self.tables


def figure(name: str, svg: str | None, caption: str) -> tuple[Figure, ...]:
    """The figure if there is one."""
    return (Figure(name, svg, caption),) if svg else ()
