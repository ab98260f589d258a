"""Which runs are repetitions of each other, and what tells others of one structure and method apart."""

from collections.abc import Mapping, Sequence

from campfire.report.formats import plain
from campfire.report.records.columns import how
from campfire.report.records.compare import Row
from campfire.report.records.options import SEED, deciding
from campfire.report.records.record import Run

SPARSITY = "pruning.sparsity"
FIRST = ("pruning.era_start", "pruning.era_length", "optim.epochs", "optim.lr")  # told before others
FOLLOW = {"optim.warmup_epochs", "optim.decay_epochs"}  # from the number of epochs, where nobody set them
TOLD = 3  # options in a name, where these tell it from all others
Key = tuple[tuple[str, str], ...]


def setting_key(run: Run) -> Key:
    """All that decides a result but the seed."""
    return _key(run, {SEED})


def series_key(run: Run) -> Key:
    """All that decides a result but the seed and the sparsity."""
    return _key(run, {SEED, SPARSITY})


def names_of(firsts: Mapping[Key, tuple[Run, Row]]) -> dict[Key, str]:
    """Structure and method of each group of runs, and what else tells it from others of the same."""
    plainly = {key: how(row) for key, (_, row) in firsts.items()}
    alike = {key: [dict(other) for other, name in plainly.items() if name == plainly[key]] for key in firsts}
    return {key: plainly[key] + _besides(dict(key), alike[key]) for key in firsts}


def _key(run: Run, leave_out: set[str]) -> Key:
    kept = (item for item in deciding(run).items() if item[0] not in leave_out)
    return tuple(sorted(item for item in kept if not (run.dense and item[0].startswith("pruning."))))


def _besides(own: dict[str, str], alike: Sequence[dict[str, str]]) -> str:
    differ = {key for other in alike for key in (*own, *other) if own.get(key) != other.get(key)}
    differ -= FOLLOW if "optim.epochs" in differ else set()
    keys = sorted(differ, key=lambda key: (FIRST.index(key) if key in FIRST else len(FIRST), key))
    told = keys[:TOLD]
    for other in alike:
        apart = [key for key in keys if own.get(key) != other.get(key)]
        told += [] if not apart or set(apart) & set(told) else apart[:1]
    said = [f"{key.rpartition('.')[2]} {_rounded(own.get(key, 'default'))}" for key in told]
    return "".join(f", {plain(words)}" for words in said) + (", …" if len(told) < len(keys) else "")


def _rounded(value: str) -> str:
    """A number in four digits.

    >>> _rounded("1.3333333333"), _rounded("8.0"), _rounded("erk")
    ('1.333', '8', 'erk')
    """
    try:
        return f"{float(value):.4g}"
    except ValueError:
        return value
