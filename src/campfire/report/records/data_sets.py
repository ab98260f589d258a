"""Which runs are of the same images: accuracies on others are no comparison."""

import os
from collections.abc import Sequence
from pathlib import Path

from campfire.report.records.record import Run


def data_of(runs: Sequence[Run]) -> list[str]:
    """The name of each run's data set, and where there are several of that name what tells them apart."""
    names = _names(runs)
    kinds: dict[str, set[str]] = {}
    for name, run in zip(names, runs, strict=True):
        kinds.setdefault(name, set()).update(filter(None, [_kind(run)]))
    return [
        f"{name} ({_kind(run)})" if len(kinds[name]) > 1 and _kind(run) else name
        for name, run in zip(names, runs, strict=True)
    ]


def _names(runs: Sequence[Run]) -> list[str]:
    """As the reader of the images says; a run that was never finished may know only where they are read from."""
    finished = {_source(run): run.summary.data for run in runs if run.done}
    named = [
        run.summary.data if run.done else run.environment.get("images.name") or finished.get(_source(run))
        for run in runs
    ]
    told = [name or Path(run.summary.data or "").name.partition(":")[0] for name, run in zip(named, runs, strict=True)]
    return [name or next(filter(None, told), "") for name in told]


def _source(run: Run) -> str:
    return os.path.normpath(run.config.get("data.source", ""))


def _kind(run: Run) -> str | None:
    """What is spelled out for images that are made up, and a digest of classes and labels for all others."""
    source = run.config.get("data.source", "")
    return source if source.startswith("synthetic:") else run.environment.get("images.labels")
