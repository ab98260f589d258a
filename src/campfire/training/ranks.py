"""Ranks: the processes of a run, which torchrun starts; one alone needs nobody."""

import contextlib
import datetime
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from campfire.errors import CampfireError, UsageError
from campfire.training.meeting import meet

T = TypeVar("T")
PATIENCE = datetime.timedelta(minutes=30)  # the first rank may time kernels, or write to a slow disk
NEEDED = ("RANK", "MASTER_ADDR", "MASTER_PORT")


class LostRank(CampfireError):
    """Another process of the run is gone; what it said of it stands in its own output."""


def is_loss(error: BaseException) -> bool:
    """Whether an error says that another process is gone; libraries have no class for it."""
    said = str(error).lower()
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and ("gloo" in said or "nccl" in said))


class Elsewhere(CampfireError):
    """Another process of the run failed; with its exit code."""

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code  # pyright: ignore[reportAttributeAccessIssue]


@dataclass(frozen=True)
class Ranks:
    """This process among those of its run; all of them must make the calls that exchange something."""

    rank: int = 0
    world: int = 1
    local: int = 0  # among those on this machine

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        return self.world > 1

    def highest(self, number: int) -> int:
        """The largest of all ranks' numbers."""
        if not self.several:
            return number
        most = torch.tensor(int(number))
        dist.all_reduce(most, dist.ReduceOp.MAX)
        return int(most)

    def total(self, x: Tensor) -> Tensor:
        """The sum of all ranks' tensors."""
        if self.several:
            x = x.clone()
            dist.all_reduce(x)
        return x

    def gather(self, value: T) -> list[T]:
        """Every rank's value, by rank."""
        if not self.several:
            return [value]
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, value)
        return found

    def from_first(self, value: T) -> T:
        """The first rank's value."""
        found = [value]
        if self.several:
            dist.broadcast_object_list(found)
        return found[0]

    def replica(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The model as one of equal ones, whose gradients are averaged over all ranks: what a loop calls.

        Each keeps running statistics of its own; those that count are the first rank's (`share_buffers`).
        """
        if not self.several:
            return model
        own = [device] if device.type == "cuda" else None
        # of 1x1 weights, whose strides are ambiguous: to copy their gradients costs nothing
        warnings.filterwarnings("ignore", message="Grad strides do not match")
        with warnings.catch_warnings():  # torch 2.13 has a new name for it, that 2.10 does not know
            warnings.simplefilter("ignore", FutureWarning)
            return DistributedDataParallel(model, device_ids=own, broadcast_buffers=False)

    def apart(self, replica: nn.Module) -> contextlib.AbstractContextManager[None]:
        """Meanwhile gradients are not exchanged: those of a batch that more of the same step follow."""
        return replica.no_sync() if isinstance(replica, DistributedDataParallel) else contextlib.nullcontext()

    def share_buffers(self, model: nn.Module) -> None:
        """Give the model the first rank's buffers: running statistics are of what each rank saw."""
        if self.several:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """An error within, where nothing is exchanged, is one of all ranks, so that nobody waits for who left.

        Raises:
            Elsewhere: another rank's error; the first rank reports it.
        """
        error = None
        try:
            yield
        except Exception as caught:
            error = caught
        said = None if error is None else (str(error) or repr(error), getattr(error, "exit_code", 1))
        everyone = self.gather(said)
        if error is not None:
            if isinstance(error, CampfireError):
                error.told = not self.first
            raise error
        for rank, other in enumerate(everyone):
            if other is not None:
                found = Elsewhere(f"rank {rank}: {other[0]}", other[1])
                found.told = not self.first
                raise found

    def check_equal(self, facts: dict[str, Any]) -> None:
        """Raise `UsageError`, on all ranks, where one has other facts than the first."""
        everyone = self.gather(facts)
        for rank, other in enumerate(everyone):
            here = everyone[0]
            unlike = [f"{k} is {v} on rank {rank} and {here[k]} on rank 0" for k, v in other.items() if v != here[k]]
            if unlike:
                error = UsageError(f"all processes of a run must be given the same: {'; '.join(unlike)}")
                error.told = not self.first
                raise error


ALONE = Ranks()


@contextlib.contextmanager
def joined(device: str = "auto") -> Iterator[Ranks]:
    """Meet the other processes of the run, if there are any, and part from them at its end.

    A group of processes that was made before is used, and left alone.

    Raises:
        UsageError: the environment asks for several processes, and does not say where they meet.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if dist.is_available() and dist.is_initialized():
        yield _here()
        return
    if world == 1:
        yield ALONE
        return
    if missing := [name for name in NEEDED if name not in os.environ]:
        raise UsageError(
            f"WORLD_SIZE asks for {world} processes, and {', '.join(missing)} is not set; start them with torchrun: "
            f"torchrun --nproc-per-node {world} -m campfire train ..."
        )
    cuda = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    store, rank, world = next(rendezvous("env://", timeout=PATIENCE))
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    dist.init_process_group(backend, store=meet(store, rank, world), rank=rank, world_size=world, timeout=PATIENCE)
    try:
        yield _here()
    finally:
        dist.destroy_process_group()


def _here() -> Ranks:
    local = os.environ.get("LOCAL_RANK", dist.get_rank() % max(1, torch.cuda.device_count()))
    return Ranks(dist.get_rank(), dist.get_world_size(), int(local))
