"""Two processes: every method holds equal masks on both, each rank on batches of its own, and what it remembers is equal."""

import io
import pathlib
import warnings
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from campfire import Era, OneShot, Steps
from campfire.methods import REGISTRY
from campfire.testing.methods import STEPS, Trial

pytestmark = pytest.mark.xdist_group("ranks of methods")  # one process trains for all

WORLD = 2
STRUCTURES = ("fine", "ck", "hrbp:rows=4,channels=2")
ERA, RISING = Era(0, 4, 0.5, initial=0.5, by="step"), Era(1, 3, 0.5, by="step")
SCHEDULES = {
    "prunetrain": RISING, "clicktrain": RISING, "gradual": RISING, "zhu-gupta": RISING,
    **dict.fromkeys(("iterative", "lottery", "l1-filter"), Steps(((1, 0.25), (3, 0.5)))),
    **dict.fromkeys(("snip", "grasp", "synflow", "random", "magnitude"), OneShot(0, 0.5)),
}  # fmt: skip
FILTERS = ("prunetrain", "l1-filter")
CASES = [(n, s) for n in sorted(REGISTRY) for s in (("filter",) if n in FILTERS else STRUCTURES)]
CASES += [("snip:steps=2", "ck"), ("rigl:itop=true", "window"), ("clicktrain:batches=2", "pattern")]


def trained(method: str, structure: str, rank: int) -> dict[str, Any]:
    schedule = SCHEDULES.get(method.partition(":")[0], ERA)
    trial = Trial(method, structure, schedule, DistributedDataParallel, rank, WORLD)
    checksums = []
    tries = 9 if isinstance(schedule, OneShot) or schedule is ERA else STEPS - 3
    while trial.tries < tries:
        trial.run(trial.tries + 1)
        checksums.append({n: m.checksum() for n, m in trial.pruner.masks.items()})
    return {"masks": checksums, "state": trial.pruner.method.state_dict()}


def local_gradients(rank: int) -> list[str]:
    """RigL without averaging: what the test would see if dense gradients were those of each rank."""
    from campfire.pruner import hosting

    whole, hosting.average = hosting.average, lambda tensors: [x.clone() for x in tensors]
    try:
        trial = Trial("rigl", "fine", ERA, DistributedDataParallel, rank, WORLD).run(6)
        return [m.checksum() for m in trial.pruner.masks.values()]
    finally:
        hosting.average = whole


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=WORLD)
    results: dict[Any, Any] = {case: trained(*case, rank) for case in CASES}
    torch.save({"cases": results, "local": local_gradients(rank)}, f"{folder}/{rank}.pt")
    dist.barrier()  # nobody hangs up while the other still listens
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.start_processes(work, (str(folder),), WORLD, start_method="forkserver")
    return [torch.load(io.BytesIO(pathlib.Path(folder, f"{rank}.pt").read_bytes())) for rank in range(WORLD)]


def equal(one: Any, other: Any) -> bool:
    """But for the running statistics, which every rank has of its own."""
    if isinstance(one, dict):
        return list(one) == list(other) and all(equal(one[k], other[k]) for k in one if "running_" not in k)
    return torch.equal(one, other) if torch.is_tensor(one) else one == other


@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(case))
def test_equal_masks_after_every_step(case, ranks) -> None:
    first, second = (results["cases"][case] for results in ranks)
    assert first["masks"] == second["masks"]
    assert first["masks"][-1]
    assert equal(first["state"], second["state"])


def test_batches_differ_between_ranks(ranks) -> None:
    """So that the test could fail: growing by local gradients, ranks part."""
    assert ranks[0]["local"] != ranks[1]["local"]
