"""Row supports: whether what is dense in the forward pass stays so when outputs and inputs change places."""

from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch import Tensor

from campfire.structures.hrbp import HRBP


@dataclass(frozen=True)
class Supports:
    """How the weights of some groups of outputs lie in the gradient of the input, where an input is a row.

    A row's support is the set of taps at which it has weights; where all rows of a group have one support, the group is one
    dense tile there as well. Counts are sums over the groups.

    >>> columns = torch.zeros(64, 9, dtype=torch.bool)
    >>> columns[:8] = True
    >>> Supports.of(columns).told()
    {'groups': 1, 'inputs': 8.0, 'sets_of_taps': 1.0, 'density': 1.0}
    """

    groups: int
    inputs: int  # touched
    sets: int  # different supports among them
    living: int  # (input, tap) pairs
    box: int  # inputs touched x taps touched

    @classmethod
    def of(cls, columns: Tensor) -> "Supports":
        """Of one group of outputs: which columns of the forward matrix it has, bool [C, taps]."""
        touched = columns[columns.any(1)]
        box = len(touched) * int(touched.any(0).sum())
        return cls(1, len(touched), len(touched.unique(dim=0)), int(touched.sum()), box)

    @classmethod
    def of_mask(cls, keep: Tensor, order: Tensor, rows: int) -> "Supports":
        """Of all whole groups of a mask [K, C, R, S], ``rows`` outputs each in this order, that have a weight."""
        first = order[: len(order) // rows * rows : rows]
        found = [cls.of(keep[k].flatten(1)) for k in first.tolist() if bool(keep[k].any())]
        return cls.total(found)

    @classmethod
    def total(cls, parts: "list[Supports]") -> "Supports":
        """Of several together."""
        return (
            cls(*(sum(numbers) for numbers in zip(*map(astuple, parts), strict=True))) if parts else cls(0, 0, 0, 0, 0)
        )

    def told(self) -> dict[str, Any]:
        """Means over the groups, and the share of the boxes that is alive."""
        groups = max(1, self.groups)
        return {
            "groups": self.groups,
            "inputs": self.inputs / groups,
            "sets_of_taps": self.sets / groups,
            "density": self.living / max(1, self.box),
        }


def single_weights(score: Tensor, structure: HRBP, sparsity: float) -> tuple[Tensor, Tensor]:
    """A mask [K, C, R, S] of regrouped single weights, and the order of its outputs: each group keeps the columns (input,
    tap) that are heaviest, as Rumi (2020) and Chen et al. (2022) have it, with an exact budget."""
    columns = HRBP(structure.rows, 1, structure.order, guard=structure.guard)
    flat = score.flatten(1)[:, :, None, None]
    plan = columns.plan(flat, sparsity)
    alive = torch.ones_like(flat, dtype=torch.bool)
    keep = columns.project(flat, columns.count(tuple(flat.shape), sparsity), plan, alive)
    return keep.view(score.shape), plan["order"]
