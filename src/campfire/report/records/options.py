"""The options of a run as they decide its result: those that its file does not name stand at their defaults."""

from functools import cache

from campfire.config import Config
from campfire.config.schema import FREE
from campfire.report.records.reading import flat
from campfire.report.records.record import Run

SEED = "run.seed"
ELSEWHERE = {"data.source"}  # one data set may lie in several places


@cache
def _defaults() -> dict[str, str]:
    """What an option is that a run does not name: it may be younger than the run."""
    return dict(flat(Config().model_dump()))


def deciding(run: Run) -> dict[str, str]:
    """Option -> value, without those that change no result, and without the place of the data."""
    options = {**_defaults(), **run.config}
    return {key: value for key, value in options.items() if key not in FREE | ELSEWHERE}


def differences(run: Run, other: Run) -> list[str]:
    """The options outside pruning in which two runs differ, but for those that do not change a result."""
    own, others = deciding(run), deciding(other)
    keys = [key for key in {**own, **others} if not key.startswith("pruning.")]
    return [key for key in keys if own.get(key) != others.get(key)]
