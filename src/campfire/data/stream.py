"""Images that do not fit into memory, decoded while training by the workers of a DataLoader."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from campfire.data.augment import CROP_DRAWS, central_part, random_part
from campfire.data.decode import fit, read_image
from campfire.data.keyed import uniforms
from campfire.data.sets import EncodedSet, ImageData
from campfire.errors import CampfireError

AHEAD = 2  # batches that each worker begins before they are asked for


@dataclass(frozen=True, eq=False)
class _Reader(Dataset[Tensor | CampfireError | None]):
    """Whole batches by their indices. An error is handed over as a value: raised in a worker it would lose its class
    and gain a traceback."""

    files: EncodedSet
    size: int
    channels: int
    seed: int
    epoch: int
    train: bool
    flip: bool
    large: bool
    slots: list[Tensor]  # uint8 [N, C, H, W]: where batches are decoded to, in turn
    sends: bool  # whether whoever takes a batch does not know where it lies

    def slot(self, number: int, size: int) -> Tensor:
        """Where a batch of this size lies."""
        return self.slots[number % len(self.slots)][:size]

    def __getitem__(self, job: tuple[int, np.ndarray]) -> Tensor | CampfireError | None:
        number, index = job
        batch = self.slot(number, len(index))
        draws = np.zeros((0, len(index)))
        if self.train and self.large:
            draws = uniforms(index, seed=self.seed, epoch=self.epoch, draws=CROP_DRAWS)
        try:
            for pixels, i, d in zip(batch.permute(0, 2, 3, 1).numpy(), index, draws.T, strict=True):
                pixels[:] = self._read(int(i), d)
            return batch if self.sends else None
        except CampfireError as error:
            return error

    def _read(self, index: int, draws: np.ndarray) -> np.ndarray:
        """uint8 [H, W, C]."""
        image = read_image(self.files, index, self.channels)
        if not self.large:
            image = fit(image, self.size)
        elif self.train:
            image = random_part(image, self.size, draws, self.flip)
        else:
            image = central_part(image, self.size)
        return np.atleast_3d(np.asarray(image))


def stream(
    files: EncodedSet, data: ImageData, order: list[np.ndarray], *, seed: int, epoch: int, train: bool, workers: int,
    device: torch.device, channels_last: bool = False,
) -> Iterator[tuple[Tensor, Tensor]]:  # fmt: skip
    """Batches of uint8 images and labels on the device; large images come augmented, small ones as they are.

    A batch stays as it is until the next one is taken, and no longer: workers write into memory that is shared with them
    once for an epoch, since memory shared anew for every batch costs them a tenth of their time.

    Raises:
        CampfireError: an image cannot be read, or the workers' batches find no room.
    """
    size = max(map(len, order), default=0)
    slots = _slots(min(len(order), AHEAD * workers + 2), size, data, channels_last, shared=workers > 0)
    pinned = device.type == "cuda"  # by a thread of the loader
    reader = _Reader(
        files, data.image_size, data.channels, seed, epoch, train, data.flip, data.pad is None, slots, pinned
    )
    # a generator of its own: by default every loader takes a number from the global one, which a resumed run must find
    # as the interrupted run left it
    loader = DataLoader(
        reader, batch_size=None, sampler=list(enumerate(order)), num_workers=workers,
        prefetch_factor=AHEAD if workers else None, pin_memory=pinned, generator=torch.Generator(),
    )  # fmt: skip
    for number, (index, sent) in enumerate(zip(order, loader, strict=True)):
        if isinstance(sent, CampfireError):
            raise sent
        x = reader.slot(number, len(index)) if sent is None else sent
        yield x.to(device, non_blocking=pinned), files.labels[torch.from_numpy(index)].to(device)


def _slots(count: int, size: int, data: ImageData, channels_last: bool, *, shared: bool) -> list[Tensor]:
    """Room for ``count`` batches of ``size`` images."""
    new = torch.UntypedStorage._new_shared if shared else torch.UntypedStorage
    shape = size, data.image_size, data.image_size, data.channels
    if not channels_last:
        shape = size, data.channels, data.image_size, data.image_size
    try:
        slots = [torch.empty(0, dtype=torch.uint8).set_(new(math.prod(shape))).view(shape) for _ in range(count)]
    except RuntimeError as error:
        wanted = count * math.prod(shape) / 1e6
        raise CampfireError(
            f"no room for {count} batches ({wanted:,.0f} MB) in the memory that workers share ({error}): take fewer workers "
            "or smaller batches, or give more of it (docker run --shm-size)"
        ) from error
    return [slot.permute(0, 3, 1, 2) for slot in slots] if channels_last else slots
