"""The model stays the user's: cast, averaged, compiled, in any memory format."""

import copy

import pytest
import torch
from pruner_nets import assert_true_to_masks, loss_of, net, pruned, train, zeros
from torch import nn
from torch.optim import SGD, AdamW
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import campfire
from campfire import OneShot, Pruner
from campfire.errors import CampfireError, UsageError


def test_class_keys_and_dtypes_never_change():
    model = net()
    before = {k: (v.dtype, v.shape, type(v)) for k, v in model.state_dict().items()}
    classes = [type(m) for m in model.modules()]
    parameters = [id(p) for p in model.parameters()]
    _, optimizer, _ = pruned(model)
    train(model, [optimizer], range(4))
    assert {k: (v.dtype, v.shape, type(v)) for k, v in model.state_dict().items()} == before
    assert [type(m) for m in model.modules()] == classes
    assert [id(p) for p in model.parameters()] == parameters
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled(when, backend):
    torch._dynamo.reset()
    reference, optimizer, _ = pruned()
    train(reference, [optimizer], range(4))
    model = net()
    if when == "before":
        _, optimizer, pruner = pruned(model)
        compiled = torch.compile(model, backend=backend)
    else:
        compiled = torch.compile(model, backend=backend)
        _, optimizer, pruner = pruned(compiled)
    train(compiled, [optimizer], range(4))
    assert_true_to_masks(pruner, optimizer)
    assert set(pruner.masks) == {"body", "point"}
    for a, b in zip(reference.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    optimizer.zero_grad()
    loss_of(compiled, 4).backward()
    assert not model.body.weight.grad[~pruner.masks["body"].keep].any()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_part_that_is_compiled_keeps_its_names(when, tmp_path):
    torch._dynamo.reset()
    model = nn.Sequential(net()[:3], net()[3:])
    if when == "before":
        model[1] = torch.compile(model[1], backend="eager")
    optimizer = SGD(model.parameters(), lr=0.1)
    pruner = Pruner(model, "ck", OneShot(0, 0.5)).attach(optimizer, steps_per_epoch=1)
    train(model, [optimizer], range(2))
    if when == "after":
        model[1] = torch.compile(model[1], backend="eager")
    assert set(pruner.masks) == {"1.body", "1.point"}
    assert [row.name for row in pruner.report().layers] == ["0.stem", "1.body", "1.point", "1.head"]
    other = copy.deepcopy(model)
    nn.init.ones_(other[1].body.weight)
    pruner.apply(other)
    assert int((other[1].body.weight == 0).sum()) == int((~pruner.masks["1.body"].keep).sum())
    campfire.save(tmp_path / "x.campfire", model, pruner)
    plain = nn.Sequential(net()[:3], net()[3:])
    campfire.load_(plain, tmp_path / "x.campfire", sparse=False)
    assert torch.equal(plain[1].body.weight, model[1].body.weight)


@pytest.mark.parametrize("when", ["before", "between"])
def test_channels_last(when):
    model = net()
    if when == "before":
        model = model.to(memory_format=torch.channels_last)
    _, optimizer, pruner = pruned(model)
    train(model, [optimizer], range(2))
    model.to(memory_format=torch.channels_last)
    train(model, [optimizer], range(2, 4))
    assert_true_to_masks(pruner, optimizer)
    assert model.body.weight.is_contiguous(memory_format=torch.channels_last)
    assert pruner.layers["body"].factor().stride() == model.body.weight.stride()


def test_the_masks_do_not_depend_on_the_memory_format():
    sums = []
    for layout in (torch.contiguous_format, torch.channels_last):
        _, optimizer, pruner = pruned(net().to(memory_format=layout))
        optimizer.step()
        sums.append({n: m.checksum() for n, m in pruner.masks.items()})
    assert sums[0] == sums[1]


@pytest.mark.parametrize("cls", [SGD, AdamW])
def test_bfloat16_weights(cls):
    model = net().bfloat16()
    optimizer = cls(model.parameters(), lr=0.01)
    pruner = Pruner(model, "ck", OneShot(0, 0.7)).attach(optimizer, steps_per_epoch=2)
    train(model, [optimizer], range(3))
    assert_true_to_masks(pruner, optimizer)
    assert model.body.weight.dtype == torch.bfloat16
    assert pruner.report().layers[1].kept_kernels == 128 - int(0.7 * 128)


@pytest.mark.parametrize("cast", [lambda m: m.double(), lambda m: m.to(torch.bfloat16)], ids=["double", "bfloat16"])
def test_cast_after_the_pruner_was_made(cast):
    model, optimizer, pruner = pruned()
    train(model, [optimizer], range(2))
    cast(model)
    optimizer.state.clear()  # what a change of dtype asks of the user
    train(model, [optimizer], range(2, 4))
    assert_true_to_masks(pruner, optimizer)


def test_autocast():
    model, optimizer, pruner = pruned()
    for step in range(3):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model, step)
        loss.backward()
        optimizer.step()
    assert_true_to_masks(pruner, optimizer)


def test_average_of_weights():
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    pruner = Pruner(model, "ck", OneShot(1, 0.7)).attach(optimizer, steps_per_epoch=2)
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    for step in range(4):
        train(model, [optimizer], [step])
        ema.update_parameters(model)
    assert not zeros(ema.module, pruner)  # the average remembers what died
    pruner.apply(ema)
    assert zeros(ema.module, pruner)
    assert pruner.masks["body"].keep.sum() == ema.module.body.weight.count_nonzero()


def test_apply_to_a_model_of_other_layers():
    model, optimizer, pruner = pruned()
    train(model, [optimizer], [0])
    with pytest.raises(UsageError, match=r"'body' with a weight of \(16, 8, 3, 3\)"):
        pruner.apply(nn.Sequential(nn.Conv2d(3, 8, 3)))
    wider = net()
    wider.point = nn.Conv2d(16, 32, 1)
    with pytest.raises(UsageError, match="'point'"):
        pruner.apply(wider)


def test_apply_after_the_weights_were_replaced():
    model, optimizer, pruner = pruned()
    train(model, [optimizer], [0])
    model.load_state_dict(net(seed=1).state_dict())
    assert not zeros(model, pruner)
    pruner.apply()
    assert zeros(model, pruner)


def test_two_pruners_on_different_layers():
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    one = Pruner(model, {"body": "ck"}, OneShot(0, 0.5)).attach(optimizer, steps_per_epoch=1)
    two = Pruner(model, {"head": "fine-fc"}, OneShot(0, 0.8)).attach(optimizer, steps_per_epoch=1)
    train(model, [optimizer], range(3))
    assert_true_to_masks(one, optimizer)
    assert_true_to_masks(two, optimizer)


def replaced_by_loading(model: nn.Module) -> None:
    model.load_state_dict(net(1).state_dict(), assign=True)


def replaced_by_parametrizing(model: nn.Module) -> None:
    nn.utils.parametrizations.weight_norm(model.body)


@pytest.mark.parametrize("replace", [replaced_by_loading, replaced_by_parametrizing])
def test_a_weight_that_was_replaced_is_not_left_unmasked_in_silence(replace):
    model, optimizer, pruner = pruned()
    train(model, [optimizer], [0])
    replace(model)
    with pytest.raises(
        CampfireError, match=r"'body' is another one now .* call detach\(\) before .* and attach\(\) after"
    ):
        train(model, [optimizer], [1])
    if replace is replaced_by_loading:
        pruner.detach()
        optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
        pruner.attach(optimizer, steps_per_epoch=2)
        train(model, [optimizer], [1])
        assert_true_to_masks(pruner, optimizer)
