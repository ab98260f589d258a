"""Processes meet in a store where those before them left their names, and never take the dead for the living."""

import threading
import uuid
from datetime import timedelta

import pytest
import torch.distributed as dist

from campfire.errors import CampfireError
from campfire.training.meeting import meet


def met(store: dist.Store, world: int) -> list[str]:
    """What each of ``world`` processes reads where the first one wrote."""
    found = [""] * world

    def process(rank: int) -> None:
        own = meet(store, rank, world)
        if rank == 0:
            own.set("address", uuid.uuid4().hex)  # not id(): that of a store gone may return
        found[rank] = own.get("address").decode()

    threads = [threading.Thread(target=process, args=(rank,)) for rank in reversed(range(world))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_each_generation_meets_by_itself() -> None:
    store = dist.HashStore()
    store.set_timeout(timedelta(seconds=60))
    generations = [met(store, 3) for _ in range(4)]
    assert [len(set(found)) for found in generations] == [1] * 4
    assert len({found[0] for found in generations}) == 4


def test_names_of_processes_that_never_met_are_no_hindrance() -> None:
    store = dist.HashStore()
    store.set("campfire/name/1", "of one that died before it was told")
    assert len(set(met(store, 2))) == 1


def test_who_does_not_come_is_said() -> None:
    with pytest.raises(CampfireError, match="of 3 processes, 2 did not come: rank 1"):
        meet(dist.HashStore(), 0, 3, patience=0.0)
