"""tune_: the fastest kernels for a compressed model, layer by layer, pass by pass, and the formats between them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from campfire.compress.places import require_unwrapped
from campfire.compress.plan import GAIN, LayerPlan, PassPlan, Plan
from campfire.compress.race import race
from campfire.compress.recording import Example, Visit, record
from campfire.errors import UnknownName, UsageError
from campfire.kernels import KERNELS, cost, stopwatch
from campfire.kernels.choice import PASSES, Choice
from campfire.kernels.dispatch import MODES, SWITCH, UNTIMED, Converting, Option, cheapest, mode, refusals
from campfire.kernels.formats import FORMATS
from campfire.kernels.times import Case, Clock, Times
from campfire.nn import SparseConv2d, library_layers_
from campfire.nn.base import SparseLayer
from campfire.nn.formats import keeps_formats

TOO_LITTLE = "the GPU has too little memory to time it"
NO_GAIN = "the whole model is not faster with it"
CLOCKS: dict[str, tuple[Clock, Converting]] = {
    "measure": (stopwatch.measure, stopwatch.converting),
    "model": (cost.estimate, cost.converting),
}


def tune_(model: nn.Module, x: Example, training: bool = True, by: str | None = None) -> Plan:
    """Choose the kernels of all sparse layers for inputs like ``x``, and let them run from now on.

    The model is run once on ``x``, in evaluation mode, and comes back as it was; every distinct layer is then timed by
    itself on random tensors, once on a machine (timings are kept in the cache folder). A kernel takes a pass from the
    dense library only where it is at least 1.10 times faster; then the whole model runs in turns with and without
    them, and all is left dense where it does not gain. The plan says how fast the whole model is beside the dense one it
    stands for (`Plan.whole`), whose weights need no unpacking. Activations change their memory format between layers
    where that pays with its conversions; batch normalisation and max-pooling are then exchanged for layers that keep
    the format (`campfire.nn.keep_formats_`).

    Args:
        model: a compressed model, before DDP or ``torch.compile``.
        x: a batch of the size it will run on, on its device; run `tune_` under autocast to tune for that.
        training: whether the backward passes count too.
        by: ``measure``; ``model`` predicts, which is the same on every run; ``off`` lets everything run dense. Default:
            the variable ``CAMPFIRE_DISPATCH``, or ``measure``.

    Raises:
        UsageError: the model is wrapped, or nothing in it is compressed.
        UnknownName: no such way to tune.

    >>> from campfire import Mask, SparseConv2d
    >>> keep = torch.zeros(32, 64, 1, 1, dtype=torch.bool)
    >>> keep[:, ::8] = True
    >>> model = nn.Sequential(SparseConv2d.of(nn.Conv2d(64, 32, 1), Mask(keep), "unit"))
    >>> plan = tune_(model, torch.randn(16, 64, 14, 14), by="model")
    >>> plan.layers[0].choice == model[0].choice(), plan.ms <= plan.dense_ms
    (True, True)
    """
    require_unwrapped(model, "tune")
    by = by or mode()
    if by not in MODES:
        raise UnknownName("way to tune", by, MODES)
    visits = _recorded(model, x)
    nodes = [Node.of(visit, by, training) for visit in visits]
    if not any(isinstance(visit.module, SparseLayer) for visit in visits):
        raise UsageError("nothing that this model runs is compressed; compress_ it first")
    plans = _plans(nodes, by, training)
    plan = next(iter(plans.values()))
    if by == "measure":
        keeps = keeps_formats(model)
        plan = _raced(model, x, training, plans)
        if not keeps and "chwn" not in plan.formats:
            library_layers_(model)
    plan.apply(model)
    return plan


def _recorded(model: nn.Module, x: Example) -> list[Visit]:
    try:
        return record(model, x)
    except RuntimeError as error:
        if "view size is not compatible" not in str(error):
            raise
        cure = "compressed layers return images channels last; where the model flattens them, write flatten or reshape for view"
        raise UsageError(f"the model does not run on this input: {cure} ({error})") from error


def _raced(model: nn.Module, x: Example, training: bool, plans: dict[str, Plan]) -> Plan:
    """The fastest; all dense where the memory of a GPU does not suffice to find out."""
    try:
        return _fastest(plans, race(model, x, training, plans))
    except torch.OutOfMemoryError:
        return replace(plans["dense"], layers=[_too_large(layer) for layer in plans["dense"].layers])


def _too_large(layer: LayerPlan) -> LayerPlan:
    passes = {
        name: replace(run, why_not={k: TOO_LITTLE if why == NO_GAIN else why for k, why in run.why_not.items()})
        for name, run in layer.passes.items()
    }
    return replace(layer, passes=passes)


def _fastest(plans: dict[str, Plan], ratios: dict[str, float] | None) -> Plan:
    """By the clock of the whole model; the first, which is the layers' choice, where it could not be timed."""
    if ratios is None:
        return next(iter(plans.values()))
    others = {name: ratio for name, ratio in ratios.items() if name != "dense"}
    best = max(others, key=others.__getitem__, default="dense")
    chosen = best if ratios[best] >= GAIN * ratios["dense"] else "dense"
    refused = ratios[best] if best != chosen else None
    return replace(plans[chosen], whole=ratios[chosen], refused=refused)


