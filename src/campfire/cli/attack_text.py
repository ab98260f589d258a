"""The table of ``campfire attack``."""

from collections.abc import Iterator
from typing import Any

from campfire.report.records.counted import unusual

CELL = 25


def side_by_side(records: list[dict[str, Any]]) -> str:
    """Networks in columns; each but the first also as its distance to the first."""
    first = records[0]
    digits = max(len(_name(record)) for record in records)
    rows = {_label(result): None for record in records for result in record["results"]}
    wide = max(map(len, ("clean", *rows)))
    lines = [
        f"{first['images']:,} test images of {first['data']} (seed {first['seed']}): top-1 in percent, 95 % interval",
        *(
            f"{mark}  {_name(record):{digits}}  {_what(record)}"
            for mark, record in zip(_marks(), records, strict=False)
        ),
        "",
        f"{'':{wide}}" + "".join(f"{mark:>{CELL}}" for mark, _ in zip(_marks(), records, strict=False)),
        _line("clean", wide, [record["clean"] for record in records]),
    ]
    by_label = [{_label(result): result for result in record["results"]} for record in records]
    return "\n".join([*lines, *(_line(label, wide, [found.get(label) for found in by_label]) for label in rows)])


def _marks() -> Iterator[str]:
    return (f"({number})" for number in range(1, 1000))


def _name(record: dict[str, Any]) -> str:
    return record["run"]


def _what(record: dict[str, Any]) -> str:
    zeros = f", {record['sparsity_true']:.4f} zeros" if record["structure"] != "dense" else ""
    return f"{record['model']}, {record['structure']}{zeros}{', compressed' * record['compressed']}"


def _label(result: dict[str, Any]) -> str:
    eps = result["eps"]
    level = eps * 255 if result["space"] == "pixel" and result["norm"] == "linf" else 0
    text = f"{round(level)}/255" if level >= 1 and abs(level - round(level)) < 1e-6 else f"{eps:.4g}"
    pgd = _effort(result) if result["attack"] == "pgd" else ""
    return f"{result['attack']}{pgd} {result['norm']} {text}{' normalised' * (result['space'] == 'normalised')}"


def _effort(result: dict[str, Any]) -> str:
    """Steps and restarts; how it steps and starts, where that is not the usual way."""
    text = f" {result['steps']}x{result['restarts']}"
    text += f" of {result['step_size']:.3g}" * unusual(result["eps"], result["steps"], result["step_size"])
    return text + f" from {result['start']}" * (result["start"] != "random")


def _line(label: str, wide: int, results: list[dict[str, Any] | None]) -> str:
    return f"{label:{wide}}" + "".join(_cell(result, results[0] if i else None) for i, result in enumerate(results))


def _cell(result: dict[str, Any] | None, first: dict[str, Any] | None) -> str:
    if result is None:
        return f"{'-':>{CELL}}"
    gap = "" if first is None else f" {result['top1'] - first['top1']:+.2f}"
    interval = f"{result['low']:.1f}-{result['high']:.1f}"
    return f"{result['top1']:6.2f}{gap} {interval:>9}".rjust(CELL)
