"""Damaged parts: what ``why_invalid`` must refuse, and what it may take only when it describes some weight."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from campfire.mask import Mask
from campfire.packed import Layout, Packed
from campfire.testing.saying import Say

Damage = Iterator[tuple[str, Packed]]


def check_refusals(layout: Layout, packed: Packed, say: Say) -> None:
    """Check ``why_invalid`` on every damage that can be thought of without knowing the layout.

    Damage that a kernel would crash on must be refused: parts missing or foreign, of the wrong size, axes or dtype;
    indices below 0 or far too large. Damage that may by chance describe another weight (two indices exchanged, one
    moved) is refused, or is the one packing of that weight.
    """
    for what, damaged in _broken(packed):
        say(_refused(layout, damaged, what, say), f"why_invalid takes parts with {what}")
    for what, damaged in _doubtful(packed):
        _check_doubtful(layout, packed, damaged, what, say)
    for name, part in _indices(packed):
        for i in {0, len(part) - 1}:
            last = _largest_accepted(layout, packed, name, i, say)
            _check_doubtful(layout, packed, last, f"the largest {name} accepted", say)


def _broken(packed: Packed) -> Damage:
    yield from _foreign(packed)
    for name, part in packed.parts.items():
        for what, damaged in _resized(part):
            yield f"{what} of {name}", _with(packed, name, damaged)
    for name, part in _indices(packed):
        info = torch.iinfo(part.dtype)
        for i in _spread(len(part)):
            yield f"the largest {part.dtype} in {name}", _with(packed, name, _put(part, i, info.max))
            if info.min < 0:
                yield f"-1 in {name}", _with(packed, name, _put(part, i, -1))
                yield f"the smallest {part.dtype} in {name}", _with(packed, name, _put(part, i, info.min))


def _foreign(packed: Packed) -> Damage:
    for name, part in packed.parts.items():
        yield f"no {name}", Packed(packed.layout, packed.shape, {k: v for k, v in packed.parts.items() if k != name})
        other = torch.int32 if part.is_floating_point() else torch.float32
        for dtype in {other, torch.int64}:
            yield f"{name} in {dtype}", _with(packed, name, part.to(dtype))
    yield "a foreign part", _with(packed, "foreign", torch.zeros(1))
    for shape in (packed.shape[1:], (*packed.shape, 1), (0, *packed.shape[1:]), (-1, *packed.shape[1:]), (2**16,) * 4):
        yield f"the shape {shape}", Packed(packed.layout, shape, packed.parts)


def _resized(part: Tensor) -> Iterator[tuple[str, Tensor]]:
    last = part[-1:] if len(part) else part.new_zeros(1, *part.shape[1:])
    yield "an entry too many", torch.cat([part, last])
    yield "an axis too many", part[None]
    if len(part):
        yield "an entry too few", part[:-1]
    if part.dim() > 1 and len(part):
        yield "rows too short", part[:, :-1]
        yield "rows flattened", part.flatten()


def _doubtful(packed: Packed) -> Damage:
    for name, part in packed.parts.items():
        if name == "value" or len(part) < 2:
            continue
        yield f"{name} back to front", _with(packed, name, part.flip(0))
        for i in _spread(len(part) - 1):
            yield f"two entries of {name} exchanged", _with(packed, name, _put(part, [i, i + 1], part[[i + 1, i]]))
            yield f"an entry of {name} twice", _with(packed, name, _put(part, i, part[i + 1]))
    for name, part in _indices(packed):
        for i in _spread(len(part)):
            yield f"an entry of {name} too large by 1", _with(packed, name, _put(part, i, part[i] + 1))
            yield f"an entry of {name} too small by 1", _with(packed, name, _put(part, i, part[i] - 1))


def _check_doubtful(layout: Layout, packed: Packed, damaged: Packed, what: str, say: Say) -> None:
    """Refused, or the one packing of another weight."""
    if all(torch.equal(damaged.parts[k], v) for k, v in packed.parts.items() if k != "value"):
        return  # equal entries were exchanged
    if _refused(layout, damaged, what, say):
        return
    say = Say(f"{say.case}why_invalid takes parts with {what}, ")
    try:
        _check_other_weight(layout, packed, damaged, say)
    except (RuntimeError, IndexError, ValueError, ZeroDivisionError) as error:
        raise AssertionError(f"{say.case}and reading them crashes: {error!r}") from error


def _check_other_weight(layout: Layout, packed: Packed, damaged: Packed, say: Say) -> None:
    positions = layout.positions(damaged)
    size = math.prod(damaged.shape)
    say(bool(((positions >= 0) & (positions < size)).all()), "and they point outside the weight")
    keep = torch.zeros(size, dtype=torch.bool).index_fill(0, positions, True).view(damaged.shape)
    say(int(keep.count_nonzero()) == damaged.parts["value"].numel(), "and two values lie in one place")
    options = layout.options_of(damaged)
    refused = layout.why_not(Mask(keep), **options)
    say(not refused, f"and why_not refuses the weight that they describe: {refused}")
    again = Packed(damaged.layout, damaged.shape, layout.indices(Mask(keep), **options))
    say(torch.equal(layout.positions(again), positions), "and their values lie in another order than pack's")
    sizes = {k: damaged.parts[k].shape for k in again.parts}
    say({k: v.shape for k, v in again.parts.items()} == sizes, "although something in them is superfluous")
    same = all(torch.equal(v, packed.parts[k]) for k, v in options.items())
    say(not (same and torch.equal(positions, layout.positions(packed))), "and nobody has looked at it")


def _largest_accepted(layout: Layout, packed: Packed, name: str, i: int, say: Say) -> Packed:
    """With the largest number at a place that is not refused, found by bisection: one too many is one too large."""
    part = packed.parts[name]
    low, high = int(part[i]), torch.iinfo(part.dtype).max
    while high - low > 1:
        middle = (low + high) // 2
        refused = _refused(layout, _with(packed, name, _put(part, i, middle)), f"{middle} in {name}", say)
        low, high = (low, middle) if refused else (middle, high)
    return _with(packed, name, _put(part, i, low))


def _refused(layout: Layout, damaged: Packed, what: str, say: Say) -> bool:
    try:
        return bool(layout.why_invalid(damaged))
    except Exception as error:
        raise AssertionError(f"{say.case}why_invalid crashes on parts with {what}: {error!r}") from error


def _indices(packed: Packed) -> Iterator[tuple[str, Tensor]]:
    """The parts of integers that are not empty."""
    for name, part in packed.parts.items():
        if not part.is_floating_point() and part.dtype != torch.bool and part.numel():
            yield name, part


def _spread(count: int) -> list[int]:
    """A few places from the first to the last."""
    return sorted({0, 1, count // 3, count // 2, count - 2, count - 1} & set(range(count)))


def _put(part: Tensor, place: int | list[int], value: object) -> Tensor:
    part = part.clone()
    part[place] = value  # pyright: ignore[reportArgumentType]
    return part


def _with(packed: Packed, name: str, part: Tensor) -> Packed:
    return Packed(packed.layout, packed.shape, {**packed.parts, name: part})
