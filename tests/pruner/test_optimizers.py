"""Dead weights and their optimizer state are exactly zero after every step, whatever steps."""

import itertools

import pytest
import torch
from pruner_nets import assert_true_to_masks, loss_of, net, train
from torch.optim import SGD, Adam, AdamW, RMSprop

from campfire import Era, OneShot, Pruner

ERA = Era(0, 2, 0.75)  # 3 steps an epoch: tightens at steps 3 and 6

KINDS = {
    "sgd": (SGD, {"lr": 0.1}, 0),
    "momentum": (SGD, {"lr": 0.1, "momentum": 0.9}, 1),
    "nesterov": (SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}, 1),
    "adam": (Adam, {"lr": 0.01, "weight_decay": 1e-3}, 2),
    "amsgrad": (Adam, {"lr": 0.01, "amsgrad": True}, 3),
    "adamw": (AdamW, {"lr": 0.01, "weight_decay": 0.1}, 2),
    "adamw-amsgrad": (AdamW, {"lr": 0.01, "amsgrad": True}, 3),
}
PATHS = ({"foreach": False}, {"foreach": True}, {"fused": True})
CASES = [
    pytest.param(cls, {**kwargs, **path}, n, id=f"{name}-{'-'.join(k for k, v in path.items() if v) or 'loop'}")
    for (name, (cls, kwargs, n)), path in itertools.product(KINDS.items(), PATHS)
]
CASES += [
    pytest.param(RMSprop, {"lr": 1e-3, "momentum": 0.9, "centered": True, "foreach": f}, 3, id=f"rmsprop-{f}")
    for f in (False, True)
]


@pytest.mark.parametrize(("cls", "kwargs", "state_tensors"), CASES)
def test_every_step(cls, kwargs, state_tensors):
    model = net()
    optimizer = cls(model.parameters(), **kwargs)
    pruner = Pruner(model, "ck", ERA).attach(optimizer, steps_per_epoch=3)
    for step in range(10):
        train(model, [optimizer], [step])
        if step >= 3:
            assert_true_to_masks(pruner, optimizer, state_tensors=state_tensors)
    assert pruner.sparsity == 0.75
    assert pruner.frozen


def test_momentum_revives_what_a_masked_gradient_alone_would_protect():
    """Methods U-13: a masked weight with non-zero momentum stays exactly 0 after 10 steps."""
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    train(model, [optimizer], range(3))
    pruner = Pruner(model, "ck", OneShot(0, 0.7)).attach(optimizer, steps_per_epoch=3)
    train(model, [optimizer], [3])
    dead = {name: ~mask.keep for name, mask in pruner.masks.items()}
    for name, where in dead.items():
        weight = model.get_submodule(name).weight
        optimizer.state[weight]["momentum_buffer"][where] = 0.5  # as a dense checkpoint would bring it
    for step in range(10):
        train(model, [optimizer], [step])
        assert_true_to_masks(pruner, optimizer)


def test_weights_of_the_dead_are_zero_in_state_of_every_optimizer_as_soon_as_they_die():
    model = net()
    clock = SGD(model.stem.parameters(), lr=0.1, momentum=0.9)
    other = SGD([*model.body.parameters(), *model.point.parameters()], lr=0.1, momentum=0.9)
    pruner = Pruner(model, "ck", OneShot(1, 0.5)).attach([clock, other], steps_per_epoch=2)
    train(model, [other, clock], range(3))  # the clock steps last: `other` has stepped before the masks change
    assert_true_to_masks(pruner, clock, other)


def test_several_optimizers_are_one_clock():
    model = net()
    first = SGD([*model.stem.parameters(), *model.body.parameters()], lr=0.1, momentum=0.9)
    second = AdamW([*model.point.parameters(), *model.head.parameters()], lr=0.01)
    pruner = Pruner(model, "ck", ERA).attach((first, second), steps_per_epoch=3)
    for step in range(8):
        train(model, [first, second], [step])
        assert pruner.steps == step + 1
        if step >= 3:
            assert_true_to_masks(pruner, first, second)
    assert pruner.sparsity == 0.75


def test_an_optimizer_that_is_not_the_clock_may_step_more_often():
    model = net()
    slow, fast = SGD(model.body.parameters(), lr=0.1), Adam(model.point.parameters(), lr=0.1)
    pruner = Pruner(model, "ck", OneShot(0, 0.5)).attach([slow, fast], steps_per_epoch=4)
    for step in range(4):
        train(model, [slow, fast], [step])
        train(model, [fast], [step])
        assert_true_to_masks(pruner, slow, fast)
    assert pruner.steps == 4


def test_parameter_groups():
    model = net()
    decayed = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}], lr=0.01)
    pruner = Pruner(model, "ck", ERA).attach(optimizer, steps_per_epoch=3)
    for step in range(8):
        train(model, [optimizer], [step])
    assert pruner.steps == 8
    assert_true_to_masks(pruner, optimizer, state_tensors=2)


def test_a_group_added_later():
    model = net()
    optimizer = Adam(model.head.parameters(), lr=0.01)
    optimizer.add_param_group({"params": model.body.parameters()})
    pruner = Pruner(model, "ck", OneShot(0, 0.5)).attach(optimizer, steps_per_epoch=1)
    train(model, [optimizer], range(2))
    optimizer.add_param_group({"params": model.point.parameters()})
    train(model, [optimizer], range(2, 5))
    assert_true_to_masks(pruner, optimizer, state_tensors=2)


@pytest.mark.parametrize("name", ["Adagrad", "Adadelta", "NAdam", "RAdam", "Adamax", "Rprop", "ASGD"])
def test_the_other_optimizers_of_torch(name):
    model = net()
    optimizer = getattr(torch.optim, name)(model.parameters(), lr=0.01)
    pruner = Pruner(model, "ck", OneShot(0, 0.7)).attach(optimizer, steps_per_epoch=1)
    train(model, [optimizer], range(4))
    assert_true_to_masks(pruner, optimizer)


def test_an_optimizer_with_a_closure():
    model = net()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)
    pruner = Pruner(model, "ck", OneShot(0, 0.7)).attach(optimizer, steps_per_epoch=1)

    def closure():
        optimizer.zero_grad()
        loss = loss_of(model, 0)
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
        assert_true_to_masks(pruner)
    assert pruner.steps == 3  # evaluations inside a step are not steps


class FloatMomentum(torch.optim.Optimizer):
    """State in float32 for weights in bfloat16, as mixed-precision optimizers keep it."""

    def __init__(self, params):
        super().__init__(params, {})

    @torch.no_grad()
    def step(self, closure=None):
        for p in (p for g in self.param_groups for p in g["params"]):
            state = self.state[p]
            state["momentum"] = 0.9 * state.get("momentum", 0.0) + p.grad.float()
            state["rows"] = p.grad.float().flatten(1).sum(1) if p.dim() > 1 else p.grad.float()
            p.sub_(0.01 * state["momentum"])


def test_state_of_another_dtype_and_shape():
    model = net().bfloat16()
    optimizer = FloatMomentum(model.parameters())
    pruner = Pruner(model, "ck", OneShot(0, 0.7)).attach(optimizer, steps_per_epoch=1)
    train(model, [optimizer], range(4))
    assert_true_to_masks(pruner, optimizer, state_tensors=1)
    assert optimizer.state[model.body.weight]["momentum"].dtype == torch.float32
    assert optimizer.state[model.body.weight]["rows"].shape == (16,)
