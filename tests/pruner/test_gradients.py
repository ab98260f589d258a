"""Gradients of dead weights are zero before anything reads them; and steps that GradScaler skips."""

import pytest
import torch
from pruner_nets import PRUNED, assert_true_to_masks, loss_of, net, same_shaped_state, train
from torch import nn
from torch.optim import SGD, Adam, AdamW

from campfire import Era, OneShot, Pruner
from campfire.methods.gradual import Gradual


def stepped() -> tuple[nn.Sequential, SGD, Pruner]:
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    pruner = Pruner(model, "ck", OneShot(0, 0.7)).attach(optimizer, steps_per_epoch=1)
    train(model, [optimizer], [0])
    return model, optimizer, pruner


def test_gradients_of_the_dead_are_zero_as_they_arrive():
    model, optimizer, pruner = stepped()
    optimizer.zero_grad()
    loss_of(model, 1).backward()
    for name, mask in pruner.masks.items():
        grad = model.get_submodule(name).weight.grad
        assert not grad[~mask.keep].any()
        assert grad[mask.keep].any()


def test_gradients_that_were_there_when_a_weight_died():
    """Whoever reads a gradient after the step (a log, a second optimizer's clipping) sees the sparse model."""
    model, _, pruner = stepped()
    for name, mask in pruner.masks.items():
        assert not model.get_submodule(name).weight.grad[~mask.keep].any()


def test_clipping_sees_the_survivors_only():
    model, optimizer, pruner = stepped()
    optimizer.zero_grad()
    loss_of(model, 1).backward()
    masks = {f"{name}.weight": mask.keep for name, mask in pruner.masks.items()}
    living = [p.grad[masks[n]] if n in masks else p.grad.flatten().clone() for n, p in model.named_parameters()]
    norm = nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
    torch.testing.assert_close(norm, torch.cat(living).norm())
    pruner.detach()
    optimizer.zero_grad()
    loss_of(model, 1).backward()
    assert nn.utils.clip_grad_norm_(model.parameters(), 1e-3) > norm  # without the hooks the dead count


def test_gradient_accumulation():
    model, optimizer, pruner = stepped()
    before = pruner.steps
    optimizer.zero_grad()
    for step in (1, 2, 3):
        loss_of(model, step).backward()
    for name, mask in pruner.masks.items():
        assert not model.get_submodule(name).weight.grad[~mask.keep].any()
    optimizer.step()
    assert pruner.steps == before + 1
    assert_true_to_masks(pruner, optimizer)


def test_autograd_grad_and_double_backward():
    model, _, pruner = stepped()
    weight, mask = model.body.weight, pruner.masks["body"]
    (grad,) = torch.autograd.grad(loss_of(model, 1), weight, create_graph=True)
    assert not grad[~mask.keep].any()
    model.zero_grad()
    grad.square().sum().backward()
    assert weight.grad[mask.keep].any()
    assert not weight.grad[~mask.keep].any()


def test_retain_graph():
    model, optimizer, pruner = stepped()
    optimizer.zero_grad()
    loss = loss_of(model, 1)
    loss.backward(retain_graph=True)
    once = model.body.weight.grad.clone()
    loss.backward()
    torch.testing.assert_close(model.body.weight.grad, 2 * once)
    assert not once[~pruner.masks["body"].keep].any()


def test_a_weight_that_is_frozen_now_and_trains_later():
    model = net()
    model.body.requires_grad_(False)
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    pruner = Pruner(model, "ck", OneShot(0, 0.5)).attach(optimizer, steps_per_epoch=2)
    assert not model.body.weight.requires_grad
    train(model, [optimizer], range(2))
    assert_true_to_masks(pruner)
    model.body.requires_grad_(True)
    optimizer.zero_grad()
    loss_of(model, 2).backward()
    assert not model.body.weight.grad[~pruner.masks["body"].keep].any()
    optimizer.step()
    assert_true_to_masks(pruner, optimizer)


@pytest.mark.parametrize(("cls", "path"), [(SGD, {}), (SGD, {"fused": True}), (AdamW, {}), (AdamW, {"fused": True})])
@pytest.mark.parametrize("unscale", [False, True])
def test_a_skipped_step_does_not_tick(cls, path, unscale):
    model = net()
    optimizer = cls(model.parameters(), lr=0.01, **path)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    pruner = Pruner(model, "ck", Era(0, 2, 0.75)).attach(optimizer, steps_per_epoch=3)
    ticks = []
    for step in range(10):
        optimizer.zero_grad()
        scaler.scale(loss_of(model, step)).backward()
        if step % 3 == 1:
            model.head.weight.grad[0, 0] = torch.inf
        if unscale:
            scaler.unscale_(optimizer)
        before = model.body.weight.detach().clone()
        scaler.step(optimizer)
        scaler.update()
        ticks.append(pruner.steps)
        if step % 3 == 1:
            assert torch.equal(before, model.body.weight)
        if pruner.masks:
            assert_true_to_masks(pruner)
    assert ticks == [1, 1, 2, 3, 3, 4, 5, 5, 6, 7]
    assert pruner.sparsity == 0.75


def test_learning_rate_schedulers_may_wrap_step():
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=20)
    pruner = Pruner(model, "ck", Era(0, 2, 0.75)).attach(optimizer, steps_per_epoch=3)
    for step in range(8):
        train(model, [optimizer], [step])
        scheduler.step()
    assert pruner.steps == 8
    assert_true_to_masks(pruner, optimizer)


def test_no_optimizer_state_is_made_up():
    """Looking at a weight's state must not create it: some optimizers initialise on an empty one."""
    model = net()
    model.point.requires_grad_(False)
    optimizer = Adam(model.parameters(), lr=0.01)
    Pruner(model, "ck", OneShot(0, 0.5)).attach(optimizer, steps_per_epoch=1)
    train(model, [optimizer], range(2))
    assert model.point.weight not in optimizer.state
    assert len(same_shaped_state(optimizer, model.body.weight)) == 2
    assert set(PRUNED) == {"body", "point"}


class Watching(Gradual):
    """Writes down when it is called."""

    def before_step(self, pruner, epoch):
        log.append(f"before {epoch}")

    def after_step(self, pruner, epoch):
        log.append(f"after {epoch}")


log: list[str] = []


@pytest.mark.parametrize("fused", [False, True])
def test_methods_do_not_see_a_skipped_step(fused):
    log.clear()
    model = net()
    optimizer = SGD(model.parameters(), lr=0.01, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    Pruner(model, "ck", Era(0, 2, 0.75), method=Watching()).attach(optimizer, steps_per_epoch=1)
    for step in range(3):
        optimizer.zero_grad()
        scaler.scale(loss_of(model, step)).backward()
        if step == 1:
            model.head.weight.grad[0, 0] = torch.inf
        scaler.step(optimizer)
        scaler.update()
    assert log == ["before 0.0", "after 0.0", "before 1.0", "after 1.0"]
