"""Copies of the model and of the pruner, pickles, and what is left of a pruner that goes."""

import copy
import gc
import io
import pickle
import warnings
import weakref

import torch
from pruner_nets import assert_true_to_masks, loss_of, pruned, train, zeros
from torch.optim import SGD


def test_deepcopy_is_free_of_the_pruner():
    model, optimizer, pruner = pruned()
    train(model, [optimizer], range(2))
    twin = copy.deepcopy(model)
    assert zeros(twin, pruner)
    loss_of(twin, 0).backward()
    assert twin.body.weight.grad[~pruner.masks["body"].keep].any()  # the copy is an ordinary dense model
    assert model.body.weight.grad is not twin.body.weight.grad
    train(model, [optimizer], range(2, 4))
    assert_true_to_masks(pruner, optimizer)


def test_deepcopy_and_pickle_of_the_optimizer():
    model, optimizer, pruner = pruned()
    train(model, [optimizer], range(2))
    twin, clone = copy.deepcopy((model, optimizer))
    train(twin, [clone], [2])
    assert pruner.steps == 2  # the copy does not drive the clock
    pickle.loads(pickle.dumps(optimizer))


def test_pickle_and_torch_save():
    model, optimizer, pruner = pruned()
    train(model, [optimizer], range(2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns of tensors with hooks
        twin = pickle.loads(pickle.dumps(model))
        buffer = io.BytesIO()
        torch.save(model.state_dict(), buffer)
    assert zeros(twin, pruner)
    assert type(twin) is type(model)
    assert b"campfire" not in pickle.dumps(model)
    assert b"campfire" not in buffer.getvalue()


def test_detach_takes_every_hook_off():
    model, optimizer, pruner = pruned()
    train(model, [optimizer], range(2))
    pruner.detach()
    pruner.detach()
    train(model, [optimizer], range(2, 4))
    assert not zeros(model, pruner)
    assert pruner.steps == 2
    pruner.attach(optimizer, steps_per_epoch=2)
    train(model, [optimizer], [4])
    assert_true_to_masks(pruner, optimizer)
    assert pruner.steps == 3


def test_a_detached_pruner_keeps_nothing_alive():
    model, optimizer, pruner = pruned()
    train(model, [optimizer], range(2))
    gone = weakref.ref(pruner)
    pruner.detach()
    del pruner
    gc.disable()
    try:
        assert gone() is None  # by counting alone: no cycle is left
    finally:
        gc.enable()
    train(model, [optimizer], [2])


def test_dropped_while_attached():
    model, optimizer, pruner = pruned()
    train(model, [optimizer], range(2))
    watched = weakref.ref(model), weakref.ref(pruner)
    del model, optimizer, pruner
    gc.collect()
    assert [w() for w in watched] == [None, None]


def test_a_copy_of_model_and_pruner_trains_on_its_own():
    model, optimizer, pruner = pruned()
    train(model, [optimizer], range(2))
    for twin, own in (copy.deepcopy((model, pruner)), pickle.loads(pickle.dumps((model, pruner)))):
        second = SGD(twin.parameters(), lr=0.1, momentum=0.9)
        own.attach(second, steps_per_epoch=2)
        train(twin, [second], range(2, 5))
        assert_true_to_masks(own, second)
        assert (own.steps, pruner.steps) == (5, 2)
