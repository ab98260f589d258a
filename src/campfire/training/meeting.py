"""Where the processes of a run meet: in a part of torchrun's store that no process before them has used."""

import time
import uuid

from torch.distributed import PrefixStore, Store  # pyright: ignore[reportPrivateImportUsage]

from campfire.errors import CampfireError

PATIENCE = 1800.0  # seconds: some machines take long to come


def meet(store: Store, rank: int, world: int, patience: float = PATIENCE) -> Store:
    """A store of these processes alone.

    torchrun hands those that it starts again the store of those that died, where the addresses of the dead still stand (torch
    2.10 to 2.13, https://github.com/pytorch/pytorch/issues/135712), and its count of restarts is not the same on all machines.
    So every process makes a name of its own, and the first one tells its own to those whose names it finds, until they answer.

    Raises:
        CampfireError: not all processes came.
    """
    own = uuid.uuid4().hex
    if rank == 0:
        _gather(store, own, world, time.monotonic() + patience)
        return PrefixStore(own, store)
    store.set(f"campfire/name/{rank}", own)
    first = store.get(f"campfire/told/{own}").decode()
    store.set(f"campfire/here/{first}/{rank}", "")
    return PrefixStore(first, store)


def _gather(store: Store, own: str, world: int, end: float) -> None:
    missing = set(range(1, world))
    while missing:
        for rank in sorted(missing):
            if store.check([f"campfire/here/{own}/{rank}"]):
                missing.discard(rank)
            elif store.check([f"campfire/name/{rank}"]):  # perhaps that of a dead one
                store.set(f"campfire/told/{store.get(f'campfire/name/{rank}').decode()}", own)
        if time.monotonic() > end:
            raise CampfireError(
                f"of {world} processes, {len(missing)} did not come: rank {min(missing)}; start all of them"
            )
        time.sleep(0.02)
