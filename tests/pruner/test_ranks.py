"""Two processes: equal masks on both under DDP; where they diverge, both stop and name the layer."""

import io
import pathlib
from typing import Any

import pytest
import torch
import torch.distributed as dist
from pruner_nets import assert_true_to_masks, loss_of, net
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD

from campfire import Era, OneShot, Pruner, inter_epoch
from campfire.errors import CampfireError

pytestmark = pytest.mark.xdist_group("ranks")  # one process trains for all

WORLD = 2


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, numbers: range, rank: int) -> None:
    """Each rank on batches of its own."""
    for number in numbers:
        optimizer.zero_grad()
        loss_of(model, number * WORLD + rank).backward()
        optimizer.step()


def data_parallel(rank: int) -> dict[str, Any]:
    """Weights that differ at the start, as DDP finds them; taylor, whose gradients must be the averaged ones."""
    model = DistributedDataParallel(net(seed=rank))
    optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9)
    pruner = Pruner(model, "ck", Era(0, 2, 0.7), score="taylor").attach(optimizer, steps_per_epoch=2)
    steps(model, optimizer, range(7), rank)
    assert pruner.frozen
    assert_true_to_masks(pruner, optimizer)
    return {"masks": {n: m.checksum() for n, m in pruner.masks.items()}, "keys": list(model.module.state_dict())}


def accumulated(rank: int) -> dict[str, Any]:
    model = DistributedDataParallel(net())
    optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9)
    pruner = Pruner(model.module, inter_epoch(0, 4, 0.7)).attach(optimizer, steps_per_epoch=1)
    for number in range(6):
        optimizer.zero_grad()
        with model.no_sync():
            loss_of(model, 4 * number + rank).backward()
        loss_of(model, 4 * number + 2 + rank).backward()
        for name, mask in pruner.masks.items():
            assert not model.module.get_submodule(name).weight.grad[~mask.keep].any()
        optimizer.step()
    assert pruner.frozen
    return {"masks": {n: m.checksum() for n, m in pruner.masks.items()}}


def diverging(rank: int) -> dict[str, Any]:
    """Only `body` drifts apart: somebody forgot DDP."""
    model = net()
    optimizer = SGD(model.body.parameters(), lr=0.5)
    Pruner(model, "ck", OneShot(0, 0.5)).attach(optimizer, steps_per_epoch=1)
    try:
        steps(model, optimizer, range(3), rank)
    except CampfireError as error:
        return {"error": str(error)}
    return {}


def loading(rank: int) -> dict[str, Any]:
    """Each rank loads a checkpoint of its own."""
    model = net()
    optimizer = SGD(model.parameters(), lr=0.0)
    pruner = Pruner(model, {"point": "fine"}, OneShot(0, 0.5)).attach(optimizer, steps_per_epoch=9)
    steps(model, optimizer, range(1), 0)
    state = pruner.state_dict()
    pruner.load_state_dict(state)
    if rank == 1:
        state["layers"]["point"]["bits"] = state["layers"]["point"]["bits"].flip(0)
    try:
        pruner.load_state_dict(state)
    except CampfireError as error:
        return {"error": str(error)}
    return {}


SCENES = {f.__name__: f for f in (data_parallel, accumulated, diverging, loading)}


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=WORLD)
    results = {name: scene(rank) for name, scene in SCENES.items()}
    torch.save(results, f"{folder}/{rank}.pt")
    dist.barrier()  # nobody hangs up while the other still listens
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.start_processes(work, (str(folder),), WORLD, start_method="forkserver")
    return [torch.load(io.BytesIO(pathlib.Path(folder, f"{rank}.pt").read_bytes())) for rank in range(WORLD)]


@pytest.mark.parametrize("scene", ["data_parallel", "accumulated"])
def test_equal_masks(scene, ranks):
    first, second = (results[scene] for results in ranks)
    assert first == second
    assert set(first["masks"]) == {"body", "point"}


def test_the_names_are_those_of_the_bare_model(ranks):
    assert ranks[0]["data_parallel"]["keys"] == list(net().state_dict())


def test_divergence_stops_both_ranks_with_the_name_of_the_layer(ranks):
    for rank in range(WORLD):
        error = ranks[rank]["diverging"]["error"]
        assert error.startswith(f"masks differ between rank {rank} and rank {1 - rank} in body; ")
        assert "is DDP missing?" in error


def test_divergence_at_a_load(ranks):
    for rank in range(WORLD):
        assert f"between rank {rank} and rank {1 - rank} in point" in ranks[rank]["loading"]["error"]