@dataclass
class Node:
    """One call of a layer in the order they run: what it costs in each memory format it may run in."""

    visit: Visit
    options: dict[str, Option] = field(default_factory=dict)  # of a layer to be tuned, by format
    fixed: str = "nhwc"  # the format of all others
    predicted: Times = field(default_factory=Times)
    measured: Times | None = None
    refused: dict[str, list[str]] = field(default_factory=dict)
    dense: float = 0.0  # milliseconds on the dense library

    @classmethod
    def of(cls, visit: Visit, by: str, training: bool) -> "Node":
        layer = visit.module
        if not isinstance(layer, SparseLayer):
            return cls(visit)
        if layer.kernel != "auto":
            return cls(visit, fixed=KERNELS[layer.kernel].format)
        case = Case(layer.packed, layer.conv, visit.size, visit.dtype)
        refused = refusals(case.packed, case.conv, case.dtype, case.device)
        if by == "off":
            refused = {name: reasons or ["everything is to run dense"] for name, reasons in refused.items()}
        passes = PASSES if training else PASSES[:1]
        measured, refused = _timed(case, refused, by, passes)
        converting = CLOCKS["model" if by == "off" else by][1]
        served = ["reference", *(name for name, reasons in refused.items() if not reasons)]
        predicted = cost.estimate(case, served)
        times = _together(predicted, measured, case.device.type == "cuda")
        formats = FORMATS if isinstance(layer, SparseConv2d) and _lanes(served) else FORMATS[:1]
        options = {name: cheapest(case, times, name, converting, passes) for name in formats}
        dense = sum(times.of("reference", name) for name in passes)
        return cls(visit, options, "nhwc", predicted, measured, refused, dense)

    def costs(self, formats: Sequence[str]) -> dict[str, float]:
        """Milliseconds in each of these formats that it may run in."""
        if not self.options:
            return {self.fixed: 0.0}
        return {format: option.cost for format, option in self.options.items() if format in formats}

    @property
    def output(self) -> tuple[int, ...]:
        """[N, K, H', W'] of a sparse layer; of others their input, which lies as the library likes it anyway."""
        layer = self.visit.module
        return layer.conv.output(self.visit.size, layer.shape) if isinstance(layer, SparseLayer) else self.visit.size


def _lanes(kernels: list[str]) -> bool:
    """Whether any of these would rather have another format than the library's."""
    return any(KERNELS[kernel].format != FORMATS[0] for kernel in kernels)


def _timed(
    case: Case, refused: dict[str, list[str]], by: str, passes: Sequence[str]
) -> tuple[Times | None, dict[str, list[str]]]:
    """What the clock says, where it is asked; and who is refused, also for want of it."""
    clock, reason = CLOCKS[by if by in CLOCKS else "model"][0], UNTIMED if case.device.type == "cuda" else ""
    if by == "measure":
        try:
            return clock(case, ["reference", *(name for name, why in refused.items() if not why)], passes), refused
        except torch.OutOfMemoryError:
            reason = TOO_LITTLE
    return None, {name: why or [reason] * bool(reason) for name, why in refused.items()}


def _together(predicted: Times, measured: Times | None, only_measured: bool) -> Times:
    """What was timed, and the model's word on passes that were not: all of it, or that on the dense library."""
    if measured is None:
        return predicted
    ratios = {
        name: {kernel: ratio for kernel, ratio in found.items() if kernel == "reference" or not only_measured}
        for name, found in predicted.ratios.items()
    }
    return Times({**predicted.dense, **measured.dense}, {**ratios, **measured.ratios})


