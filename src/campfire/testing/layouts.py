"""What every packed layout must pass."""

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from campfire.errors import DoesNotFit
from campfire.mask import Mask
from campfire.packed import LAYOUTS, Layout, Packed
from campfire.testing.masks import Shape, masks
from campfire.testing.saying import Say
from campfire.testing.tampering import check_refusals

LAYOUT_SHAPES: tuple[Shape, ...] = ((32, 16, 3, 3), (64, 24, 1, 1), (16, 3, 7, 7), (9, 7, 5, 5), (8, 6, 2, 3))
LAYOUT_SPARSITIES = (0.0, 0.7, 0.9, 1.0)
BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def check_layout(
    layout: str | Layout,
    given: Iterable[Mask] | None = None,
    shapes: Iterable[Shape] = LAYOUT_SHAPES,
    sparsities: Iterable[float] = LAYOUT_SPARSITIES,
    seed: int = 0,
) -> int:
    """Check one layout on every mask it holds; returns how many those were.

    The survivors, and nothing else, must be stored and come back bit for bit, in every dtype and whatever the dead
    weights are; ``gather`` and ``scatter`` must be each other's inverse and gradient; parts must be smaller than the
    dense weight from 70 % sparsity on; damaged parts must be refused by ``why_invalid``, which must not crash; masks
    that ``why_not`` refuses must be refused by ``pack`` with the same reasons.

    Args:
        layout: a registered name, or a layout.
        given: masks to check instead of those of `campfire.testing.masks` for each shape and sparsity.

    >>> check_layout("unit", shapes=[(16, 8, 3, 3)], sparsities=[0.7])
    7

    Raises:
        AssertionError: what failed, on which mask.
    """
    layout = LAYOUTS[layout] if isinstance(layout, str) else layout
    assert type(layout).__doc__, f"{layout.name} has no page: its docstring draws its parts"
    held, sparse = 0, False
    for case, mask in _cases(given, shapes, sparsities, seed):
        say = Say(f"{layout.name or type(layout).__name__}, {case}: ")
        weight = torch.randn(mask.keep.shape, generator=torch.Generator().manual_seed(seed))
        if reasons := layout.why_not(mask):
            _check_refused(layout, weight, mask, reasons, say)
            continue
        _check_mask(layout, weight, mask, say)
        held, sparse = held + 1, sparse or 0.4 < mask.sparsity < 1
    assert sparse, f"{layout.name} holds none of the sparse masks it was given"
    return held


def _cases(
    given: Iterable[Mask] | None, shapes: Iterable[Shape], sparsities: Iterable[float], seed: int
) -> Iterator[tuple[str, Mask]]:
    if given is not None:
        yield from ((f"mask {i} of those given", mask) for i, mask in enumerate(given))
        return
    seen = set()
    for shape in shapes:
        for sparsity in sparsities:
            for kind, mask in masks(tuple(shape), sparsity, seed):
                if (checksum := mask.checksum()) not in seen:  # all kinds are alike when full or empty
                    seen.add(checksum)
                    yield f"{kind} at {sparsity} on {tuple(shape)}", mask


def _check_mask(layout: Layout, weight: Tensor, mask: Mask, say: Say) -> None:
    packed = _check_pack(layout, weight, mask, say)
    _check_positions(layout, packed, mask, say)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        _check_round_trip(layout, _odd(weight.to(dtype), mask), mask, say)
    _check_gather_scatter(layout, packed, mask, say)
    _check_gradients(layout, packed, say)
    _check_size(packed, mask, say)
    check_refusals(layout, packed, say)


def _check_refused(layout: Layout, weight: Tensor, mask: Mask, reasons: list[str], say: Say) -> None:
    try:
        layout.pack(weight, mask)
    except DoesNotFit as error:
        say(error.reasons == reasons, f"pack says {error.reasons}, why_not {reasons}")
    else:
        say(False, f"pack takes what why_not refuses: {reasons}")


def _check_pack(layout: Layout, weight: Tensor, mask: Mask, say: Say) -> Packed:
    """Pack twice, watching the inputs."""
    shape, given = tuple(weight.shape), weight.clone()
    keep = Mask(mask.keep.clone(), mask.plan)
    parts = layout.pack(given, keep)
    packed = Packed(layout.name, shape, parts)
    say(torch.equal(given, weight) and torch.equal(keep.keep, mask.keep), "pack changes its inputs")
    say(_equal(parts, layout.pack(weight, mask)), "pack is not deterministic")
    say(_equal(parts, layout.pack(weight, mask, **layout.options_of(packed))), "its own options pack it differently")
    say(all(part.is_contiguous() for part in parts.values()), "a part is not contiguous")
    given.fill_(7.0)
    say(_equal(parts, layout.pack(weight, mask)), "the values share memory with the weight")
    if shape[2:] == (1, 1):
        say(_equal(parts, layout.pack(weight.flatten(1), mask)), "a linear weight [K, C] packs differently")
    say(not layout.why_invalid(packed), lambda: f"refuses its own parts: {layout.why_invalid(packed)}")
    return packed


