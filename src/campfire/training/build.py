"""From a configuration to the objects of a run: data, model, optimizer, pruner."""

import dataclasses
import inspect
import math
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from campfire import data, models
from campfire.config import Config
from campfire.config.schema import Compute, Data
from campfire.data import ImageData
from campfire.errors import UnknownName, UsageError
from campfire.pruner import Pruner, targets
from campfire.sparsity import LayerSparsity, SparsityReport
from campfire.training import checkpoint
from campfire.training.optim import make_optimizer
from campfire.training.pruning import check_compress, check_reached, make_pruner

SMALL = 64  # pixels: up to here a 3x3 stem without pooling


@dataclasses.dataclass
class Parts:
    """What a run is made of."""

    config: Config
    data: ImageData
    device: torch.device
    model: nn.Module
    optimizer: torch.optim.Optimizer
    pruner: Pruner | None
    scaler: torch.amp.GradScaler  # pyright: ignore[reportPrivateImportUsage]
    ema: AveragedModel | None

    @property
    def final(self) -> nn.Module:
        """The model that is evaluated and kept: the average, where there is one."""
        return self.model if self.ema is None else self.ema.module

    @property
    def batches(self) -> int:
        """Training batches in an epoch."""
        return data.num_batches(self.data, "train", self.config.data.batch_size, train=True)

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.batches / self.config.optim.grad_accum_steps)

    @property
    def at_target(self) -> bool:
        """Whether masks will not change any more."""
        return self.pruner is None or self.pruner.frozen

    def report(self) -> SparsityReport:
        """What was asked of each layer, and what is true."""
        if self.pruner is not None:
            return self.pruner.report()
        found, _ = targets(self.model)
        rows = [LayerSparsity.dense(t.name, t.shape, "the run is dense", t.conv) for t in found]
        return SparsityReport(rows, sum(p.numel() for p in self.model.parameters()) - sum(r.weights for r in rows))


def build(config: Config) -> Parts:
    """Everything a run needs, seeded, before its first step.

    Raises:
        UsageError: something that was asked for is not there, or does not fit.
    """
    device = prepare(config.compute)
    images = load_data(config.data)
    config = with_model(config, images)
    seed(config.run.seed)
    model = make_model(config, len(images.classes), images.channels, images.image_size)
    if config.model.pretrained:
        file = Path(config.model.pretrained)
        checkpoint.fill(model, checkpoint.weights(file), str(file))
    model = placed(model, config.compute, device)
    optimizer = make_optimizer(model, config.optim)
    half = config.compute.amp and config.compute.amp_dtype == "float16"
    scaler = torch.amp.GradScaler(device.type, enabled=half)  # pyright: ignore[reportPrivateImportUsage]
    decay = get_ema_multi_avg_fn(config.optim.model_ema_decay)
    ema = AveragedModel(model, multi_avg_fn=decay, use_buffers=True) if config.optim.model_ema else None
    parts = Parts(config, images, device, model, optimizer, make_pruner(model, config), scaler, ema)
    check_compress(parts.pruner, config)
    if parts.pruner is not None:
        check_reached(parts.pruner, config.optim.epochs, parts.steps_per_epoch)
        parts.pruner.attach(optimizer, parts.steps_per_epoch)
    return parts


def prepare(compute: Compute) -> torch.device:
    """Set the process up, and find the device.

    Raises:
        UsageError: there is no such device here.
    """
    if compute.threads:
        torch.set_num_threads(compute.threads)
    if compute.deterministic:
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    name = compute.device if compute.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        line = str(error).partition("\n")[0]
        raise UsageError(f"there is no device {name!r} here ({line}); try --device auto") from None


def placed(model: nn.Module, compute: Compute, device: torch.device) -> nn.Module:
    """The model on its device, in its memory format."""
    layout: Any = torch.channels_last if compute.channels_last else torch.contiguous_format
    return model.to(device).to(memory_format=layout)  # pyright: ignore[reportCallIssue]


def seed(number: int) -> None:
    """Seed torch, numpy and Python."""
    torch.manual_seed(number)
    np.random.seed(number % 2**32)
    random.seed(number)


def load_data(settings: Data, source: str | None = None, **overrides: Any) -> ImageData:
    """The images that the settings name, or others under the same settings.

    Raises:
        UsageError: they are not there, or an option is unknown.
    """
    options = {"skip_bad_images": settings.skip_bad_images, **settings.options, **overrides}
    if settings.img_size is not None:
        options.setdefault("image_size", settings.img_size)
    known = [name for name, p in inspect.signature(data.load).parameters.items() if p.kind is p.KEYWORD_ONLY]
    for name in options:
        if name not in known:
            raise UnknownName("data option", name, known)
    return data.load(source or settings.source, **options)


def with_model(config: Config, images: ImageData) -> Config:
    """The configuration with a model that suits the images, where none was asked for."""
    if config.model.name is not None:
        return config
    few = len(images.train) < 5000
    name = "resnet18" if images.image_size > SMALL else "resnet8" if few else "resnet20"
    return config.model_copy(update={"model": config.model.model_copy(update={"name": name})})


def make_model(config: Config, classes: int, channels: int, image_size: int) -> nn.Module:
    """The model with fresh weights."""
    name = config.model.name or ""
    stem = {"small_input": image_size <= SMALL} if name in models.names() else {}  # others have the stem they have
    return models.create(name, num_classes=classes, in_channels=channels, **{**stem, **config.model.kwargs})
