"""Drawings as SVG text: coordinates in pixels, colours by name, which the page turns light or dark; no library needed.

A colour is a CSS variable with a fallback, ``var(--ink, #1f2328)``. The bytes depend on what is drawn alone.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Self

from campfire.report.formats import plain

SERIES = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#8a6d00", "#4b5bc4")  # apart for every colour vision, on white
SERIES_DARK = ("#56b4e9", "#ff9e57", "#3ecfa0", "#e08ac2", "#e6c84c", "#9aa7ff")
LIGHT = {"ink": "#1f2328", "muted": "#59636e", "line": "#d8dee4", "paper": "#ffffff"}
DARK = {"ink": "#e6edf3", "muted": "#9198a1", "line": "#30363d", "paper": "#0d1117"}
LIGHT |= {f"series-{i}": colour for i, colour in enumerate(SERIES)}
DARK |= {f"series-{i}": colour for i, colour in enumerate(SERIES_DARK)}
SIZE = 12.5  # of text
WIDE = 0.56  # of a letter, in sizes, on average


def colour(name: str) -> str:
    """A colour of the page, with what it is where no page says.

    >>> colour("ink")
    'var(--ink, #1f2328)'
    """
    return f"var(--{name}, {LIGHT[name]})"


def width_of(text: str, size: float = SIZE) -> float:
    """About how wide a text is."""
    return len(text) * WIDE * size


def short(name: str, length: int) -> str:
    """A name whose middle is left out where it is longer.

    >>> short("layer1.0.downsample.0", 12)
    'layer1…ple.0'
    """
    name = plain(name)
    return name if len(name) <= length else f"{name[: length // 2]}…{name[-((length - 1) // 2) :]}"


def number(value: float) -> str:
    """A coordinate in as few letters as a tenth of a pixel takes.

    >>> number(12.04), number(3.25), number(-0.001)
    ('12', '3.2', '0')
    """
    return f"{value + 0.0:.1f}".removesuffix(".0").replace("-0.0", "0") if abs(value) >= 0.05 else "0"


class Drawing:
    """An SVG under construction; ``label`` is what it shows, for those who cannot see it."""

    def __init__(self, width: float, height: float, label: str):
        self.width, self.height, self.label = width, height, label
        self._parts: list[str] = []

    def line(self, points: Iterable[tuple[float, float]], ink: str, width: float = 1.8, **more: object) -> Self:
        """Straight lines between the points."""
        at = " ".join(f"{number(x)},{number(y)}" for x, y in points)
        look = {"fill": "none", "stroke": colour(ink), "stroke-width": width, "stroke-linejoin": "round"}
        return self._add("polyline", {"points": at, **look, **more})

    def rectangle(self, box: tuple[float, float, float, float], ink: str, tip: str = "", **more: object) -> Self:
        """A filled box: left, top, width and height."""
        names = ("x", "y", "width", "height")
        return self._add("rect", {**dict(zip(names, map(number, box), strict=True)), "fill": colour(ink), **more}, tip)

    def dot(self, at: tuple[float, float], ink: str, radius: float = 3, tip: str = "", ring: bool = False) -> Self:
        """A disc, or a ring; ``tip`` shows where a pointer rests on it."""
        look = {"fill": colour("paper" if ring else ink), "stroke": colour(ink if ring else "paper")}
        place = {"cx": number(at[0]), "cy": number(at[1]), "r": number(radius)}
        return self._add("circle", {**place, **look, "stroke-width": 1.5 if ring else 1}, tip)

    def path(self, d: str, ink: str, **more: object) -> Self:
        """A filled path."""
        return self._add("path", {"d": d, "fill": colour(ink), **more})

    def text(
        self, at: tuple[float, float], text: str, ink: str = "muted", anchor: str = "start", size: float = SIZE
    ) -> Self:
        """A line of text whose start, middle or end is at a point of its baseline."""
        place = {"x": number(at[0]), "y": number(at[1]), "fill": colour(ink), "font-size": number(size)}
        place |= {} if anchor == "start" else {"text-anchor": anchor}
        self._parts.append(f"<text{_attributes(place)}>{escape(plain(text))}</text>")
        return self

    def legend(self, items: Sequence[tuple[str, str, str]], top: float, left: float = 0) -> float:
        """Label, colour and dash of each line, in as many rows as they need; where the last row ends."""
        x, y = left, top
        for label, ink, dash in items:
            wide = 26 + width_of(label) + 12
            if x > left and x + wide > self.width:
                x, y = left, y + 18
            self.line([(x, y - 4), (x + 19, y - 4)], ink, 2.4, **_dashed(dash)).text((x + 25, y), label, "ink")
            x += wide
        return y + 14

    def done(self) -> str:
        """The SVG."""
        size = {"viewBox": f"0 0 {number(self.width)} {number(self.height)}"}
        about = {"role": "img", "aria-label": plain(self.label)}
        face = {"font-family": "system-ui, sans-serif"}
        head = _attributes({"xmlns": "http://www.w3.org/2000/svg", **size, **about, **face})
        return f"<svg{head}>{''.join(self._parts)}</svg>"

    def _add(self, tag: str, attributes: dict[str, object], tip: str = "") -> Self:
        title = f"<title>{escape(plain(tip))}</title>" if tip else ""
        self._parts.append(f"<{tag}{_attributes(attributes)}>{title}</{tag}>")
        return self


def standalone(svg: str) -> str:
    """The SVG as a file of its own that follows the reader's light or dark mode."""
    css = "".join(f"--{name}:{value};" for name, value in DARK.items())
    return svg.replace(">", f"><style>@media(prefers-color-scheme:dark){{svg{{{css}}}}}</style>", 1) + "\n"


def _attributes(values: Mapping[str, object]) -> str:
    return "".join(f' {name.replace("_", "-")}="{escape(str(value))}"' for name, value in values.items())


def _dashed(dash: str) -> dict[str, object]:
    return {"stroke_dasharray": dash} if dash else {}
