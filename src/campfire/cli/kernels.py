"""``campfire kernels``: the native libraries, compiling them beforehand, and forgetting how fast they were."""

import json
from collections.abc import Sequence
from typing import Any

from campfire.cli.flags import Parser
from campfire.errors import UsageError


def parser() -> Parser:
    """Everything ``campfire kernels`` understands."""
    own = Parser(prog="campfire kernels", description="The native libraries, which are compiled on first use.")
    what = own.add_subparsers(dest="what", required=True, metavar="WHAT")
    what.add_parser("info", help="compiler, instructions, cache folder and the state of every library")
    build = what.add_parser("build", help="compile them all now, as before a job on many machines")
    build.add_argument(
        "--isa", metavar="NAME", help="instructions: amx, avx512, avx2 or portable (default: the best here)"
    )
    what.add_parser("forget", help="drop the timings that kernels were chosen by: the next run measures anew")
    for command in what.choices.values():
        command.add_argument("--json", action="store_true", help="print one JSON object in one line")
    return own


def main(argv: Sequence[str]) -> int:
    """Tell, build or forget; 1 where a library cannot be built."""
    args = parser().parse(argv)
    if args.what == "forget":
        return _forget(args.json)
    from campfire import native

    found = native.info() if args.what == "info" else native.build_all(args.isa)
    print(json.dumps(found) if args.json else _text(found))
    return int(args.what == "build" and any(x["state"] == "failed" for x in found["libraries"].values()))


def _forget(as_json: bool) -> int:
    from campfire.kernels import timings

    try:
        count = timings.drop()
    except OSError as error:
        raise UsageError(f"the timings cannot be removed: {error}; remove the file, or set CAMPFIRE_CACHE") from None
    print(json.dumps({"forgotten": count}) if as_json else f"{count} timings forgotten")
    return 0


def _text(found: dict[str, Any]) -> str:
    lines = [
        f"compiler  {found['compiler'] or 'none'}" + (f"  ({found['version']})" if found["version"] else ""),
        f"flavour   {found['flavour']}  ({found['cpu']})",
        f"flags     {' '.join(found['flags']) or 'none'}",
        f"cache     {found['cache']}",
        f"state     {found['state']}" + (f": {found['reason']}" if found["reason"] else ""),
    ]
    wide = max(map(len, found["libraries"]), default=0)
    for name, x in found["libraries"].items():
        size = f"{x['size'] / 1024:8.0f} KiB  {x['file']}" if x["file"] else x["reason"]
        lines.append(f"  {name:{wide}}  {x['state']:9}  {size}".rstrip())
    return "\n".join(lines)
