"""ClickTrain's pattern: kernels take one of a few patterns of taps, and whole kernels go."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from campfire.errors import UsageError
from campfire.mask import Mask
from campfire.selection import guarded_floor, keep_best, keep_best_rows
from campfire.structures import books
from campfire.structures.base import Plan, Shape, Structure


@dataclass(frozen=True)
class Pattern(Structure):
    """Every kernel keeps one of a few patterns of ``entries`` taps, its best one; beyond that whole kernels go.

        . . .   . x x   . x x   . . .   . . .
        . x x   . x x   . x x   . . .   . x x       two patterns are the layer's book,
        . x x   . . .   . . .   . . .   . x x       and one kernel of five is dead

    Keeps: the pattern of the book with the largest sum of each kernel, and the kernels with the largest sum. ``book`` is
    planned once: ``auto:N``, the N patterns that most kernels of the layer would choose among all (``centre=true``: among
    those with the middle tap), ClickTrain's ``fixed4``, ``fixed8`` or ``fixed12``, or numbers of patterns, ``3+12+65``.
    Up to a sparsity of 5/9, kernels change from all taps to a pattern, those that lose least first; from there on all have
    one, and the weakest die; with ``balanced=true`` equally many in every filter. Only kernels of ``size`` x ``size`` have
    patterns: in 1x1 layers, and all others, whole kernels go (connectivity alone).
    Hardware: a multiply count that is fixed, and inner loops without a branch where kernels are ordered by pattern.
    Source: ClickTrain (Zhang et al. 2021); books found in the network after PatDNN (Niu et al. 2020), balance after PCONV.
    """

    name = "pattern"
    layout = "tap"
    book: str = "auto:8"
    entries: int = 4
    size: int = 3
    centre: bool = False
    balanced: bool = False

    def __post_init__(self) -> None:
        taps = self.size * self.size
        if not 2 <= self.size <= 7 or not 1 <= self.entries < taps:
            raise UsageError(
                "size is the side of a kernel, 2 to 7, and a pattern keeps 1 entry or more, but not all of them; "
                f"got size={self.size} and entries={self.entries}"
            )
        if self.centre and not self.size % 2:
            raise UsageError(f"a kernel of {self.size}x{self.size} has no middle tap; leave centre out")
        if self.book.startswith("fixed") and (self.size, self.entries) != (3, 4):
            raise UsageError(
                f"{self.book} holds patterns of 4 of 3x3 taps; got size={self.size} and entries={self.entries}: use book=auto:8"
            )
        named = [books.pattern(n, taps, self.entries) for n in books.numbers(self.book)]
        if self.centre and not all(row[taps // 2] for row in named):
            raise UsageError(
                f"a pattern of book {self.book!r} leaves the middle tap out; use book=auto:8, or centre=false"
            )

    def remarks(self, shape: Shape, sparsity: float) -> list[str]:
        if self.has_patterns(shape):
            return []
        size = f"{shape[2]}x{shape[3]}"
        return [f"its kernels are {size} and have no room for a pattern of {self.size}x{self.size}: connectivity only"]

    # --- budgets -----------------------------------------------------------------------------------------------------

    def has_patterns(self, shape: Shape) -> bool:
        """Whether kernels of this shape take patterns; where they do not, connectivity alone is pruned."""
        return shape[2] == shape[3] == self.size

    def _unit(self, shape: Shape) -> tuple[int, int, int, int]:
        """Taps of a kernel, those of a pattern, groups with a budget of their own, and kernels in each."""
        taps, kernels = shape[2] * shape[3], shape[0] * shape[1]
        groups = shape[0] if self.balanced else 1
        return taps, self.entries if self.has_patterns(shape) else taps, groups, kernels // groups

    def count(self, shape: Shape, sparsity: float) -> int:
        taps, entries, groups, kernels = self._unit(shape)
        dead = guarded_floor((sparsity - (1 - entries / taps)) * taps * kernels / entries)
        if dead >= 0:
            return groups * entries * (kernels - dead)
        return groups * (
            taps * kernels - (taps - entries) * guarded_floor(sparsity * taps * kernels / (taps - entries))
        )

    def with_dead(self, shape: Shape, share: float) -> float:
        """The sparsity at which this share of the kernels is dead, rounded up as ClickTrain does, and all others have a pattern.

        >>> round(Pattern().with_dead((64, 64, 3, 3), 0.55), 4), round(Pattern().with_dead((64, 64, 1, 1), 0.55), 4)
        (0.8, 0.55)

        Raises:
            UsageError: no share of kernels, or nothing would be left.
        """
        taps, entries, _, kernels = self._unit(shape)
        dead = math.ceil(share * kernels - 1e-9)
        if not 0 <= share < 1 or dead >= kernels:
            raise UsageError(f"a share of {kernels} kernels that leaves some alive is in [0, 1); got {share}")
        return 1 - entries * (kernels - dead) / (taps * kernels)

    def any_mask(self, shape: Shape) -> bool:
        return shape[2] * shape[3] == 1 and (not self.balanced or shape[0] == 1)

    def saliency(self, score: Tensor, plan: Plan | None = None) -> Tensor:
        """What is in a kernel's best taps goes with the kernel, the rest before it."""
        kernels = score.flatten(2).flatten(0, 1)
        if not self.has_patterns(tuple(score.shape)):
            return kernels.mean(1, keepdim=True).expand_as(kernels).reshape(score.shape)
        known = (plan or {}).get("book")
        best = keep_best_rows(kernels, self.entries) if known is None else books.best_patterns(kernels, known)
        inside = (kernels * best.to(kernels.dtype)).sum(1, keepdim=True)
        outside = (kernels.sum(1, keepdim=True) - inside).clamp(min=0) / (kernels.shape[1] - self.entries)
        return torch.where(best, inside / self.entries, outside).reshape(score.shape)

    # --- masks -------------------------------------------------------------------------------------------------------

    def plan(self, score: Tensor, goal: float) -> Plan:
        taps = score.shape[2] * score.shape[3]
        if not self.has_patterns(tuple(score.shape)):
            return {}
        if most := books.size(self.book):
            return {"book": books.winners(score.flatten(2).flatten(0, 1), self.entries, most, self.centre)}
        rows = [books.pattern(n, taps, self.entries) for n in books.numbers(self.book)]
        return {"book": torch.tensor(rows, device=score.device)}

    def parts(self, score: Tensor, count: int, plan: Plan, alive: Tensor) -> tuple[Tensor, ...]:
        """The taps of every kernel's pattern, the dead ones' too; and the kernels that live."""
        shape = tuple(score.shape)
        taps, entries, groups, kernels = self._unit(shape)
        living = alive.flatten(2).flatten(0, 1)
        importance = score.flatten(2).flatten(0, 1) * living.to(score.dtype)
        held, total, left = books.sums(living), books.sums(importance), count // groups
        if entries == taps:
            return (self._kernels(total, left // taps, held > 0, groups).view(*shape[:2], 1, 1).expand(shape),)
        full = held == taps
        best = living.clone()
        best[full] = books.best_patterns(importance[full], plan["book"])
        if left <= entries * kernels:
            alive_still = self._kernels(total, left // entries, held > 0, groups)
            return best.view(shape), alive_still.view(*shape[:2], 1, 1).expand(shape)
        loss = total - books.sums(importance * best.to(importance.dtype))
        whole = self._kernels(loss, (left - entries * kernels) // (taps - entries), full, groups)
        return (torch.where(whole[:, None], living, best).view(shape),)

    def _kernels(self, score: Tensor, count: int, alive: Tensor, groups: int) -> Tensor:
        """The best ``count`` kernels, of every group."""
        if groups == 1:
            return keep_best(score, count, alive)
        return keep_best_rows(score.view(groups, -1), count, alive.view(groups, -1)).flatten()

    def project(self, score: Tensor, count: int, plan: Plan, alive: Tensor) -> Tensor:
        keep, *others = self.parts(score, count, plan, alive)
        return (keep & others[0] if others else keep.clone()).contiguous()

    def why_invalid(self, mask: Mask) -> list[str]:
        shape = tuple(mask.keep.shape)
        kernels = mask.keep.flatten(2).flatten(0, 1)
        held = books.sums(kernels)
        partly = kernels[(held > 0) & (held < kernels.shape[1])]
        bad = self._why_not_of_the_book(partly, mask.plan, self.has_patterns(shape))
        if self.has_patterns(shape) and bool((held == 0).any()) and bool((held == kernels.shape[1]).any()):
            bad.append("some kernels are dead, and others have no pattern yet")
        filters = held.view(shape[0], -1).sum(1)
        if self.balanced and filters.min() != filters.max():
            bad.append(
                f"filters hold {int(filters.min())} to {int(filters.max())} weights, and are to hold equally many"
            )
        return bad

    def _why_not_of_the_book(self, partly: Tensor, plan: Plan, patterns: bool) -> list[str]:
        if not patterns:
            return ["some kernels are half alive"] if len(partly) else []
        most = books.size(self.book) or len(books.numbers(self.book))
        book = plan["book"] if "book" in plan else partly.unique(dim=0)
        if ("book" in plan or len(partly)) and (reasons := books.why_bad_book(book, self.size**2, self.entries, most)):
            return reasons
        known = torch.isin(books.codes(partly), books.codes(book))
        strangers = len(partly) - int(known.count_nonzero())
        return [f"{strangers} kernels have taps of no pattern in the book"] if strangers else []
