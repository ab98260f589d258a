"""Batches of normalised images, in an order that (seed, epoch) decide."""

import functools
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from campfire.data.augment import shift_and_flip
from campfire.data.sets import EncodedSet, ImageData, ImageSet, MemorySet
from campfire.data.stream import stream
from campfire.errors import UsageError


def num_batches(data: ImageData, split: str, batch_size: int, *, train: bool, world: int = 1, rank: int = 0) -> int:
    """How many batches `batches` yields in an epoch.

    Training leaves the last, smaller batch out unless it is the only one. In evaluation rank 0 has the most batches.
    """
    return len(_indices(data.part(split), batch_size, epoch=0, seed=0, train=train, rank=rank, world=world))


def batches(
    data: ImageData, split: str, batch_size: int, *, epoch: int, seed: int, train: bool, start_batch: int = 0,
    rank: int = 0, world: int = 1, device: torch.device | str = "cpu", workers: int = 0, channels_last: bool = False,
) -> Iterator[tuple[Tensor, Tensor]]:  # fmt: skip
    """The images x, float32 [N, C, H, W] normalised, and their labels y, int64 [N], batch by batch.

    Training shuffles by (seed, epoch) and augments each image by (seed, epoch, its index): what a step sees does not
    depend on ``workers`` or on where the run was resumed, and the ranks together see what one process would see with
    batches of ``batch_size * world``. Evaluation takes every image once, in order, without padding: ranks may get one
    image more or less.

    Args:
        split: ``"train"`` or ``"test"``.
        batch_size: images in a batch of one rank, at least 1.
        train: shuffle, augment, and leave out the last batch if it is smaller and not the only one.
        start_batch: begin with this batch, as if those before had been taken.
        rank, world: this process, of how many.
        workers: processes that decode streamed images; images in memory need none.
        channels_last: yield x in this memory format.

    Raises:
        UsageError: a number out of its range, or fewer training images than ranks.
        CampfireError: an image cannot be read.

    >>> from campfire.data import load
    >>> x, y = next(batches(load("digits"), "train", 64, epoch=0, seed=0, train=True))
    >>> tuple(x.shape), tuple(y.shape)
    ((64, 1, 32, 32), (64,))
    """
    images = data.part(split)
    if start_batch < 0 or workers < 0:
        raise UsageError(f"start_batch and workers must be at least 0; got {start_batch} and {workers}")
    order = _indices(images, batch_size, epoch=epoch, seed=seed, train=train, rank=rank, world=world)[start_batch:]
    device = torch.empty(0, device=device).device  # "cuda" becomes the device that it means
    if isinstance(images, MemorySet):
        raw = _from_memory(images.on(device), order)
    elif isinstance(images, EncodedSet):
        how = {"seed": seed, "epoch": epoch, "train": train, "workers": workers}
        raw = stream(images, data, order, **how, device=device, channels_last=channels_last)
    else:
        raise TypeError(f"images in memory or in files were wanted; got {type(images).__name__}")
    finish = functools.partial(_finish, data, seed=seed, epoch=epoch, train=train, channels_last=channels_last)
    return ((finish(x, index), y) for index, (x, y) in zip(order, raw, strict=True))


def _indices(
    images: ImageSet, batch_size: int, *, epoch: int, seed: int, train: bool, rank: int, world: int
) -> list[np.ndarray]:
    """Which images make up each batch of this rank."""
    size = len(images)
    if batch_size < 1 or not 0 <= rank < world:
        raise UsageError(f"wanted batch_size >= 1 and 0 <= rank < world; got {batch_size}, rank {rank} of {world}")
    if not train:
        mine = np.arange(rank, size, world)
        return [mine[at : at + batch_size] for at in range(0, len(mine), batch_size)]
    if size < world:
        raise UsageError(f"{size} training images cannot be shared by {world} processes; use at most {size}")
    together = min(batch_size * world, size)
    order = images.order(seed, epoch)
    return [order[at : at + together][rank::world] for at in range(0, size - together + 1, together)]


def _from_memory(images: MemorySet, order: list[np.ndarray]) -> Iterator[tuple[Tensor, Tensor]]:
    for index in order:
        where = torch.from_numpy(index).to(images.pixels.device)
        yield images.pixels.index_select(0, where), images.labels.index_select(0, where)


@functools.lru_cache(maxsize=8)
def scale_and_offset(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """(x / 255 - mean) / std as x * scale + offset."""
    m, s = (torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1) for values in (mean, std))
    return (1 / (255 * s)).float().to(device), (-m / s).float().to(device)


def _finish(
    data: ImageData, x: Tensor, index: np.ndarray, *, seed: int, epoch: int, train: bool, channels_last: bool
) -> Tensor:
    """Augment, in uint8, what is not augmented yet, and normalise."""
    if train and data.pad is not None:
        x = shift_and_flip(x, index, seed=seed, epoch=epoch, pad=data.pad, flip=data.flip)
    x = x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    return _normalised(x, *scale_and_offset(data.mean, data.std, x.device))


def _normalised(x: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    """uint8 to float32, in the memory format that it has."""
    x = x.float()
    if x.is_contiguous():
        return x.mul_(scale).add_(offset)
    # along whole rows: three channels at a time take ten times as long
    rows, width = x.permute(0, 2, 3, 1).flatten(2), x.shape[3]
    rows.mul_(scale.flatten().repeat(width)).add_(offset.flatten().repeat(width))
    return x
