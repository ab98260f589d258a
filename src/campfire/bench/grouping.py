"""Masks to time kernels with: blocks of random weights, aligned or over greedily regrouped rows."""

import torch
from torch import Tensor

from campfire.mask import Mask


def block_mask(weight: Tensor, sparsity: float, rows: int = 32, channels: int = 4, regroup: bool = True) -> Mask:
    """The best-scored blocks of ``rows`` outputs x ``channels`` inputs x all taps, and the order of the rows.

    Args:
        weight: [K, C, R, S]; K and C are multiples of the block.
        sparsity: fraction of blocks to remove, over the layer.

    >>> mask = block_mask(torch.randn(64, 8, 3, 3), 0.5)
    >>> mask.sparsity, sorted(mask.plan["order"].tolist()) == list(range(64))
    (0.5, True)
    """
    score = weight.abs().sum((2, 3)).unflatten(1, (-1, channels)).sum(2)  # [K, C / channels]
    order = greedy(score, rows) if regroup else torch.arange(len(weight))
    blocks = score[order].unflatten(0, (-1, rows)).sum(1)
    kept = round((1 - sparsity) * blocks.numel())
    best = torch.zeros(blocks.numel(), dtype=torch.bool)
    best[blocks.flatten().topk(kept).indices] = True
    keep = torch.empty(weight.shape, dtype=torch.bool)
    inner = best.view_as(blocks).repeat_interleave(rows, 0).repeat_interleave(channels, 1)
    keep[order] = inner[:, :, None, None].expand(weight.shape)
    return Mask(keep, {"order": order} if regroup else {})


def greedy(score: Tensor, rows: int) -> Tensor:
    """An order of the rows in which each group of ``rows`` is one row and those most like it among the rest."""
    like = score - score.mean(1, keepdim=True)
    like = like / like.norm(dim=1, keepdim=True).clamp_min(1e-12)
    rest, order = torch.arange(len(score)), []
    while len(rest):
        closest = (like[rest] @ like[rest[0]]).argsort(descending=True, stable=True)[:rows]
        order.append(rest[closest])
        chosen = torch.ones(len(rest), dtype=torch.bool)
        chosen[closest] = False
        rest = rest[chosen]
    return torch.cat(order)
