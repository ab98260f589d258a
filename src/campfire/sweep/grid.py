"""A grid: a YAML file that says which trials there are."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from campfire.config import FLAGS, Layer, from_file, from_tree, load, prunes
from campfire.errors import UnknownName, UsageError
from campfire.sweep.give_up import GiveUp
from campfire.sweep.sharing import Start
from campfire.sweep.trial import Trial

PART = ("base", "product", "zip", "list", "seeds", "from")  # what a grid, or a group of it, may say
WHOLE = (*PART, "groups", "command", "give_up")
Point = dict[str, Any]  # options by dotted path


@dataclass(frozen=True)
class Grid:
    """The trials, parents before their children; ``command`` starts one, in place of ``campfire train``."""

    trials: tuple[Trial, ...]
    command: tuple[str, ...] | None = None
    give_up: GiveUp | None = None


@dataclass(frozen=True)
class _Place:
    """Where something stands in the file, for messages."""

    path: str

    def __truediv__(self, key: str) -> "_Place":
        return _Place(f"{self.path}: {key}")

    def refuse(self, what: str) -> UsageError:
        return UsageError(f"{self.path}: {what}")


def read_grid(path: str | Path) -> Grid:
    """The grid in a file.

    Raises:
        UsageError: it cannot be read, an option is unknown or out of range, an axis is empty, two trials are the same, or
            a trial that another one starts from is not there.
    """
    place, folder = _Place(str(path)), Path(path).parent
    tree = _tree(path)
    _check_keys(tree, WHOLE, place)
    trials: list[Trial] = []
    for name, body in _groups(tree, place).items():
        here = place / name if name else place
        trials += _group(name, body, here, folder, trials)
    _check_twice(trials, place)
    give_up = GiveUp.read(tree.get("give_up"), place.path)
    longest = max(trial.config.optim.epochs for trial in trials)
    if give_up is not None and give_up.epoch >= longest:
        raise place.refuse(f"give_up looks after epoch {give_up.epoch}, and trials end after {longest}; look earlier")
    return Grid(tuple(trials), _command(tree.get("command"), place), give_up)


def _tree(path: str | Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the grid {path}: {getattr(error, 'strerror', None) or error}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    return _mapping(tree, _Place(str(path)), f"the keys {', '.join(WHOLE)}")


def _mapping(value: Any, place: _Place, of: str = "options and their values") -> dict[str, Any]:
    if not isinstance(value, Mapping) or not value:
        raise place.refuse(f"must hold {of}; got {value!r:.60}")
    return {str(k): v for k, v in value.items()}


def _check_keys(tree: Mapping[str, Any], known: Sequence[str], place: _Place) -> None:
    for key in tree:
        if key not in known:
            raise place.refuse(str(UnknownName("part of a grid", key, known)))


def _groups(tree: dict[str, Any], place: _Place) -> dict[str, dict[str, Any]]:
    """The groups by name; what stands outside of them holds for all."""
    shared = {key: tree[key] for key in PART if key in tree}
    if "groups" not in tree:
        return {"": shared}
    if axes := [key for key in ("product", "zip", "list", "from") if key in tree]:
        raise place.refuse(f"{axes[0]} stands beside groups; move it into one of them")
    groups = {}
    for name, body in _mapping(tree["groups"], place / "groups", "groups by name").items():
        body = {} if body is None else _mapping(body, place / name, f"the keys {', '.join(PART)}")
        _check_keys(body, PART, place / name)
        groups[name] = {**shared, **body, "base": [shared.get("base"), body.get("base")]}
    return groups


def _group(name: str, body: dict[str, Any], place: _Place, folder: Path, earlier: Sequence[Trial]) -> list[Trial]:
    bases = body.get("base")
    bases = bases if isinstance(bases, list) else [bases]
    layers = [_base(base, place / "base", folder) for base in bases if base is not None]
    start = None if body.get("from") is None else Start.read(body["from"], (place / "from").path)
    own = _options(layers[-1].values) if isinstance(body.get("base"), list) and bases[-1] is not None else frozenset()
    trials = []
    for point in _points(body, place):
        config, _ = load(*layers, Layer(place.path, point))
        trial = Trial(name, config, own | _options(point))
        trials.append(trial if start is None else start.of(trial, earlier))
    return trials


def _options(values: Mapping[str, Any]) -> frozenset[str]:
    """``pruning.rules.layer1`` is an entry of the option ``pruning.rules``."""
    return frozenset(".".join(path.split(".")[:2]) for path in values)


def _base(base: Any, place: _Place, folder: Path) -> Layer:
    if isinstance(base, str):
        return from_file(folder / base)
    return from_tree(base, place.path)


def _points(body: Mapping[str, Any], place: _Place) -> list[Point]:
    """Every combination of the axes: of those of the product, the zipped ones, the list, and the seeds."""
    axes = [*_product(body.get("product"), place / "product"), _zip(body.get("zip"), place / "zip")]
    axes += [_list(body.get("list"), place / "list"), _seeds(body.get("seeds"), place / "seeds")]
    keys = [key for axis in axes for key in dict.fromkeys(k for point in axis for k in point)]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise place.refuse(f"{twice[0]} is set by two axes; which one counts?")
    return [{k: v for point in points for k, v in point.items()} for points in itertools.product(*axes)]


def _product(given: Any, place: _Place) -> list[list[Point]]:
    axes = {} if given is None else _mapping(given, place)
    return [[{_path(key): value} for value in _values(values, place / key)] for key, values in axes.items()]


def _zip(given: Any, place: _Place) -> list[Point]:
    if given is None:
        return [{}]
    axes = {_path(key): _values(values, place / key) for key, values in _mapping(given, place).items()}
    if len({len(values) for values in axes.values()}) > 1:
        lengths = ", ".join(f"{len(values)} of {key}" for key, values in axes.items())
        raise place.refuse(f"goes through its lists side by side, so they must be of one length; got {lengths}")
    return [dict(zip(axes, values, strict=True)) for values in zip(*axes.values(), strict=True)]


def _list(given: Any, place: _Place) -> list[Point]:
    if given is None:
        return [{}]
    return [
        {_path(key): value for key, value in _mapping(point, place).items()} for point in _values(given, place)
    ]  # fmt: skip


def _seeds(given: Any, place: _Place) -> list[Point]:
    return [{}] if given is None else [{"run.seed": seed} for seed in _values(given, place)]


def _values(given: Any, place: _Place) -> list[Any]:
    if not isinstance(given, list) or not given:
        raise place.refuse(f"needs a list of one value or more; got {given!r:.60}")
    return given


def _path(key: str) -> str:
    """``sparsity`` and ``era-start``, as flags are called, as dotted paths; what is unknown is refused later."""
    return FLAGS.get(key.replace("-", "_"), key)


def _command(given: Any, place: _Place) -> tuple[str, ...] | None:
    if given is None:
        return None
    words = given.split() if isinstance(given, str) else given
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        raise (place / "command").refuse(f"must be the words of a command; got {given!r:.60}")
    return tuple(words)


def _check_twice(trials: Sequence[Trial], place: _Place) -> None:
    seen: dict[str, int] = {}
    for number, trial in enumerate(trials, 1):
        if (first := seen.setdefault(trial.key, number)) != number:
            dense = (
                ""
                if prunes(trial.config.pruning)
                else ": a dense run has no further pruning; give it a group of its own"
            )
            raise place.refuse(f"trials {first} and {number} of {len(trials)} are the same{dense}")
