"""``campfire recipes``: the published experiments that can be run, with the papers' numbers and ours."""

import dataclasses
import json
from collections.abc import Sequence

from campfire.cli.flags import Parser
from campfire.config.recipes import NOT_RUN, Recipe, Row, recipes
from campfire.errors import UsageError


def parser() -> Parser:
    """Everything ``campfire recipes`` understands."""
    own = Parser(
        prog="campfire recipes",
        description="Published experiments as configuration files: campfire train DATA -c recipes/NAME.yaml FLAGS.",
    )
    own.add_argument("words", nargs="*", metavar="WORD", help="only recipes whose name or title has all of these")
    own.add_argument("--json", action="store_true", help="print one JSON object in one line")
    return own


def main(argv: Sequence[str]) -> int:
    """List as the flags say."""
    args = parser().parse(argv)
    found = [r for r in recipes() if all(w.lower() in f"{r.name} {r.title}".lower() for w in args.words)]
    if not found:
        raise UsageError(f"no recipe has {' and '.join(map(repr, args.words))}; campfire recipes lists them all")
    print(json.dumps({"recipes": list(map(_plain, found))}) if args.json else "\n\n".join(map(_text, found)))
    return 0


def _plain(recipe: Recipe) -> dict[str, object]:
    return {"file": recipe.file, **dataclasses.asdict(recipe)}


def _text(recipe: Recipe) -> str:
    wide = max(len(row.flags) for row in recipe.rows)
    return "\n".join([f"{recipe.file}\n  {recipe.title}", *(f"    {_line(row, wide)}" for row in recipe.rows)])


def _line(row: Row, wide: int) -> str:
    published = ", ".join(f"{name} {value}" for name, value in row.paper.items())
    return f"{row.flags:{wide}}  paper: {published or 'no number'}; ours: {row.ours or NOT_RUN}".lstrip()
