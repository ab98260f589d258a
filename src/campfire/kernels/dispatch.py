"""Which kernel runs each pass of a layer: those that can, and of those the fastest, if it gains enough."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from campfire.errors import UnknownName
from campfire.kernels.base import KERNELS, Conv
from campfire.kernels.choice import PASSES, Choice
from campfire.kernels.cost import estimate
from campfire.kernels.times import Case, Size, Times
from campfire.packed import Packed

UNTIMED = "on a GPU no kernel is taken that was not timed"
SWITCH = 1.10  # how many times faster than the dense library a kernel must be to take its place
NOMINAL = (16, 14, 14)  # images, height, width: where nobody has said on what a layer will run
MODES = ("measure", "model", "off")

Converting = Callable[[Size, torch.dtype], float]  # milliseconds


def mode() -> str:
    """``CAMPFIRE_DISPATCH``: measure (the default), model (predict, time nothing) or off (everything runs dense).

    Raises:
        UnknownName: it is something else.
    """
    found = os.environ.get("CAMPFIRE_DISPATCH") or "measure"
    if found not in MODES:
        raise UnknownName("mode of CAMPFIRE_DISPATCH", found, MODES)
    return found


def refusals(packed: Packed, conv: Conv, dtype: torch.dtype, device: torch.device) -> dict[str, list[str]]:
    """Of every kernel but the reference the reasons why it cannot serve a layer; [] of those that can."""
    others = [name for name in KERNELS if name != "reference"]
    return {name: KERNELS[name].why_not(packed, conv, dtype, device) for name in others}


def untimed(packed: Packed, conv: Conv, dtype: torch.dtype) -> Choice:
    """The choice of the cost model for a layer whose input nobody knows, and whose neighbours are in NHWC.

    On a GPU the dense library: what kernels gain there is not known before they are timed.
    """
    if mode() == "off" or packed.parts["value"].device.type == "cuda":
        return Choice()
    case = Case(packed, conv, (NOMINAL[0], packed.shape[1] * conv.groups, *NOMINAL[1:]), dtype)
    served = [name for name, reasons in refusals(packed, conv, dtype, case.device).items() if not reasons]
    served = [name for name in served if KERNELS[name].format == "nhwc"]
    if not served or min(case.output[2:]) < 1:
        return Choice()
    return cheapest(case, estimate(case, ["reference", *served]), "nhwc", _free).choice


def _free(size: Size, dtype: torch.dtype) -> float:
    return 0.0


@dataclass(frozen=True)
class Option:
    """A choice, and the milliseconds of the passes it was made for; ``why_not``: of the other kernels, pass by pass."""

    choice: Choice
    cost: float
    why_not: dict[str, dict[str, str]]


def cheapest(case: Case, times: Times, format: str, converting: Converting, passes: Sequence[str] = PASSES) -> Option:
    """The best kernel of each pass where activations lie in ``format``; dense where none is `SWITCH` times faster.

    ``passes`` are those that will run and whose costs count. Conversions of activations are part of a kernel's time.
    """
    chosen, why_not, cost = {}, {}, 0.0
    foreign = any(KERNELS[kernel].format != format for kernels in times.ratios.values() for kernel in kernels)
    move = converting(case.size, case.dtype) + converting(case.output, case.dtype) if foreign else 0.0
    for name in PASSES:
        costs = {
            kernel: times.of(kernel, name) + (0.0 if KERNELS[kernel].format == format else move)
            for kernel in times.ratios[name]
        }
        best = min(costs, key=lambda kernel: (costs[kernel], kernel))
        best = best if costs["reference"] >= SWITCH * costs[best] else "reference"
        chosen[name], why_not[name] = best, _beaten(best, costs, format)
        cost += costs[best] if name in passes else 0.0
    return Option(Choice(**chosen, format=format), cost, why_not)


def _beaten(best: str, costs: Mapping[str, float], format: str) -> dict[str, str]:
    """Why each of the others was not taken."""
    told = {}
    for kernel in costs.keys() - {best, "reference"}:
        gain = costs["reference"] / costs[kernel]
        moved = "" if KERNELS[kernel].format == format else f", with conversions from {format} and back"
        told[kernel] = (
            f"{gain:.2f} x dense, less than {SWITCH:.2f}{moved}"
            if best == "reference"
            else f"{gain:.2f} x dense, {best} {costs['reference'] / costs[best]:.2f}{moved}"
        )
    return told
