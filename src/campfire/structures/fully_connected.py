"""Campfire's structures for fully connected layers: blocks, single weights, and both in two tiers.

All keep every output alive: an output neuron without inputs is a constant.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from campfire.errors import UsageError
from campfire.mask import Mask
from campfire.selection import guarded_floor, keep_best
from campfire.structures.base import Plan, Shape, Structure


def _best_of_each_output(score: Tensor, alive: Tensor) -> Tensor:
    """The best living weight of each output, bool [K, C, R, S]; of equal ones the last."""
    rows, living = score.flatten(1), alive.flatten(1)
    best = rows.shape[1] - 1 - rows.masked_fill(~living, -1.0).flip(1).argmax(1, keepdim=True)
    return (torch.zeros_like(living).scatter_(1, best, True) & living).view_as(alive)


def _finite(score: Tensor, most: float = math.inf) -> Tensor:
    """Infinite scores as large finite ones, so that only what must not die is infinite."""
    return score.clamp(max=min(torch.finfo(score.dtype).max, most))


def _empty_outputs(keep: Tensor) -> list[str]:
    empty = int((~keep.flatten(1).any(1)).sum())
    return [f"{empty} outputs keep no input"] if empty else []


@dataclass(frozen=True)
class FineFC(Structure):
    """Single weights compete over the layer, but every output keeps its best input.

        out 0   x . . x . .
        out 1   . . . . x .        the last survivor of a row is never taken
        out 2   x x . . . x

    Keeps: the largest weights, and one for each output at least.
    Hardware: CSR matrix-vector products; no output is wasted.
    Source: Campfire (Gamboa et al. 2020), section on fully connected layers.
    """

    name, scope = "fine-fc", "linear"

    def count(self, shape: Shape, sparsity: float) -> int:
        size = math.prod(shape)
        return max(size - guarded_floor(sparsity * size), shape[0])

    def project(self, score: Tensor, count: int, plan: Plan, alive: Tensor) -> Tensor:
        safe = _finite(score).masked_fill(_best_of_each_output(score, alive), math.inf)
        safe = torch.where(alive, safe, torch.zeros_like(safe))
        return keep_best(safe.flatten(), count, alive.flatten()).view_as(alive)

    def why_invalid(self, mask: Mask) -> list[str]:
        return _empty_outputs(mask.keep)


@dataclass(frozen=True)
class Block(Structure):
    """Blocks of n outputs x n inputs live or die together, by their sum of |w|.

        x x . . x x . .
        x x . . x x . .        n = 2; a block at the edge holds what is left there,
        . . x x . . . .        and competes with its like
        . . x x . . . .

    Keeps: the heaviest blocks, and the heaviest in each row of blocks, so that no output dies. Exact at the edges: inner
    blocks, right edge, lower edge and corner each lose the same share of their blocks, floor(s blocks).
    Hardware: small dense products in registers; one index serves n x n weights.
    Source: Campfire (Gamboa et al. 2020): n x n, n < 5.
    """

    name, scope = "block", "linear"
    n: int = 4

    def __post_init__(self) -> None:
        if self.n < 1:
            raise UsageError(f"a block is n x n with n >= 1; got n={self.n}")

    def why_not(self, shape: Shape, groups: int = 1) -> list[str]:
        across = groups > 1 and shape[0] // groups % self.n
        reason = f"a block of {self.n} outputs would reach across groups of {shape[0] // groups} outputs"
        return super().why_not(shape, groups) + ([reason] if across else [])

    def _regions(self, shape: Shape) -> list[tuple[slice, slice, int, int]]:
        """(rows of blocks, columns of blocks, weights in a block, blocks that are safe) of each kind of block."""
        taps, regions = shape[2] * shape[3], []
        cuts = [[(slice(0, s // self.n), self.n), (slice(s // self.n, -(-s // self.n)), s % self.n)] for s in shape[:2]]
        for rows, height in cuts[0]:
            safe = rows.stop - rows.start  # the first kind in a row of blocks guards its outputs
            for columns, width in cuts[1]:
                if (rows.stop - rows.start) * (columns.stop - columns.start):
                    regions.append((rows, columns, height * width * taps, safe))
                    safe = 0
        return regions

    def _kept(self, region: tuple[slice, slice, int, int], sparsity: float) -> int:
        rows, columns, _, safe = region
        blocks = (rows.stop - rows.start) * (columns.stop - columns.start)
        return max(blocks - guarded_floor(sparsity * blocks), safe)

    def count(self, shape: Shape, sparsity: float) -> int:
        return sum(region[2] * self._kept(region, sparsity) for region in self._regions(shape))

    def _blocks(self, x: Tensor) -> Tensor:
        """[K, C, R, S] -> [rows of blocks, columns of blocks, all weights of a block], zero-padded at the edge."""
        n = self.n
        x = F.pad(x, (0, 0, 0, 0, 0, -x.shape[1] % n, 0, -x.shape[0] % n))
        return x.reshape(x.shape[0] // n, n, x.shape[1] // n, n, -1).transpose(1, 2).flatten(2)

    def project(self, score: Tensor, count: int, plan: Plan, alive: Tensor) -> Tensor:
        shape = tuple(score.shape)
        sparsity = self.sparsity_of(shape, count)
        finite = _finite(score.double(), 1e300)  # of which sums are finite
        weight, living = self._blocks(finite * alive).sum(2), self._blocks(alive).any(2)
        keep = torch.zeros_like(living)
        for region in self._regions(shape):
            rows, columns, _, safe = region
            part, alive_part = weight[rows, columns].clone(), living[rows, columns]
            if safe:
                part[_best_of_each_output(part[..., None, None], alive_part[..., None, None])[..., 0, 0]] = math.inf
            kept = min(self._kept(region, sparsity), int(alive_part.sum()))
            part = torch.where(alive_part, part, torch.zeros_like(part))
            keep[rows, columns] = keep_best(part.flatten(), kept, alive_part.flatten()).view_as(part)
        wide = keep.repeat_interleave(self.n, 0).repeat_interleave(self.n, 1)[: shape[0], : shape[1]]
        return alive & wide[:, :, None, None]

    def why_invalid(self, mask: Mask) -> list[str]:
        blocks = self._blocks(mask.keep).sum(2)
        bad = _empty_outputs(mask.keep)
        for rows, columns, size, _ in self._regions(tuple(mask.keep.shape)):
            held = blocks[rows, columns]
            if not ((held == 0) | (held == size)).all():
                return [*bad, f"some {self.n} x {self.n} blocks are half alive"]
        return bad


@dataclass(frozen=True)
class TwoTier(Structure):
    """Campfire's two tiers: blocks for ``share`` of the sparsity, then single weights inside the living blocks.

        x . . . x x . .
        . x . . x . . .        whole 2 x 2 blocks are gone, and the living ones are thinned;
        . . x x . . . .        every output keeps an input
        . . . x . . . .

    Keeps: the best weights of the heaviest blocks, exactly (1 - s) of the layer.
    Hardware: a block index, and a bit mask inside a block.
    Source: Campfire (Gamboa et al. 2020), two-tier pruning of fully connected layers; the share is ours.
    """

    name, scope = "two-tier", "linear"
    n: int = 4
    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise UsageError(f"share is the part of the sparsity that blocks carry, in [0, 1]; got {self.share}")
        Block(self.n)

    def why_not(self, shape: Shape, groups: int = 1) -> list[str]:
        one_tap = [] if shape[2] * shape[3] == 1 else ["it is for fully connected and 1x1 layers"]
        return Block(self.n).why_not(shape, groups) + one_tap

    def count(self, shape: Shape, sparsity: float) -> int:
        return FineFC().count(shape, sparsity)

    def project(self, score: Tensor, count: int, plan: Plan, alive: Tensor) -> Tensor:
        block, shape = Block(self.n), tuple(score.shape)
        target = self.share * (1 - count / score.numel())
        step = 1 / block._blocks(alive).shape[:2].numel()
        weight = _finite(score.double(), 1e38)  # so that what is safe stays below what blocks take for infinite
        safe = weight.masked_fill(_best_of_each_output(score, alive), weight.max().item() * score.numel() + 1)
        while target > 0:  # rounding may ask for a block too many: then one fewer
            living = block.project(safe, block.count(shape, target), plan, alive)
            if int(living.sum()) >= count and not _empty_outputs(living):
                return FineFC().project(score, count, plan, living)
            target -= step
        return FineFC().project(score, count, plan, alive)

    def why_invalid(self, mask: Mask) -> list[str]:
        return _empty_outputs(mask.keep)
