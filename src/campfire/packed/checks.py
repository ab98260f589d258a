"""Checks of index parts that may come from anywhere: they allocate no more than the part itself."""

import torch
from torch import Tensor


def why_not_within(name: str, index: Tensor, stop: int) -> list[str]:
    """Reasons why entries of ``index`` lie outside [0, stop).

    >>> why_not_within("unit", torch.tensor([0, 4]), 4)
    ['an entry of unit lies outside [0, 4)']
    """
    if index.numel() and (int(index.min()) < 0 or int(index.max()) >= stop):
        return [f"an entry of {name} lies outside [0, {stop})"]
    return []


def why_not_rising(name: str, index: Tensor, stop: int) -> list[str]:
    """Reasons why ``index`` is not strictly rising within [0, stop): each index once, in order.

    >>> why_not_rising("unit", torch.tensor([0, 2, 2]), 4)
    ['the entries of unit do not rise']
    """
    if reasons := why_not_within(name, index, stop):
        return reasons
    # compared, not subtracted: a difference of two int32 can wrap around
    return [] if bool((index[1:] > index[:-1]).all()) else [f"the entries of {name} do not rise"]


def why_not_permutation(name: str, index: Tensor, size: int) -> list[str]:
    """Reasons why ``index`` is not each of 0 .. size - 1 once.

    >>> why_not_permutation("order", torch.tensor([2, 0, 2]), 3)
    ['order is not a permutation of 3']
    """
    right = index.numel() == size and torch.equal(
        index.sort().values, torch.arange(size, device=index.device).to(index)
    )
    return [] if right else [f"{name} is not a permutation of {size}"]
