"""Tuning of generated code: a few tiles of a layer, compiled and timed in turns; the ratios are kept with other timings."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from campfire.kernels import timings
from campfire.kernels.codegen import passes
from campfire.kernels.codegen.flat import FlatNeed
from campfire.kernels.codegen.index import Filters, PatternIndex
from campfire.kernels.codegen.plan import Need
from campfire.kernels.formats import to_format
from campfire.kernels.stopwatch import setting, timed

By = Callable[[Any], Filters]  # what it is given is one of the need's candidates


def tune(ahead: PatternIndex, back: PatternIndex) -> dict[str, dict[str, float]]:
    """Time tiles for both passes of a layer; what was timed here before is not timed again.

    Args:
        ahead, back: what `campfire.kernels.codegen.CodegenPasses.indices` gives.

    Returns:
        of each pass how many times faster than the model's choice every other tile (rows x columns x vectors of a strip) is;
        {} where nothing could be compiled.
    """
    return {
        "forward": _tuned(ahead, ahead.need_ahead, ahead.ahead_by),
        "d_input": _tuned(back, back.need_back, back.back_by),
    }


def _tuned(index: PatternIndex, need: Need | FlatNeed, by: By) -> dict[str, float]:
    key = f"{need.key} {setting()}"
    if (entry := timings.find(key)) is None:
        names = need.candidates()
        filters = {name: by(walk) for name, walk in names.items()}
        codes = {name: passes.code_of(f, index) for name, f in filters.items()}
        runs = {name: _run(code, filters[name], index.values) for name, code in codes.items() if code is not None}
        first = next(iter(names))
        if first not in runs:
            return {}
        entry = timed({"dense": runs.pop(first), **runs})
        timings.keep({key: entry})
    return dict(entry["ratios"])


def _run(code: passes.Code, f: Filters, values: int) -> Callable[[], object]:
    walk, generator = f.walk, torch.Generator().manual_seed(0)
    sizes = (walk.in_channels, walk.in_height, walk.in_width), (walk.out_channels, walk.out_height, walk.out_width)
    x, y = (to_format(torch.randn(walk.images, *size, generator=generator), "chwn") for size in sizes)
    return partial(passes.run, code, f, x, torch.randn(values, generator=generator), None, None, False, y)
