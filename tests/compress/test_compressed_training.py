"""Training goes on after compression as it would have under masks, in a share of the memory."""

import copy
import gc
import pickle
import weakref
from pathlib import Path

import pytest
import torch
from compress_cases import OPTIMIZERS, assert_close_models, frozen, groups_of, loss_of, net, same_models, train
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from campfire import SparseConv2d, SparseLinear, compress_, decompress_
from campfire.errors import CheckpointError, UsageError

pytestmark = pytest.mark.filterwarnings("ignore::campfire.errors.LostOutputs")  # small layers lose some
SPARSE = ["body", "tall", "point", "head"]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_same_weights_as_masked_training(name: str) -> None:
    masked, its_optimizer, _ = frozen(name)
    model, optimizer, pruner = frozen(name)
    report = compress_(model, pruner, optimizer)
    assert report.compressed == SPARSE
    assert same_models(model, masked)
    train(masked, its_optimizer, range(3, 23))
    train(model, optimizer, range(3, 23))
    assert not torch.equal(model.body.weight, frozen(name)[0].body.weight)
    assert_close_models(model, masked)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_there_and_back_changes_nothing(name: str) -> None:
    masked, its_optimizer, its_pruner = frozen(name)
    model, optimizer, pruner = frozen(name)
    loss_of(masked, 50).backward()
    loss_of(model, 50).backward()
    compress_(model, pruner, optimizer)
    assert decompress_(model, optimizer, pruner) == SPARSE
    assert [type(m) for m in model.modules()] == [type(m) for m in masked.modules()]
    assert same_models(model, masked)
    ours, theirs = optimizer.state_dict(), its_optimizer.state_dict()
    assert ours["param_groups"] == theirs["param_groups"]
    assert ours["state"].keys() == theirs["state"].keys()
    for key, state in theirs["state"].items():
        torch.testing.assert_close(ours["state"][key], state, rtol=0, atol=0)
    for a, b in zip(model.parameters(), masked.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)
    pruner.attach(optimizer, steps_per_epoch=1)  # and both train on alike
    train(masked, its_optimizer, range(3, 6))
    train(model, optimizer, range(3, 6))
    assert same_models(model, masked)
    assert its_pruner.sparsity == pruner.sparsity


def test_groups_keep_their_order_and_options() -> None:
    model, optimizer, pruner = frozen("adamw")
    names = {id(p): n for n, p in model.named_parameters()}
    before = [[names[id(p)] for p in g["params"]] for g in optimizer.param_groups]
    options = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    steps = optimizer.state[model.body.weight]["step"].clone()
    compress_(model, pruner, optimizer)
    names = {id(p): n.replace(".value", ".weight") for n, p in model.named_parameters()}
    assert [[names[id(p)] for p in g["params"]] for g in optimizer.param_groups] == before
    assert [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups] == options
    state = optimizer.state[model.body.value]
    assert torch.equal(state["step"], steps)
    assert state["exp_avg"].shape == state["exp_avg_sq"].shape == model.body.value.shape
    assert all(p.dim() >= 2 for g in groups_of(model)[:1] for p in g["params"])
    assert len(optimizer.state) == len(list(model.parameters()))


