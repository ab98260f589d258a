"""Paths as they were typed -> runs that can be compared, and those that cannot, each with its reason."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from campfire.errors import CheckpointError, UsageError
from campfire.report.records.reading import MARKS, names_of, read_run
from campfire.report.records.record import Run
from campfire.sweep import Record, is_sweep, records
from campfire.sweep.index import ENDED


@dataclass(frozen=True)
class LeftOut:
    """A run that is not shown, and why."""

    name: str
    reason: str


def gather(folders: Iterable[str | Path]) -> tuple[tuple[Run, ...], tuple[LeftOut, ...]]:
    """The runs in these folders, each once; what cannot be read is left out, with the reason.

    A folder may be a run, a sweep, or hold runs.

    Raises:
        UsageError: a path does not exist, or none of them is a run.
        CheckpointError: none of them can be read.
    """
    typed = list(dict.fromkeys(Path(folder) for folder in folders))
    _require(typed)
    left_out = [trial for folder in typed if is_sweep(folder) for trial in _not_there(folder)]
    ended = {trial.path.resolve(): trial for folder in typed if is_sweep(folder) for trial in records(folder)}
    paths = list(dict.fromkeys(path.resolve() for folder in typed for path in runs_in(folder)))
    runs, errors = {}, {}
    for path in paths:
        try:
            runs[path] = _as_ended(read_run(path), ended.get(path))
        except (CheckpointError, UsageError) as error:
            errors[path] = error
    if not runs:
        raise next(iter(errors.values()), _nothing(left_out))
    names = dict(zip(paths, names_of(paths), strict=True))
    left_out += [LeftOut(names[path], str(error)) for path, error in errors.items()]
    return tuple(replace(run, name=names[path]) for path, run in runs.items()), tuple(left_out)


def runs_in(folder: Path) -> list[Path]:
    """The trials of a sweep that were started; else the folder itself where it is a run or holds none, else its runs."""
    if is_sweep(folder):
        return [trial.path for trial in records(folder) if _is_run(trial.path)]
    if not folder.is_dir() or _is_run(folder):
        return [folder]
    return sorted(path for path in folder.iterdir() if path.is_dir() and _is_run(path)) or [folder]


def _as_ended(run: Run, trial: Record | None) -> Run:
    """A trial that its sweep has given up says itself only how its last process ended."""
    if run.done or trial is None or trial.state not in ENDED:
        return run
    status = replace(run.status, state=trial.state, reason=trial.reason or run.status.reason)
    return replace(run, status=status)


def _not_there(sweep: Path) -> list[LeftOut]:
    """The trials without a run directory, with their state."""
    missing = [trial for trial in records(sweep) if not _is_run(trial.path)]
    return [LeftOut(x.name, f"trial of {sweep.name}, {x.state}{f': {x.reason}' * bool(x.reason)}") for x in missing]


def _nothing(left_out: Sequence[LeftOut]) -> UsageError:
    told = "; ".join(f"{one.name}: {one.reason}" for one in left_out[:5])
    return UsageError(f"no trial has written anything yet; {told or 'the sweep has none'}")


def _is_run(path: Path) -> bool:
    return all((path / name).is_file() for name in MARKS)


def _require(paths: Sequence[Path]) -> None:
    """Raise `UsageError` where there is nothing, or something that does not exist, with what may have been meant."""
    if not paths:
        raise UsageError("a report needs at least one run directory; got none")
    if unknown := [path for path in paths if not path.exists()]:
        told = [f"{str(path)!r}{_meant(path)}" for path in unknown]
        raise UsageError(f"there is no folder {', and no '.join(told)}; give runs, or sweeps")


def _meant(path: Path) -> str:
    beside = [p.name for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, beside, 1)
    return f" (did you mean {str(path.with_name(near[0]))!r}?)" if near else ""
