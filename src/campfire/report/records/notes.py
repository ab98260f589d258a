"""What a reader must know to read the numbers right: said only where it is true of these runs."""

import re
from collections.abc import Iterator, Mapping, Sequence

from campfire.report.formats import human
from campfire.report.records.options import differences
from campfire.report.records.record import Run

COMPARABLE = ("cpu", "gpu", "device", "thread", "torch", "world", "amp")  # what makes seconds differ


def warnings_on(runs: Sequence[Run], against: Mapping[str, str | None]) -> Iterator[str]:
    """What is particular to these runs, a sentence or two each; ``against`` names the dense run each is held to."""
    yield from _unfinished(runs)
    yield from _gaps(runs, against)
    yield from _missed(runs)
    yield from _machines(runs)


def notes_on(runs: Sequence[Run], against: Mapping[str, str | None]) -> Iterator[str]:
    """What is always so of the numbers shown."""
    if any(against.values()):
        yield "Every row is one run with one seed: a gap includes what another seed alone would change."
    if any(not run.dense for run in runs):
        yield (
            "Sparsity is the fraction of zeros. Requested and true are over the pruned layers unless another scope "
            "is named; layers left dense are listed with the reason."
        )
        yield (
            "A mask alone brings no speed: dense kernels multiply the zeros too, and seconds and images per second are "
            "of dense-equivalent training with masks. MACs kept is the work left to a kernel that skips the zeros. "
            "Kept weights and MACs are of the whole model."
        )
    if any(run.summary.best_top1 is not None for run in runs):
        yield "Top-1 is of the last epoch, whose weights are in model.safetensors, not of the best one."
    yield from _sizes(runs)


def _unfinished(runs: Sequence[Run]) -> Iterator[str]:
    for run in runs:
        if run.done:
            continue
        why = f" ({run.status.reason})" if run.status.reason else ""
        last = f"epoch {run.epochs[-1].epoch + 1:g}" if run.epochs else ""
        seen = f"its numbers are those of {last}" if last else "it has no epoch to show"
        cure = "; if no process is at work on it, it was killed" if run.status.state == "running" else ""
        yield f"{run.name} is not finished: {run.status.state}{why}; {seen}{cure}."


def _gaps(runs: Sequence[Run], against: Mapping[str, str | None]) -> Iterator[str]:
    by_name = {run.name: run for run in runs}
    for run in runs:
        dense = by_name.get(against[run.name] or "")
        if dense is None:
            if len(runs) > 1 and run.done and not run.dense:
                pair = f"{run.summary.model or 'its model'} on {run.summary.data or 'its data'}"
                yield f"{run.name} has no gap: no finished dense run of {pair} is among these."
            continue
        if unlike := differences(run, dense):
            yield f"{run.name} is compared with {dense.name}, which differs in more than pruning: {', '.join(unlike)}."


def _missed(runs: Sequence[Run]) -> Iterator[str]:
    for run in runs:
        asked, got = run.summary.sparsity_requested, run.summary.sparsity_true
        if run.done and not run.dense and asked is not None and got is not None and abs(asked - got) > 0.005:
            yield (
                f"{run.name} was asked for {100 * asked:.2f} % zeros and has {100 * got:.2f} %: "
                "its structure rounds to whole units in every layer; the layers' own numbers are below."
            )


def _sizes(runs: Sequence[Run]) -> Iterator[str]:
    sizes = {run.name: run.model_bytes for run in runs if run.model_bytes}
    if sizes:
        told = {human(size, "B") for size in sizes.values()}
        each = f"{min(told)} each" if len(told) == 1 and len(sizes) > 1 else ""
        listed = each or ", ".join(f"{name} {human(size, 'B')}" for name, size in sizes.items())
        zeros = "; zeros are stored like any other weight" if any(not r.dense and r.model_bytes for r in runs) else ""
        yield f"Size of model.safetensors on disk: {listed}{zeros}."


def _machines(runs: Sequence[Run]) -> Iterator[str]:
    keys = dict.fromkeys(key for run in runs for key in run.environment)
    where = [key for key in keys if any(p.startswith(COMPARABLE) for p in re.split(r"[._\W]", key.lower()))]
    unlike = [key for key in where if len({run.environment.get(key) for run in runs}) > 1]
    if unlike:
        yield f"The runs differ in {', '.join(unlike)}: their seconds are not comparable."
