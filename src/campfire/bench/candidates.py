"""What kernels are timed with: masks of random weights, the layout that holds them, and the layers they are for."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from campfire.mask import Mask
from campfire.structures import named
from campfire.structures.base import Structure

PATTERNS = 8  # in a book, as ClickTrain has
TAPS = 4  # of 9


@dataclass(frozen=True)
class Candidate:
    """A way to make a mask of a weight [K, C, R, S] and a sparsity, and the layout it is packed in."""

    mask: Callable[[Tensor, float], Mask]
    layout: str
    spatial: bool = False  # for layers of several taps only
    structure: Structure | None = None

    def fits(self, shape: tuple[int, int, int, int]) -> bool:
        """Whether a layer of this shape is timed: the structure has units that fit in, and something of its own to show."""
        whole = self.structure is None or not self.structure.why_not(shape)
        return whole and (not self.spatial or shape[2] * shape[3] > 1)


def pattern_mask(weight: Tensor, sparsity: float) -> Mask:
    """4 of 9 taps by the best of 8 patterns found in the layer, then the best kernels, until the layer is sparse enough.

    >>> mask = pattern_mask(torch.randn(16, 8, 3, 3), 0.7)
    >>> mask.keep.sum((2, 3)).unique().tolist(), round(mask.sparsity, 2)
    ([0, 4], 0.7)
    """
    score = weight.abs().flatten(2).flatten(0, 1)
    best = torch.zeros_like(score, dtype=torch.bool).scatter_(1, score.topk(TAPS, dim=1).indices, True)
    book, often = torch.unique(best, dim=0, return_counts=True)
    book = book[often.argsort(descending=True, stable=True)[:PATTERNS]]
    gain = score @ book.to(score.dtype).T
    kept, chosen = gain.max(1)
    living = round((1 - sparsity) * score.numel() / TAPS)
    keep = torch.zeros_like(best)
    alive = kept.topk(min(living, len(score))).indices
    keep[alive] = book[chosen[alive]]
    return Mask(keep.view(weight.shape))


def _blocks(rows: int, channels: int, regroup: bool) -> Candidate:
    """Neighbouring inputs, so that a tile is as wide as the block."""
    order = "cut" if regroup else "none"
    name = f"hrbp:rows={rows},channels={channels},order={order},inputs=neighbours,guard=none"
    return _structure(name, layout="grouped" if regroup else "unit")


def _structure(name: str, spatial: bool = False, layout: str | None = None) -> Candidate:
    structure = named(name)

    def mask(weight: Tensor, sparsity: float) -> Mask:
        score = weight.abs()
        plan, count = structure.plan(score, sparsity), structure.count(tuple(weight.shape), sparsity)
        return Mask(structure.project(score, count, plan, torch.ones_like(score, dtype=torch.bool)), plan)

    return Candidate(mask, layout or structure.layout, spatial, structure)


CANDIDATES: dict[str, Candidate] = {
    "hrbp": _structure("hrbp", layout="grouped"),
    "hrbp-16": _structure("hrbp:rows=16", layout="grouped"),
    "hrbp-64": _structure("hrbp:rows=64", layout="grouped"),
    "hrbp-128": _structure("hrbp:rows=128", layout="grouped"),
    "hrbp++": _structure("hrbp++", spatial=True, layout="grouped"),
    "hrbp-32x4": _blocks(32, 4, regroup=True),
    "hrbp-32x32": _blocks(32, 32, regroup=True),
    "hrbp-32x1": _blocks(32, 1, regroup=True),
    "hrbp-64x64": _blocks(64, 64, regroup=True),
    "hrbp-128x32": _blocks(128, 32, regroup=True),
    "block-64x64": _blocks(64, 64, regroup=False),
    "block-128x32": _blocks(128, 32, regroup=False),
    "block-64x32": _blocks(64, 32, regroup=False),
    "block-32x32": _blocks(32, 32, regroup=False),
    "block-32x4": _blocks(32, 4, regroup=False),
    "block-32x2": _blocks(32, 2, regroup=False),
    "block-32x1": _blocks(32, 1, regroup=False),
    "block-16x32": _blocks(16, 32, regroup=False),
    "block-16x4": _blocks(16, 4, regroup=False),
    "block-16x1": _blocks(16, 1, regroup=False),
    "ck": _structure("ck"),
    "window": _structure("window", spatial=True),
    "combined": _structure("combined", spatial=True),
    "pattern": Candidate(pattern_mask, "tap", spatial=True),
    "fine": _structure("fine"),
}