def _check_positions(layout: Layout, packed: Packed, mask: Mask, say: Say) -> None:
    value, positions = packed.parts["value"], layout.positions(packed)
    say(tuple(value.shape) == layout.value_shape(packed), "value_shape is not the shape of the value")
    say(positions.dtype == torch.int64 and positions.dim() == 1, "positions are int64 with one axis")
    living = mask.keep.flatten().nonzero()[:, 0]
    say(value.numel() == len(living), f"stores {value.numel()} values of {len(living)} living weights")
    say(torch.equal(positions.sort().values, living), "positions are not those of the living weights, each once")


def _odd(weight: Tensor, mask: Mask) -> Tensor:
    """Not a number where the weight is dead; the oddest numbers there are among the living."""
    weight = weight.masked_fill(~mask.keep, math.nan)
    living = mask.keep.flatten().nonzero()[:, 0][:5]
    odd = torch.tensor([math.nan, -0.0, math.inf, -math.inf, torch.finfo(weight.dtype).tiny / 2], dtype=weight.dtype)
    weight.view(-1)[living] = odd[: len(living)]
    return weight


def _check_round_trip(layout: Layout, weight: Tensor, mask: Mask, say: Say) -> None:
    packed = Packed(layout.name, tuple(weight.shape), layout.pack(weight, mask))
    say(not layout.why_invalid(packed), lambda: f"refuses values: {layout.why_invalid(packed)}")
    dense = layout.unpack(packed)
    say(dense.dtype == weight.dtype and dense.shape == weight.shape, f"unpacks {weight.dtype} to {dense.dtype}")
    say(_same_bits(dense, weight.masked_fill(~mask.keep, 0.0)), f"unpacking does not give back {weight.dtype}")


def _check_gather_scatter(layout: Layout, packed: Packed, mask: Mask, say: Say) -> None:
    """With another tensor than the packed one, of another dtype."""
    dense = torch.arange(1, mask.keep.numel() + 1, dtype=torch.float64).view(packed.shape)
    value = layout.gather(packed, dense)
    say(value.dtype == dense.dtype and value.shape == packed.parts["value"].shape, "gather changes dtype or shape")
    say(torch.equal(value.flatten() - 1, layout.positions(packed).double()), "gather is not in the order of positions")
    say(torch.equal(layout.scatter(packed, value), dense * mask.keep), "scatter is not the inverse of gather")
    strided = dense.to(memory_format=torch.channels_last)
    say(torch.equal(layout.gather(packed, strided), value), "gather depends on the memory format")
    for wrong in (dense[None], torch.cat([dense, dense])):
        say(_refuses(layout.gather, packed, wrong), f"gather takes a tensor of shape {tuple(wrong.shape)}")
        say(_refuses(layout.scatter, packed, wrong), f"scatter takes a tensor of shape {tuple(wrong.shape)}")


def _check_gradients(layout: Layout, packed: Packed, say: Say) -> None:
    value = packed.parts["value"].double().requires_grad_()
    weight = torch.randn(packed.shape, generator=torch.Generator().manual_seed(1)).double().requires_grad_()
    scattered, gathered = layout.scatter(packed, value), layout.gather(packed, weight)
    say(scattered.requires_grad and gathered.requires_grad, "gather or scatter is not differentiable")
    (from_scatter,) = torch.autograd.grad((scattered * weight.detach()).sum(), value)
    (from_gather,) = torch.autograd.grad((gathered * value.detach()).sum(), weight)
    say(torch.equal(from_scatter, gathered), "the gradient of scatter is not gather")
    say(torch.equal(from_gather, scattered), "the gradient of gather is not scatter")


def _check_size(packed: Packed, mask: Mask, say: Say) -> None:
    dense = 4 * mask.keep.numel()
    if mask.sparsity > 0.7 - 1e-9 and mask.keep.numel() >= 256:
        say(packed.nbytes < dense, f"takes {packed.nbytes} bytes, the dense weight {dense}")


def _refuses(function, packed: Packed, tensor: Tensor) -> bool:
    try:
        function(packed, tensor)
    except DoesNotFit:
        return True
    return False


def _equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a)


def _same_bits(a: Tensor, b: Tensor) -> bool:
    bits = BITS[a.element_size()]
    return torch.equal(a.contiguous().view(bits), b.contiguous().view(bits))
