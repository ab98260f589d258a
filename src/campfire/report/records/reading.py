"""Run directory -> `Run`. Tolerates what a killed run leaves behind, and nothing else."""

import json
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from campfire.errors import CheckpointError, UsageError
from campfire.report.records.counted import Attacks, Costs, Kernels
from campfire.report.records.record import Epoch, Layer, Run, Status, Summary, Total

T = TypeVar("T")
ASKED = {  # of a run without summary.json: the field and its place in config.yaml
    "model": "model.name",
    "data": "data.source",
    "structure": "pruning.structure",
    "method": "pruning.method",
    "seed": "run.seed",
    "epochs": "optim.epochs",
    "sparsity_requested": "pruning.sparsity",
}
MARKS = ("config.yaml", "status.json")  # what `campfire train` writes before anything else


def read_run(folder: str | Path) -> Run:
    """One run directory, finished or not.

    Raises:
        UsageError: it is none.
        CheckpointError: a record in it is damaged.
    """
    path = Path(folder)
    check_is_run(path)
    status = _as(Status, _json(path / "status.json"), path / "status.json")
    config = dict(flat(_yaml(path / "config.yaml")))
    done = status.state == "done"  # until then, files of an earlier end may lie there
    sparsity = _json(path / "sparsity.json") if done else {}
    return Run(
        path=path,
        name=path.resolve().name,
        status=status,
        summary=_summary(path, config, done),
        epochs=_epochs(path / "metrics.jsonl"),
        layers=_as(tuple[Layer, ...], sparsity.get("layers") or (), path / "sparsity.json"),
        config=config,
        environment=dict(flat(_json(path / "env.json"))),
        model_bytes=_size(path / "model.safetensors") if done else None,
        costs=_perhaps(Costs, path / "costs.json") if done else None,
        kernels=_perhaps(Kernels, path / "kernels.json") if done else None,
        attacks=_perhaps(Attacks, path / "attack.json") if done else None,
        **{scope: _as(Total, sparsity.get(scope) or {}, path / "sparsity.json") for scope in Run.SCOPES},
    )


def check_is_run(path: Path) -> None:
    """Raise UsageError, with what is missing, unless ``path`` is a run directory."""
    if not path.is_dir():
        raise UsageError(f"no run directory at {str(path)!r}: {'not a folder' if path.exists() else 'no such folder'}")
    if missing := [name for name in MARKS if not (path / name).is_file()]:
        told = " and no ".join(missing)
        raise UsageError(f"{str(path)!r} is not a run directory: it has no {told}; give one that campfire train wrote")


def names_of(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart."""

    def name(path: Path) -> str:
        others = [p for p in paths if p != path]
        tails = ("/".join(path.parts[-n:]) for n in range(1, len(path.parts) + 1))
        return next((t for t in tails if not any(str(o).endswith("/" + t) for o in others)), str(path))

    return [name(path) for path in paths]


def _number(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None  # a diverged loss is a gap, never a number


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text, parse_float=_number, parse_constant=_number)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where} is not JSON ({error}); the run's folder is damaged") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{where} must hold a JSON object; got {type(value).__name__}")
    return value


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def _perhaps(kind: type[T], path: Path) -> T | None:
    """What a file holds that not every run has."""
    return _as(kind, _json(path), path) if path.exists() else None


def _json(path: Path) -> dict[str, Any]:
    return _parse(_text(path), str(path)) if path.exists() else {}


def _as(kind: type[T], value: Any, path: Path) -> T:
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"]))
        raise CheckpointError(f"{path}: {at}: {first['msg']}; got {first['input']!r:.80}") from error


def _epochs(path: Path) -> tuple[Epoch, ...]:
    lines = _text(path).splitlines() if path.exists() else []
    records: dict[float, Epoch] = {}
    for number, line in enumerate(lines, 1):
        try:
            record = _parse(line, f"{path}, line {number},")
        except CheckpointError:
            if number == len(lines):
                break  # the run was killed while writing it
            raise
        if "epoch" in record:
            epoch = _as(Epoch, record, path)
            records[epoch.epoch] = epoch  # a resumed run repeats the epoch it was killed in
    return tuple(records[key] for key in sorted(records))


def _summary(path: Path, config: Mapping[str, str], done: bool) -> Summary:
    if done and (path / "summary.json").exists():
        return _as(Summary, _json(path / "summary.json"), path / "summary.json")
    asked = {name: config[key] for name, key in ASKED.items() if key in config}
    return _as(Summary, asked, path / "config.yaml")


def _yaml(path: Path) -> dict[str, Any]:
    try:
        value = yaml.safe_load(_text(path)) or {}
    except (yaml.YAMLError, RecursionError) as error:
        raise CheckpointError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must hold sections of options; got {type(value).__name__}")
    return value


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Dotted path and text of every value that is there."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        elif value not in (None, "", []):
            join = shlex.join if key == "argv" else ", ".join
            yield f"{prefix}{key}", join(map(str, value)) if isinstance(value, list) else str(value)


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None