def _plans(nodes: list[Node], by: str, training: bool) -> dict[str, Plan]:
    """What may be fastest by the layers' own times, that first; and ``dense``. Equal ones are left out."""
    converting = CLOCKS["model" if by == "off" else by][1]
    path, ms = _path(nodes, converting, training, FORMATS[:1])
    mixed, mixed_ms = _path(nodes, converting, training, FORMATS)
    found = {"nhwc": _plan(nodes, path, ms, by, training)}
    if all(layer.choice.dense for layer in found["nhwc"].layers):
        found = {"dense": found["nhwc"]}
    else:
        dense = [replace(node, options={"nhwc": _all_dense(node)}) if node.options else node for node in nodes]
        found["dense"] = _plan(dense, path, sum(n.dense for n in nodes), by, training)
    if mixed_ms >= ms:
        return found
    other = {"mixed": _plan(nodes, mixed, mixed_ms, by, training)}
    return other | found if mixed_ms * SWITCH <= ms else found | other  # conversions that nobody sees, as of shortcuts


def _all_dense(node: Node) -> Option:
    ratios = node.predicted.ratios
    return Option(Choice(), node.dense, {p: dict.fromkeys(ratios[p].keys() - {"reference"}, NO_GAIN) for p in PASSES})


def _plan(nodes: list[Node], path: list[str], ms: float, by: str, training: bool) -> Plan:
    dense = sum(node.dense for node in nodes)
    rows = {n.visit.name: _row(n, format) for n, format in zip(nodes, path, strict=True) if n.options}
    layers = {n.visit.name: n.visit.module for n in nodes if isinstance(n.visit.module, SparseLayer)}
    forced = {name: layer.kernel for name, layer in layers.items() if name not in rows}
    threads, entrances = torch.get_num_threads(), _entrances(nodes, path)
    return Plan(list(rows.values()), training, by == "measure", threads, dense, ms, forced, entrances)


def _entrances(nodes: list[Node], path: list[str]) -> dict[str, str]:
    """Where stretches of a format begin, the module that turns the tensor for all who read it."""
    found: dict[str, str] = {}
    for node, was, format in zip(nodes, ["nhwc", *path], path, strict=False):
        if format != was and node.visit.entrance:
            found.setdefault(node.visit.entrance, format)
    return found


def _path(
    nodes: list[Node], converting: Converting, training: bool, formats: tuple[str, ...]
) -> tuple[list[str], float]:
    """The format of each call with the least sum of layers and conversions: a shortest path, in NHWC at both ends."""
    names = [node.visit.name for node in nodes]

    def move(size: tuple[int, ...], dtype: torch.dtype, was: str, format: str) -> float:
        return 0.0 if was == format else converting(size, dtype) * (2 if training else 1)

    best: dict[str, tuple[float, list[str]]] = {"nhwc": (0.0, [])}
    for node in nodes:
        visit, reached = node.visit, {}
        once = names.count(visit.name) == 1  # a layer that runs again has one format: the library's
        for format, spent in node.costs(formats if once else FORMATS[:1]).items():
            ways = [
                (ms + move(visit.size, visit.dtype, was, format) + spent, [*path, format])
                for was, (ms, path) in best.items()
            ]
            reached[format] = min(ways)
        best = reached
    ends = [
        (ms + move(nodes[-1].output, nodes[-1].visit.dtype, format, "nhwc"), path)
        for format, (ms, path) in best.items()
    ]
    ms, path = min(ends)
    return path, ms


def _row(node: Node, format: str) -> LayerPlan:
    layer, option = node.visit.module, node.options[format]
    assert isinstance(layer, SparseLayer)
    passes = {name: _pass(node, option, name) for name in PASSES}
    dtype = str(node.visit.dtype).removeprefix("torch.")
    sizes = tuple(layer.shape), layer.layout, layer.density, node.visit.size
    return LayerPlan(node.visit.name, *sizes, dtype, format, passes)


def _pass(node: Node, option: Option, name: str) -> PassPlan:
    kernel = getattr(option.choice, name)
    why_not = {other: "; ".join(reasons) for other, reasons in node.refused.items() if reasons} | option.why_not[name]
    measured = None if node.measured is None else node.measured.ratios.get(name, {}).get(kernel)
    return PassPlan(kernel, node.predicted.ratios[name][kernel], measured, why_not)
