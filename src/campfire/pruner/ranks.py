"""Ranks: all processes of a distributed run must hold equal masks."""

from collections.abc import Mapping

import torch.distributed as dist

from campfire.errors import CampfireError
from campfire.mask import Mask


def check_ranks(masks: Mapping[str, Mask]) -> None:
    """Under `torch.distributed`: raise where a layer's mask differs between ranks. All ranks must call it.

    Raises:
        CampfireError: naming the layers, on every rank.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
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
