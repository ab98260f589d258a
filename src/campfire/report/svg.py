"""matplotlib's SVG with colours that are CSS variables: the page decides on light or dark, and the bytes never vary.

matplotlib draws in placeholder colours that `_themed` turns into ``var(--name, colour)``; text stays text.
"""

import io
import re
import warnings
from collections.abc import Callable
from typing import Any

from campfire.report.extra import need


def placeholder(series: int) -> str:
    """What matplotlib draws a run's colour as."""
    return f"#0505{series:02x}"


SERIES = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#8a6d00", "#4b5bc4")  # apart for every colour vision, on white
SERIES_DARK = ("#56b4e9", "#ff9e57", "#3ecfa0", "#e08ac2", "#e6c84c", "#9aa7ff")
INK, MUTED, GRID, PAPER = "#010101", "#020202", "#030303", "#040404"  # placeholders
THEME = {INK: ("ink", "#1f2328"), MUTED: ("muted", "#656d76"), GRID: ("line", "#d8dee4"), PAPER: ("paper", "#ffffff")}
THEME |= {placeholder(i): (f"series-{i}", colour) for i, colour in enumerate(SERIES)}
STYLE = {
    "svg.hashsalt": "campfire",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.color": GRID,
    "ytick.labelcolor": MUTED,
    "ytick.major.size": 0,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 9.5,
}


def draw_svg(draw: Callable[..., None], inches: tuple[float, float], *args: Any) -> str:
    """What ``draw(axes, *args)`` draws, in matplotlib's own defaults plus `STYLE`, whatever the user's; outside pyplot.

    Raises:
        CampfireError: matplotlib is missing.
    """
    matplotlib = need("matplotlib")
    figures, out = need("matplotlib.figure"), io.StringIO()
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the browser has the fonts that matplotlib lacks
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        figure = figures.Figure(figsize=inches, layout="constrained")
        draw(figure.add_subplot(), *args)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(out, format="svg", metadata=nothing, transparent=True)
    return _themed(out.getvalue())


def _themed(svg: str) -> str:
    svg = svg[svg.index("<svg") :].rstrip()
    return re.sub("|".join(THEME), lambda found: "var(--{}, {})".format(*THEME[found[0]]), svg)


def standalone(svg: str) -> str:
    """The SVG as a file of its own that follows the reader's light or dark mode."""
    dark = {"ink": "#e6edf3", "muted": "#8d96a0", "line": "#30363d", "paper": "#0d1117"}
    dark |= {f"series-{i}": colour for i, colour in enumerate(SERIES_DARK)}
    css = "".join(f"--{name}:{colour};" for name, colour in dark.items())
    style = f"<style>text{{font-family:system-ui,sans-serif!important}}@media(prefers-color-scheme:dark){{svg{{{css}}}}}</style>"
    return svg.replace(">", f">{style}", 1) + "\n"
