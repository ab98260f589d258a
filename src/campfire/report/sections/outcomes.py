"""What pruning cost in accuracy: settings with the spread of their seeds, and gaps to dense beside the paper's."""

from collections.abc import Iterable, Sequence

from campfire.report.formats import NONE, fixed, percent
from campfire.report.records.compare import Report
from campfire.report.records.settings import Series, Setting, Spread, series_of
from campfire.report.sections.gaps import gaps as gap_figure
from campfire.report.sections.paper import NOTE, ROWS, Quoted
from campfire.report.sections.section import Section, Table, figure
from campfire.report.sections.tradeoff import tradeoff

HEAD = ("setting", "runs", "zeros asked, %", "true, %", "top-1, %", "vs dense", "best epoch")
SEEDS = (
    "Settings are runs that differ in their seed alone: mean \N{PLUS-MINUS SIGN} standard deviation over them. True zeros are "
    "over all convolutions, vs dense is in points, the best epoch that of the best top-1 with the final sparsity."
)
DROP = "; behind a stroke the same before the last drop of the learning rate"
LINES = "Dotted are the paper's of ImageNet after epoch 100, a line for each start of the era"


def outcomes(report: Report, draw: bool) -> list[Section]:
    """Accuracy against sparsity, and gaps beside the paper's; none where nothing was pruned to the end."""
    series = series_of(report.runs, report.rows)
    pruned = [one for one in series if not one.dense]
    if not pruned:
        return []
    caption = (
        "Each point is a setting at its true sparsity over all convolutions, a bar behind it reaches from its lowest to its "
        "highest seed; the dashed line is dense"
    )
    drawn = figure("tradeoff", tradeoff(series) if draw else None, caption)
    several = len(report.runs) > 1
    table, words = ((_settings(series),), SEEDS) if several else ((), "")
    return [Section("tradeoff", "Accuracy against sparsity", words, drawn, table), *_deltas(pruned, draw)]


def _settings(series: Sequence[Series]) -> Table:
    rows = [_setting(one, setting) for one in series for setting in one.settings]
    return Table("Settings", HEAD, rows)


def _setting(series: Series, setting: Setting) -> tuple[str, ...]:
    epoch = setting.converged
    return (
        series.name,
        str(len(setting.runs)),
        percent(setting.requested),
        _told(setting.zeros, 100),
        _told(setting.top1),
        _told(setting.gap, sign="+"),
        NONE if epoch is None else epoch.told(0 if epoch.mean.is_integer() else 1),
    )


def _told(spread: Spread | None, factor: float = 1, sign: str = "") -> str:
    return NONE if spread is None else Spread(tuple(factor * value for value in spread.values)).told(2, sign)


def _deltas(pruned: Sequence[Series], draw: bool) -> Iterable[Section]:
    """The table of gaps, where there is any gap."""
    own = [(one, {_level(setting): setting.gap for setting in one.settings if setting.gap}) for one in pruned]
    own = [(one, gaps) for one, gaps in own if gaps]
    if not own:
        return
    structures = dict.fromkeys(structure(one) for one, _ in own)
    quoted = [row for row in ROWS if row.structure in structures]
    lines = [(one.name, structure(one), gaps) for one, gaps in own]
    drawn = figure(
        "gaps", gap_figure(lines, quoted) if draw else None, LINES if quoted else "By the sparsity asked for"
    )
    levels = _levels([level for _, gaps in own for level in gaps], quoted)
    quoted = [row for row in quoted if any(level in row.top1 for level in levels)]
    rows, marked = [], set()
    for name in structures:
        rows += [_own(one, levels) for one, _ in own if structure(one) == name]
        theirs = [_theirs(row, levels) for row in quoted if row.structure == name]
        marked |= set(range(len(rows), len(rows) + len(theirs)))
        rows += theirs
    head = ("setting", *(f"{level:g} %" for level in levels))
    caption = (
        "Points of top-1 to dense, by the sparsity asked for; mean \N{PLUS-MINUS SIGN} standard deviation over seeds"
    )
    if any(setting.gap_at_drop for one, _ in own for setting in one.settings):
        caption += DROP
    title = "Gap to dense, beside the paper's" if quoted else "Gap to dense"
    yield Section("deltas", title, NOTE if quoted else "", drawn, (Table(caption, head, rows, frozenset(marked)),))


def _levels(own: Sequence[float], quoted: Sequence[Quoted]) -> list[float]:
    """The sparsities of these runs, and all of the paper's where they have none in common."""
    theirs = {float(level) for row in quoted for level in row.top1}
    return sorted(set(own) if theirs & set(own) else theirs | set(own))


def structure(series: Series) -> str:
    """The structure that its runs have."""
    return series.settings[0].rows[0].structure or ""


def _level(setting: Setting) -> float:
    """The sparsity asked for, in percent."""
    return float(f"{100 * (setting.requested or 0):.4g}")


def _own(series: Series, levels: Sequence[float]) -> tuple[str, ...]:
    known = {_level(setting): setting for setting in series.settings}
    return (series.name, *(_gap(known.get(level)) for level in levels))


def _gap(setting: Setting | None) -> str:
    """In the form of the paper's: after the last epoch / before the last drop, where there is one."""
    if setting is None or setting.gap is None:
        return NONE
    return " / ".join(gap.told(2, "+") for gap in (setting.gap, setting.gap_at_drop) if gap)


def _theirs(row: Quoted, levels: Sequence[float]) -> tuple[str, ...]:
    cells = (" / ".join(fixed(gap, 2, "+") for gap in row.gaps(int(level))) for level in levels)
    return (f"paper: {row.label}", *(cell or NONE for cell in cells))
