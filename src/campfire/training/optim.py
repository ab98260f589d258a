"""The optimizer, and the learning rate as a function of the step: nothing to save, nothing to get out of step."""

import math

import torch
from torch import nn

from campfire.config.schema import Optim


def make_optimizer(model: nn.Module, optim: Optim) -> torch.optim.Optimizer:
    """SGD, Adam or AdamW; vectors (norms, biases) have a weight decay of their own, 0 by default."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": optim.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": optim.norm_weight_decay},
    ]
    groups = [group for group in groups if group["params"]]
    lr = float(optim.lr or 0)
    if optim.opt == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=optim.momentum, nesterov=optim.nesterov and optim.momentum > 0)
    return (torch.optim.Adam if optim.opt == "adam" else torch.optim.AdamW)(groups, lr=lr)


def scaled(optim: Optim, images: int) -> Optim:
    """With the learning rate for so many images in a step, where it is meant for ``lr_base_size``: linearly more.

    >>> from campfire.config import Config
    >>> optim = Config().optim.model_copy(update={"lr": 0.1, "lr_base_size": 256})
    >>> scaled(optim, 1024).lr
    0.4
    """
    if optim.lr_base_size is None or optim.lr is None:
        return optim
    return optim.model_copy(update={"lr": optim.lr * images / optim.lr_base_size})


def learning_rate(optim: Optim, step: int, steps_per_epoch: int) -> float:
    """The learning rate of one step.

    All schedules rise linearly to ``lr`` over ``warmup_epochs``. Then *cosine* falls to ``min_lr`` at the end, *step*
    falls by ``decay_rate`` every ``decay_epochs`` or at ``decay_milestones``, *onecycle* falls as the cosine to lr /
    10,000, *constant* stays.

    >>> from campfire.config import Config
    >>> optim = Config().optim.model_copy(update={"lr": 0.4, "epochs": 4, "warmup_epochs": 1})
    >>> [round(learning_rate(optim, step, 10), 3) for step in (0, 9, 25, 39)]
    [0.04, 0.4, 0.2, 0.001]
    """
    peak, warmup = float(optim.lr or 0), (optim.warmup_epochs or 0) * steps_per_epoch
    if step < warmup:
        return peak * min(1.0, (step + 1) / warmup)
    if optim.sched == "constant":
        return peak
    if optim.sched == "step":
        return peak * optim.decay_rate ** _decays(optim, step, steps_per_epoch)
    floor = peak * 1e-4 if optim.sched == "onecycle" else optim.min_lr
    done = (step - warmup) / max(1.0, optim.epochs * steps_per_epoch - warmup)
    return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * done))


def _decays(optim: Optim, step: int, steps_per_epoch: int) -> int:
    """How often *step* has decayed by now."""
    if optim.decay_milestones is None:
        return math.floor(step / ((optim.decay_epochs or 1) * steps_per_epoch))
    return sum(step >= epoch * steps_per_epoch for epoch in optim.decay_milestones)
