"""The columns that the renderers share: a value reads the same in every one of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from campfire.report.formats import NONE, fixed, human, percent, plain, share
from campfire.report.records.compare import Row
from campfire.report.records.record import Epoch, Layer, Run


@dataclass(frozen=True)
class Column:
    """One column of the comparison: its head in two storeys and in one, a row's text, and what goes in small print."""

    group: str
    head: str
    full: str
    text: Callable[[Row], str]
    detail: Callable[[Row], str] = lambda row: ""


def shape(layer: Layer) -> str:
    return "\N{MULTIPLICATION SIGN}".join(map(str, layer.shape)) or NONE


def _epochs(row: Row) -> str:
    """Epochs trained, and of how many if it stopped short."""
    short = row.epochs_asked is not None and row.epochs < row.epochs_asked
    return f"{row.epochs}/{row.epochs_asked:g}" if short else str(row.epochs)


def _speed(row: Row) -> str:
    return "" if row.images_per_second is None else f"{fixed(row.images_per_second, 0)} images/s"


def how(row: Row) -> str:
    """Structure and method, or dense."""
    return " · ".join(plain(word) for word in (row.structure, row.method) if word) if row.structure else "dense"


def what(row: Row) -> str:
    """Model, data and how it was pruned, in one phrase."""
    return " · ".join([*(plain(word) for word in (row.model, row.data) if word), how(row)])


def lede(rows: Sequence[Row]) -> str:
    """How many runs, of which models, on which data."""
    models = ", ".join(dict.fromkeys(row.model for row in rows if row.model))
    data = ", ".join(dict.fromkeys(row.data for row in rows if row.data))
    count = "1 run" if len(rows) == 1 else f"{len(rows)} runs"
    return plain(count + (f" of {models}" if models else "") + (f" on {data}" if data else ""))


IDENTITY = [
    Column("", "run", "run", lambda r: plain(r.run)),
    Column("", "state", "state", lambda r: plain(r.state)),
    Column("", "model", "model", lambda r: plain(r.model)),
    Column("", "data", "data", lambda r: plain(r.data)),
    Column("", "structure", "structure", lambda r: plain(r.structure or "dense")),
    Column("", "method", "method", lambda r: plain(r.method)),
    Column("", "seed", "seed", lambda r: plain(r.seed)),
]
RESULTS = [
    Column("Accuracy, %", "top-1", "top-1, %", lambda r: fixed(r.top1)),
    Column("Accuracy, %", "vs dense", "vs dense, points", lambda r: fixed(r.gap, sign="+")),
    Column("Accuracy, %", "top-5", "top-5, %", lambda r: fixed(r.top5)),
    Column("Zeros, %", "requested", "zeros requested, %", lambda r: percent(r.sparsity_requested)),
    Column("Zeros, %", "pruned layers", "in pruned layers, %", lambda r: percent(r.sparsity_pruned)),
    Column("Zeros, %", "all convs", "in all convs, %", lambda r: percent(r.sparsity_convs)),
    Column("Zeros, %", "whole model", "in the whole model, %", lambda r: percent(r.sparsity_model)),
    Column(
        "Kept, %",
        "weights",
        "kept weights, %",
        lambda r: share(r.kept_weights, r.weights),
        lambda r: human(r.kept_weights),
    ),
    Column("Kept, %", "MACs", "kept MACs, %", lambda r: share(r.sparse_macs, r.macs), lambda r: human(r.sparse_macs)),
    Column("Training", "epochs", "epochs", _epochs),
    Column("Training", "seconds", "seconds", lambda r: fixed(r.seconds, 1), _speed),
]

LAYER_HEAD = (
    "layer",
    "shape",
    "structure",
    "requested, %",
    "true, %",
    "kernels kept",
    "weights kept",
    "why dense, or remark",
)
EPOCH_HEAD = ("epoch", "loss", "test loss", "top-1, %", "test top-1, %", "requested, %", "true, %", "seconds")


def layer_cells(layer: Layer) -> tuple[str, ...]:
    """One layer's row under `LAYER_HEAD`."""
    return (
        plain(layer.name),
        shape(layer),
        plain(layer.structure or "dense"),
        percent(layer.requested if layer.pruned else None),
        percent(layer.true),
        _of(layer.kept_kernels, layer.kernels),
        _of(layer.kept_weights, layer.weights),
        ("" if not layer.remark else plain(layer.remark)) if layer.pruned else plain(layer.reason),
    )


def epoch_cells(epoch: Epoch) -> tuple[str, ...]:
    """One epoch's row under `EPOCH_HEAD`; epochs are counted from 1, as in figures and the log."""
    losses = fixed(epoch.train_loss, 4), fixed(epoch.eval_loss, 4)
    tops = fixed(epoch.train_top1), fixed(epoch.eval_top1)
    zeros = percent(epoch.sparsity_requested), percent(epoch.sparsity_true)
    return f"{epoch.epoch + 1:g}", *losses, *tops, *zeros, fixed(epoch.seconds, 1)


def environment_rows(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Key -> one value where all runs agree, else one value a run."""
    return _rows([run.environment for run in runs])


def config_rows(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """The options in which the runs differ, one value a run."""
    return [(key, values) for key, values in _rows([run.config for run in runs]) if len(values) > 1]


def _rows(tables: Sequence[Mapping[str, str]]) -> list[tuple[str, list[str]]]:
    keys = dict.fromkeys(key for table in tables for key in table)
    rows = [(plain(key), [plain(table.get(key)) for table in tables]) for key in keys]
    return [(key, values[:1] if len(set(values)) == 1 else values) for key, values in rows]


def _of(part: int | None, whole: int | None) -> str:
    return NONE if part is None or whole is None else f"{part:,} of {whole:,}"
