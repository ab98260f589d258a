"""Images that do not fit into memory, decoded while training by the workers of a DataLoader."""

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


@dataclass(frozen=True, eq=False)
class _Reader(Dataset[Tensor | CampfireError]):
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
    layout: torch.memory_format

    def __getitem__(self, index: np.ndarray) -> Tensor | CampfireError:
        draws = np.zeros((0, len(index)))
        if self.train and self.large:
            draws = uniforms(index, seed=self.seed, epoch=self.epoch, draws=CROP_DRAWS)
        try:
            read = np.stack([self._read(int(i), d) for i, d in zip(index, draws.T, strict=True)])
            # here, and not where the network waits: nothing if channels come last, as Pillow has them
            return torch.from_numpy(read).permute(0, 3, 1, 2).contiguous(memory_format=self.layout)
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

    Raises:
        CampfireError: an image cannot be read.
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    reader = _Reader(files, data.image_size, data.channels, seed, epoch, train, data.flip, data.pad is None, layout)
    pinned = device.type == "cuda"
    # a generator of its own: by default every loader takes a number from the global one, which a resumed run must find
    # as the interrupted run left it
    loader = DataLoader(
        reader, batch_size=None, sampler=order, num_workers=workers, pin_memory=pinned, generator=torch.Generator()
    )
    for index, x in zip(order, loader, strict=True):
        if isinstance(x, CampfireError):
            raise x
        yield x.to(device, non_blocking=pinned), files.labels[torch.from_numpy(index)].to(device)