def bytes_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Of weights, gradients and optimizer state in the pruned layers, biases aside."""
    weights = [p for n, p in model.named_parameters() if n.split(".")[0] in SPARSE and not n.endswith("bias")]
    state = [v for w in weights for v in optimizer.state[w].values() if v.dim()]
    return sum(x.nbytes for x in [*weights, *(w.grad for w in weights), *state])


def test_memory_falls_in_proportion() -> None:
    gc.collect()
    gc.disable()  # nothing old may wait for the collector
    try:
        _memory_falls()
    finally:
        gc.enable()


def _memory_falls() -> None:
    model, optimizer, pruner = frozen("adamw")
    loss_of(model, 0).backward()
    dense, density = bytes_of(model, optimizer), 1 - pruner.sparsity
    old = weakref.ref(model.body.weight)
    moment = weakref.ref(optimizer.state[model.body.weight]["exp_avg"])
    factor = weakref.ref(pruner.layers["body"].factor())
    module, gradient = weakref.ref(model.body), weakref.ref(model.body.weight.grad)
    report = compress_(model, pruner, optimizer)
    assert bytes_of(model, optimizer) == pytest.approx(dense * density)
    assert report.after / report.before == pytest.approx(density, rel=0.01)  # step counts are in there too
    train(model, optimizer, range(3, 5))
    assert bytes_of(model, optimizer) == pytest.approx(dense * density)
    assert old() is None, "the dense weight is still alive"
    assert module() is None, "the dense layer is still alive"
    assert gradient() is None, "its gradient is still alive"
    assert moment() is None, "its state is still alive"
    assert factor() is None, "its mask as floats is still alive"


def test_the_pruner_still_reports() -> None:
    model, optimizer, pruner = frozen()
    before, masks, sparsity = pruner.report(), pruner.masks, pruner.sparsity
    compress_(model, pruner, optimizer)
    assert pruner.sparsity == sparsity
    assert pruner.report().to_dict() == before.to_dict()
    assert all(torch.equal(pruner.masks[k].keep, m.keep) for k, m in masks.items())
    assert all(torch.equal(model.get_submodule(k).mask.keep, m.keep) for k, m in masks.items())
    pruner.verify()
    assert pickle.loads(pickle.dumps(pruner)).sparsity == sparsity


def test_a_compressed_model_loads_into_a_dense_one_and_back() -> None:
    model, optimizer, pruner = frozen()
    compress_(model, pruner, optimizer)
    train(model, optimizer, range(3, 5))
    other = net()
    other.load_state_dict(model.state_dict())
    assert same_models(other, model)
    model.load_state_dict(other.state_dict())
    twin = copy.deepcopy(model)
    assert_close_models(twin, other, tolerance=0)
    assert (type(twin.body), type(twin.head)) == (SparseConv2d, SparseLinear)
    assert same_models(pickle.loads(pickle.dumps(twin)), other)
    with torch.no_grad():
        x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
        torch.testing.assert_close(model.eval()(x), other.eval()(x))


def test_weights_outside_the_masks_are_refused_before_anything_is_loaded() -> None:
    model, optimizer, pruner = frozen()
    compress_(model, pruner, optimizer)
    compress_(model, pruner, optimizer)  # guards once
    bad = {k: v + 1.0 if v.is_floating_point() else v for k, v in model.state_dict().items()}
    for given, prefix in ((model, ""), (copy.deepcopy(model), ""), (nn.ModuleDict({"inner": model}), "inner.")):
        before = copy.deepcopy(given.state_dict())
        with pytest.raises(CheckpointError, match=rf"{prefix}body\.weight: .*\n.*{prefix}tall\.weight"):
            given.load_state_dict({prefix + k: v for k, v in bad.items()})
        assert all(torch.equal(v, before[k]) for k, v in given.state_dict().items())
    decompress_(model, optimizer)
    model.load_state_dict(bad)
    assert torch.equal(model.body.weight, bad["body.weight"])
    assert not model._load_state_dict_pre_hooks


def test_wrapped_afterwards(tmp_path: Path) -> None:
    """DDP and compilation around a compressed model."""
    masked, its_optimizer, _ = frozen()
    model, optimizer, pruner = frozen()
    compress_(model, pruner, optimizer)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        parallel = DistributedDataParallel(model)
        train(parallel, optimizer, range(3, 6))
        del parallel
    finally:
        dist.destroy_process_group()
    train(torch.compile(model, backend="aot_eager", fullgraph=True), optimizer, range(6, 8))
    train(masked, its_optimizer, range(3, 8))
    assert_close_models(model, masked)


def test_an_average_is_made_anew_from_the_compressed_model() -> None:
    """Whole numbers, such as indices, would not survive a running average."""
    model, optimizer, pruner = frozen()
    before = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    with pytest.raises(UsageError, match=r"wrapped by AveragedModel.*compress the model itself first"):
        compress_(before, pruner, optimizer)
    compress_(model, pruner, optimizer)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    expected = None
    for step in range(3, 8):
        train(model, optimizer, [step])
        average.update_parameters(model)
        now = model.body.weight
        expected = now if expected is None else 0.9 * expected + 0.1 * now
    layer = average.module.body
    assert all(torch.equal(part, model.body.index[name]) for name, part in layer.index.items())
    torch.testing.assert_close(layer.weight, expected)
    assert decompress_(average.module) == SPARSE
    torch.testing.assert_close(average.module.body.weight, expected)


def test_a_frozen_weight_and_eval_mode_stay_so() -> None:
    model, optimizer, pruner = frozen()
    model.body.requires_grad_(False).eval()
    compress_(model, pruner, optimizer)
    assert (model.body.value.requires_grad, model.body.training, model.tall.training) == (False, False, True)
    decompress_(model)
    assert (model.body.weight.requires_grad, model.body.training, model.tall.training) == (False, False, True)


def test_native_training_in_float32() -> None:
    masked, its_optimizer, _ = frozen(dtype=torch.float32)
    model, optimizer, pruner = frozen(dtype=torch.float32)
    compress_(model, pruner)  # with the optimizer that the pruner is attached to
    train(masked, its_optimizer, range(3, 6))
    train(model, optimizer, range(3, 6))
    assert_close_models(model, masked, tolerance=1e-4)
