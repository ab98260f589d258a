"""Flags out of the configuration's schema, so that an option is declared once.

Only flags that were given come back, as raw values: the schema checks them together with file and ``--set``, says where
each value came from, and reports every mistake the same way.
"""

import argparse
import difflib
import types
import typing
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NoReturn

import yaml

from campfire.config import OPTIONS, SECTIONS, aliases_of, flag_of
from campfire.errors import UsageError


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors, no abbreviations, underscores read as dashes, and the nearest flag suggested."""

    def __init__(self, **kwargs: Any):
        super().__init__(allow_abbrev=False, formatter_class=_Help, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """The flags given.

        Raises:
            UsageError: an unknown flag, or one without its value.
        """
        found, unknown = self.parse_known_args([_dashed(token) for token in argv])
        if not unknown:
            return found
        known = [s for s in self._option_string_actions if s.startswith("--")]
        near = difflib.get_close_matches(unknown[0].partition("=")[0], known, n=1)
        raise UsageError(
            f"no option is called {unknown[0]!r}; "
            + (f"did you mean {near[0]!r}?" if near else f"{self.prog} --help lists them")
        )


def zeros(text: str) -> float:
    """A fraction of zeros, as a flag's ``type``."""
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if 0 <= found < 1:
        return found
    raise argparse.ArgumentTypeError(f"a fraction of zeros is 0 or more and below 1, such as 0.7; got {text}")


class _Help(argparse.HelpFormatter):
    """One column for flags, one for help."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=34)


def add_options(parser: argparse.ArgumentParser, sections: Iterable[str] = SECTIONS) -> None:
    """A flag for every option of these sections; in the namespace, those given stand under their dotted paths."""
    for section in sections:
        group = parser.add_argument_group(SECTIONS[section].__doc__)
        for path in OPTIONS:
            if path.startswith(f"{section}."):
                _add(group, path)


def _add(group: Any, path: str) -> None:
    field = OPTIONS[path]
    kind, help = _kind(field.annotation), (field.description or "").replace("%", "%%")
    keywords: dict[str, Any] = {"dest": path, "default": argparse.SUPPRESS}
    if kind is bool:
        keywords["action"] = argparse.BooleanOptionalAction
        help += f" (default: {'on' if field.default else 'off'})"
    elif field.default not in (None, {}):
        help += f" (default: {field.default})"
    if kind is dict:
        keywords |= {"action": KeyValues, "nargs": "+", "metavar": "KEY=VALUE"}
    elif kind is tuple:
        keywords |= {"nargs": "+", "metavar": "X" if float in _choices(field.annotation) else "EPOCH:SPARSITY"}
    elif kind is Literal:
        keywords["metavar"] = "|".join(_choices(field.annotation))
    elif kind is not bool:
        keywords["metavar"] = {int: "N", float: "X"}.get(kind, "NAME")
    group.add_argument(f"--{flag_of(path)}", *aliases_of(path), help=help, **keywords)


def _bare(annotation: Any) -> Any:
    """The type without ``None`` and without what annotates it."""
    while typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated):
        annotation = next(a for a in typing.get_args(annotation) if a is not type(None))
    return annotation


def _kind(annotation: Any) -> Any:
    return typing.get_origin(_bare(annotation)) or _bare(annotation)


def _choices(annotation: Any) -> tuple[str, ...]:
    return typing.get_args(_bare(annotation))


class KeyValues(argparse.Action):
    """``width=2 depth=3`` as a mapping; values are read as YAML."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        pairs = {**getattr(namespace, self.dest, {})}
        for text in values:
            key, equals, value = text.partition("=")
            if not equals:
                raise UsageError(f"{option_string} wants KEY=VALUE; got {text!r}")
            try:
                pairs[key] = yaml.safe_load(value)
            except yaml.YAMLError:
                raise UsageError(f"{option_string} {key}: {value!r} is not YAML") from None
        setattr(namespace, self.dest, pairs)


def _dashed(token: str) -> str:
    """``--batch_size=8`` as ``--batch-size=8``."""
    if not token.startswith("--"):
        return token
    flag, equals, value = token.partition("=")
    return flag.replace("_", "-") + equals + value
