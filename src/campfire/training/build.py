"""From a configuration to the objects of a run: data, model, optimizer, pruner."""

import dataclasses
import inspect
import math
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from campfire import data, models
from campfire.config import Config, from_flags, load
from campfire.config.schema import Compute, Data, Optim
from campfire.data import ImageData
from campfire.errors import UnknownName, UsageError
from campfire.pruner import Pruner, targets
from campfire.sparsity import LayerSparsity, SparsityReport
from campfire.training import checkpoint
from campfire.training.optim import make_optimizer, scaled
from campfire.training.pruning import check_compress, check_reached, make_pruner
from campfire.training.ranks import ALONE, Ranks

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
    ranks: Ranks
    optim: Optim  # the configuration's, its learning rate scaled

    @property
    def final(self) -> nn.Module:
        """The model that is evaluated and kept: the average, where there is one."""
        return self.model if self.ema is None else self.ema.module

    @property
    def batches(self) -> int:
        """Training batches of this process in an epoch."""
        size, ranks = self.config.data.batch_size, self.ranks
        return data.num_batches(self.data, "train", size, train=True, world=ranks.world, rank=ranks.rank)

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.batches / self.config.optim.grad_accum_steps)

    def stream(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's training batches of an epoch, from a batch on."""
        config, ranks = self.config, self.ranks
        return data.batches(
            self.data, "train", config.data.batch_size, epoch=epoch, seed=config.run.seed, train=True,
            start_batch=start, device=self.device, workers=config.data.workers,
            channels_last=config.compute.channels_last, rank=ranks.rank, world=ranks.world,
        )  # fmt: skip

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


def images_per_step(config: Config, ranks: Ranks) -> int:
    """Of all processes."""
    return config.data.batch_size * config.optim.grad_accum_steps * ranks.world


def build(config: Config, ranks: Ranks = ALONE) -> Parts:
    """Everything a run needs, seeded, before its first step.

    Raises:
        UsageError: something that was asked for is not there, or does not fit.
    """
    device = prepare(config.compute, ranks)
    if config.compute.sync_bn and device.type != "cuda":
        raise UsageError(f"--sync-bn works on GPUs only, and this run is on {device.type}; leave it out")
    images = load_data(config.data)
    config = with_model(config, images)
    seed(config.run.seed)
    model = make_model(config, len(images.classes), images.channels, images.image_size)
    if config.model.pretrained:
        file = Path(config.model.pretrained)
        checkpoint.fill(model, checkpoint.weights(file), str(file))
    if config.compute.sync_bn and ranks.several:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    model = placed(model, config.compute, device)
    optim = scaled(config.optim, images_per_step(config, ranks))
    optimizer = make_optimizer(model, optim)
    half = config.compute.amp and config.compute.amp_dtype == "float16"
    scaler = torch.amp.GradScaler(device.type, enabled=half)  # pyright: ignore[reportPrivateImportUsage]
    decay = get_ema_multi_avg_fn(config.optim.model_ema_decay)
    ema = AveragedModel(model, multi_avg_fn=decay, use_buffers=True) if config.optim.model_ema else None
    pruner = make_pruner(model, config)
    parts = Parts(config, images, device, model, optimizer, pruner, scaler, ema, ranks, optim)
    check_compress(parts.pruner, config)
    if parts.pruner is not None:
        check_reached(parts.pruner, config.optim.epochs, parts.steps_per_epoch)
        parts.pruner.attach(optimizer, parts.steps_per_epoch)
    if not ranks.first:
        seed(config.run.seed + 1_000_003 * ranks.rank)  # equal weights, and noise of its own
    return parts


def prepare(compute: Compute, ranks: Ranks = ALONE) -> torch.device:
    """Set the process up, and find its device: a GPU of its own where it is one of several.

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
    name = _own_gpu(name, ranks) if name.startswith("cuda") and ranks.several else name
    try:
        device = torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        line = str(error).partition("\n")[0]
        raise UsageError(f"there is no device {name!r} here ({line}); try --device auto") from None
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def _own_gpu(name: str, ranks: Ranks) -> str:
    if name != "cuda":
        raise UsageError(
            f"--device {name} would be shared by {ranks.world} processes; give --device cuda: one for each"
        )
    if ranks.local >= (there := torch.cuda.device_count()):
        raise UsageError(f"process {ranks.local + 1} of this machine has no GPU ({there} here); lower --nproc-per-node")
    return f"cuda:{ranks.local}"


def compute_settings(**compute: Any) -> Compute:
    """The settings for a device, each checked as in a configuration: ``device``, ``threads``; None is the default.

    Raises:
        UsageError: one is out of range.
    """
    return load(from_flags({name: value for name, value in compute.items() if value is not None}))[0].compute


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
