"""How evenly the work of a layer falls on an array of processing elements."""

from torch import Tensor, nn


def living_work(module: nn.Module, keep: Tensor) -> tuple[Tensor, Tensor]:
    """Living weights by output [K] and by input [C] of the layer, under a mask [K, C / groups, R, S].

    That of a transposed convolution is [C, K / groups, R, S].

    >>> import torch
    >>> outputs, inputs = living_work(nn.Conv2d(4, 6, 1, groups=2), torch.ones(6, 2, 1, 1).bool())
    >>> outputs.tolist(), inputs.tolist()
    ([2, 2, 2, 2, 2, 2], [3, 3, 3, 3])
    """
    kernels = keep.flatten(2).sum(2)
    rows, columns = kernels.sum(1), kernels.unflatten(0, (getattr(module, "groups", 1), -1)).sum(1).flatten()
    return (columns, rows) if getattr(module, "transposed", False) else (rows, columns)


def imbalance(work: Tensor, elements: int) -> float:
    """Work of the busiest element over the mean of all, 1 where all end together.

    Units of work (outputs or inputs of a layer) are dealt in turns: unit i to element i mod ``elements``. Where there are
    fewer units than elements some stay idle, which counts.

    >>> import torch
    >>> imbalance(torch.tensor([3, 1, 1, 1]), 2), imbalance(torch.tensor([5, 5]), 4)
    (1.3333333333333333, 2.0)
    """
    total = float(work.sum())
    if total == 0:
        return 1.0
    padded = work.new_zeros(-(-work.numel() // elements) * elements)
    padded[: work.numel()] = work
    return float(padded.view(-1, elements).sum(0).max()) * elements / total
