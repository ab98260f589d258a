"""The trials of a sweep with their results, for a terminal."""

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from campfire.config import flag_of
from campfire.sweep.record import Record

SEED = "run.seed"


def rows(records: Sequence[Record], each: bool = False) -> list[dict[str, Any]]:
    """One row a trial, or one for all seeds of what is otherwise equal: mean and spread of top-1, in percent.

    ``top1_spread`` is the standard deviation of a sample; None for fewer than two.
    """
    together: dict[str, list[Record]] = {}
    for record in records:
        told = record.values if each else {k: v for k, v in record.values.items() if k != SEED}
        together.setdefault(json.dumps([record.group, told], sort_keys=True), []).append(record)
    return [_row(members, each or len(members) == 1) for members in together.values()]


def _row(members: Sequence[Record], alone: bool) -> dict[str, Any]:
    found = [result(record) for record in members if record.done]
    top1 = [one["top1"] for one in found if one.get("top1") is not None]
    zeros = [one["sparsity_true"] for one in found if one.get("sparsity_true") is not None]
    values = {k: v for k, v in members[0].values.items() if alone or k != SEED}
    return {
        "group": members[0].group,
        "values": values,
        "names": [record.name for record in members],
        "states": {state: n for state in _states(members) if (n := sum(r.state == state for r in members))},
        "top1": statistics.fmean(top1) if top1 else None,
        "top1_spread": statistics.stdev(top1) if len(top1) > 1 else None,
        "sparsity_true": statistics.fmean(zeros) if zeros else None,
        "seconds": sum(one.get("seconds") or 0 for one in found),
    }


def _states(members: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(record.state for record in members))


def result(record: Record) -> Mapping[str, Any]:
    """The numbers of a trial that is done: ``summary.json``; {} where there are none."""
    try:
        found = json.loads((record.path / "summary.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def progress(record: Record) -> str:
    """How far a trial has come: ``epoch 3``."""
    try:
        return f"epoch {json.loads((record.path / 'status.json').read_text())['epoch']}"
    except (OSError, ValueError, LookupError, TypeError):
        return "not begun"


def cells(found: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The rows as text, under their headings."""
    paths = list(dict.fromkeys(path for row in found for path in row["values"]))
    spread = any(row["top1_spread"] is not None for row in found)
    names = [*map(flag_of, paths), "top-1 %", *["+-"] * spread, "zeros", "trials"]
    lines = [names]
    for row in found:
        values = ["" if (v := row["values"].get(path)) is None else str(v) for path in paths]
        spreads = [_number(row["top1_spread"], ".2f")] * spread
        zeros = _number(row["sparsity_true"], ".4f")
        states = ", ".join(f"{n} {state}" for state, n in row["states"].items())
        lines.append([*values, _number(row["top1"], ".2f"), *spreads, zeros, states])
    return lines


def _number(value: float | None, how: str) -> str:
    return "" if value is None else format(value, how)


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Columns side by side."""
    wide = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(f"{c:{w}}" for c, w in zip(line, wide, strict=True)).rstrip() for line in lines)
