"""HRBP: blocks of whole kernels over regrouped outputs, dense in the forward and in both backward passes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from campfire.errors import CampfireError, UnknownName, UsageError
from campfire.mask import Mask
from campfire.selection import far, keep_best
from campfire.structures.base import Plan, Shape, Structure
from campfire.structures.regrouping import by_cut, by_likeness, climb, runs, whole
from campfire.structures.row_blocks import Blocks, Kind, best_units, living_units

OPTIONS = {
    "order": ("cut", "cluster", "none"),
    "inputs": ("any", "neighbours"),
    "guard": ("outputs", "inputs", "both", "none"),
}


@dataclass(frozen=True)
class HRBP(Structure):
    """Blocks of ``rows`` regrouped outputs x ``channels`` inputs x all taps live or die together, by their sum of |w|.

                  c=0  1  2  3  4  5
        k= 0        x  .  x  .  .  .
        k= 3        x  .  x  .  .  .       outputs that need the same inputs are one group of rows,
        k= 1        .  x  .  .  x  x       wherever they stand in the layer; each x is a whole kernel
        k= 2        .  x  .  .  x  x

    Keeps: the heaviest blocks. The order of the outputs is planned once, for the final sparsity: ``order=cut`` (the
    hypergraph of outputs and inputs is bisected) or ``cluster`` (by the likeness of their kernel-wise masks), then outputs
    change places while the blocks gain by it; ``none`` takes them as they come. A block takes ``any`` inputs of its
    group, of similar weight, or ``inputs=neighbours``. ``guard=outputs`` gives every group of rows a block where the
    budget allows, ``inputs`` every input, ``both``, or ``none``. Outputs that are left over form smaller blocks.
    Hardware: vector units of 16 or 32 outputs, matrix units; a block is rows x inputs x taps, so it stays dense when
    outputs and inputs change places in the backward pass. Layout ``grouped`` holds the order of the outputs.
    Source: HRBP (Ma et al. 2024); regrouping after Rumi (2020) and Chen et al. (2022), with an exact budget.
    """

    name = "hrbp"
    needs = ("order", "inputs")
    rows: int = 32
    channels: int = 4
    order: str = "cut"
    inputs: str = "any"
    guard: str = "outputs"

    def __post_init__(self) -> None:
        if self.rows < 1 or self.channels < 1:
            raise UsageError(f"a block has one row and one channel or more; got {self.rows} x {self.channels}")
        for option, known in OPTIONS.items():
            if getattr(self, option) not in known:
                raise UnknownName(f"value of {option}", getattr(self, option), known)

    def why_not(self, shape: Shape, groups: int = 1) -> list[str]:
        reasons = super().why_not(shape, groups)
        if groups > 1 and not reasons:
            reasons.append(f"its outputs read {groups} different groups of inputs, which no block can join")
        if shape[0] < self.rows or shape[1] < self.channels:
            box = f"{self.rows} outputs x {self.channels} inputs"
            reasons.append(f"{shape[0]} x {shape[1]} is smaller than a block of {box}; smaller blocks fit it")
        return reasons

    def remarks(self, shape: Shape, sparsity: float) -> list[str]:
        sides = (("outputs", shape[0], self.rows), ("inputs", shape[1], self.channels))
        found = [
            f"{size} {what} are {size // side} x {side} and {size % side} left over, which make smaller blocks"
            for what, size, side in sides
            if size % side
        ]
        blocks = self.blocks_of(shape)
        groups = -(-shape[0] // self.rows)
        living = sum(self._units(kind, shape, sparsity) for kind in blocks.kinds()) // self.taps_of(shape)[1]
        if living < groups:
            found.append(
                f"at a sparsity of {sparsity:.4g} its blocks number {living}, and its groups of outputs {groups}: "
                f"{groups - living} without a weight; ask for fewer zeros or smaller blocks"
            )
        return found

    def taps_of(self, shape: Shape) -> tuple[int, int]:
        """Taps of a block that may die by themselves, and how many of them a thin block keeps; (1, 1): all or none."""
        return 1, 1

    def blocks_of(self, shape: Shape) -> Blocks:
        """How a weight is cut."""
        return Blocks(shape, self.rows, self.channels, self.taps_of(shape)[0])

    def _units(self, kind: Kind, shape: Shape, sparsity: float) -> int:
        least = self.taps_of(shape)[1] if kind.rows.start == kind.columns.start == 0 else 0  # no layer is emptied
        return max(living_units(kind.blocks, *self.taps_of(shape), sparsity), least)

    def count(self, shape: Shape, sparsity: float) -> int:
        blocks = self.blocks_of(shape)
        return sum(blocks.weights(kind) * self._units(kind, shape, sparsity) for kind in blocks.kinds())

    def _budgets(self, shape: Shape, count: int) -> list[int]:
        """The units of each kind that a count stands for."""
        blocks = self.blocks_of(shape)
        if len(kinds := blocks.kinds()) == 1:
            return [count // blocks.weights(kinds[0])]
        sparsity = self.sparsity_of(shape, count)
        return [self._units(kind, shape, sparsity) for kind in kinds]

    def any_mask(self, shape: Shape) -> bool:
        taps, thin = self.taps_of(shape)
        return self.rows == self.channels == 1 and shape[2] * shape[3] in (1, taps) and thin == 1

    def saliency(self, score: Tensor, plan: Plan | None = None) -> Tensor:
        blocks = self.blocks_of(tuple(score.shape))
        order, inputs = blocks.natural(score.device)  # to compare layers before there is a plan, as they come will do
        if plan:
            order, inputs = plan["order"], plan["inputs"]
        means = [  # of a block, over those of its taps that live
            x.sum(1, keepdim=True) * (x > 0) / (x > 0).sum(1, keepdim=True).clamp_min(1) / blocks.weights(kind)
            for x, kind in zip(blocks.sums(score, order, inputs), blocks.kinds(), strict=True)
        ]
        return blocks.spread(means, order, inputs).to(score.dtype)

    # --- the plan ----------------------------------------------------------------------------------------------------

    def plan(self, score: Tensor, goal: float) -> Plan:
        return self._plan(score, goal, None)

    def replan(self, score: Tensor, goal: float, plan: Plan) -> Plan:
        """From the groups as they are: outputs change places only where the new blocks gain by it."""
        return self._plan(score, goal, plan["order"].cpu())

    def _plan(self, score: Tensor, goal: float, before: Tensor | None) -> Plan:
        taps, thin = self.taps_of(tuple(score.shape))
        score = whole(score).flatten(2).unflatten(2, (taps, -1)).sum(3)  # [K, C, taps]
        order = self._order(score, goal, thin, before)
        return {"order": order, "inputs": self._inputs(score, order, thin)}

    def _order(self, score: Tensor, goal: float, thin: int, before: Tensor | None) -> Tensor:
        if self.order == "none":
            return torch.arange(len(score))
        left = len(score) % self.rows
        if before is not None:
            strong, weak = before[: len(score) - left], before[len(score) - left :]
            start = torch.arange(len(strong))
        else:
            strength = score.sum((1, 2)).argsort(stable=True)
            weak, strong = strength[:left].sort().values, strength[left:].sort().values
            start = self._start(score[strong], goal, thin)
        groups = strong[self._climb(score[strong], goal, thin, start)].view(-1, self.rows).sort(dim=1).values
        groups = groups[groups.sum(1).argsort(stable=True)]
        return torch.cat([groups.flatten(), weak])

    def _start(self, score: Tensor, goal: float, thin: int) -> Tensor:
        """An order of outputs that make whole groups, by the kernel-wise mask."""
        if len(score) == self.rows:
            return torch.arange(self.rows)
        kernels = score.sum(2)
        kept = living_units(kernels.numel(), score.shape[2], thin, goal) // thin
        mask = keep_best(kernels.flatten(), min(max(kept, 1), kernels.numel())).view_as(kernels)
        return (by_cut if self.order == "cut" else by_likeness)(mask, self.rows)

    def _climb(self, score: Tensor, goal: float, thin: int, start: Tensor) -> Tensor:
        """A better order than ``start``."""
        groups, (_, inputs, taps) = len(score) // self.rows, score.shape
        if groups == 1:
            return start
        width = self.channels if self.inputs == "neighbours" else 1  # of the blocks that rows are moved for
        blocks = Blocks((groups, inputs, taps, 1), 1, width, taps)
        natural = blocks.natural(score.device)
        places = blocks.places(*natural)

        def keep(sums: Tensor) -> Tensor:
            units = blocks.sums(sums.view(blocks.shape), *natural)
            best = [
                best_units(x, torch.ones_like(x, dtype=torch.bool), living_units(len(x), taps, thin, goal), thin, place)
                for x, place in zip(units, places, strict=True)
            ]
            return blocks.spread(best, *natural).flatten(1).double()

        return climb(score.flatten(1), self.rows, keep, start)

    def _inputs(self, score: Tensor, order: Tensor, thin: int) -> Tensor:
        """The inputs of each group of rows in the order in which they make blocks, [groups, C]."""
        if self.inputs == "neighbours":
            return torch.arange(score.shape[1]).expand(-(-len(order) // self.rows), -1).contiguous()
        heights = order.split(self.rows)
        return runs(torch.stack([score[rows].sum(0) for rows in heights]), self.channels, thin)

    # --- masks -------------------------------------------------------------------------------------------------------

    def project(self, score: Tensor, count: int, plan: Plan, alive: Tensor) -> Tensor:
        shape = tuple(score.shape)
        blocks, thin, budgets = self.blocks_of(shape), self.taps_of(shape)[1], self._budgets(shape, count)
        order, inputs = plan["order"], plan["inputs"]
        sums, held, places = (
            blocks.sums(score, order, inputs), blocks.sums(alive, order, inputs), blocks.places(order, inputs)
        )  # fmt: skip
        keep = []
        for i, kind in enumerate(blocks.kinds()):
            intact = held[i] == blocks.weights(kind)
            if not far(intact.device) and int(intact.count_nonzero()) < budgets[i]:  # far away selection tells, later
                raise CampfireError(
                    f"{str(self)!r} is to keep {budgets[i]} blocks (or taps of them), and earlier masks left only "
                    f"{int(intact.count_nonzero())} whole; let no other structure go before it"
                )
            keep.append(best_units(sums[i], intact, budgets[i], thin, places[i], self._guarded(kind, inputs)))
        return blocks.spread(keep, order, inputs)

    def _guarded(self, kind: Kind, inputs: Tensor) -> Callable[[Tensor], Tensor] | None:
        """The best block of every group of rows, and of every input."""
        if self.guard == "none":
            return None
        at = kind.rows.start // self.rows
        channels, inputs = inputs.shape[1], inputs[at : at + kind.groups, kind.columns].flatten()

        def prefer(rank: Tensor) -> Tensor:
            best = []
            if self.guard != "inputs":
                best.append(rank.view(kind.groups, kind.runs).amax(1))
            if self.guard != "outputs":
                most = rank.new_full((channels,), -1)
                best.append(most.scatter_reduce_(0, inputs, rank.repeat_interleave(kind.width), "amax"))
            ranks = torch.cat(best)  # -1: an input that stands in no block of this kind
            chosen = torch.zeros(len(rank) + 1, dtype=torch.bool, device=rank.device)
            return chosen.index_fill_(0, ranks.where(ranks >= 0, len(rank)), True)[rank]

        return prefer

    def why_invalid(self, mask: Mask) -> list[str]:
        shape = tuple(mask.keep.shape)
        blocks, thin = self.blocks_of(shape), self.taps_of(shape)[1]
        order, inputs = blocks.natural(mask.keep.device)
        order, inputs = mask.plan.get("order", order), mask.plan.get("inputs", inputs)
        if reasons := _why_bad_plan(order, inputs, blocks):
            return reasons
        for kind, held in zip(blocks.kinds(), blocks.sums(mask.keep, order, inputs), strict=True):
            living = held > 0
            if bool((living & (held < blocks.weights(kind))).any()):
                return [f"some blocks of {kind.height} outputs x {kind.width} inputs are half alive"]
            taps = living.sum(1)
            if not bool((taps >= thin).all() | ((taps == 0) | (taps == thin)).all()):
                return [f"blocks hold {taps.unique().tolist()} taps; {thin} or none, or all of them {thin} or more"]
        return []


def _why_bad_plan(order: Tensor, inputs: Tensor, blocks: Blocks) -> list[str]:
    wanted = {"order": (blocks.shape[0],), "inputs": (-(-blocks.shape[0] // blocks.rows), blocks.shape[1])}
    reasons = []
    for name, part in (("order", order), ("inputs", inputs)):
        if tuple(part.shape) != wanted[name] or part.dtype != torch.int64:
            reasons.append(f"{name} is int64 {wanted[name]}; got {part.dtype} {tuple(part.shape)}")
        elif not bool((part.sort(dim=-1).values == torch.arange(part.shape[-1], device=part.device)).all()):
            reasons.append(f"{name} does not hold each number once")
    return reasons
