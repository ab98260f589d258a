"""Ranks: all processes of a distributed run must hold equal masks."""

from collections.abc import Iterable, Mapping

import torch.distributed as dist
from torch import Tensor

from campfire.errors import CampfireError
from campfire.mask import Mask


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def average(tensors: Iterable[Tensor]) -> list[Tensor]:
    """The mean of each tensor over all ranks of `torch.distributed`, equal bit for bit on all of them, which must all call it."""
    means = [x.clone() for x in tensors]
    if _several():
        for x in means:
            dist.all_reduce(x)
            x /= dist.get_world_size()
    return means


def check_ranks(masks: Mapping[str, Mask]) -> None:
    """Under `torch.distributed`: raise where a layer's mask differs between ranks. All ranks must call it.

    Raises:
        CampfireError: naming the layers, on every rank.
    """
    if not _several():
        return
    everyone: list[dict[str, str]] = [{} for _ in range(dist.get_world_size())]
    dist.all_gather_object(everyone, {name: mask.checksum() for name, mask in masks.items()})
    mine = everyone[dist.get_rank()]
    for rank, other in enumerate(everyone):
        names = sorted(n for n in {*mine, *other} if mine.get(n) != other.get(n))
        if names:
            raise CampfireError(
                f"masks differ between rank {dist.get_rank()} and rank {rank} in {', '.join(names)}; "
                "ranks must train on equal weights and gradients (is DDP missing?)"
            )
