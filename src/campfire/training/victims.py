"""A trained network as an attack sees it: images in, logits out, normalisation and precision as in its run."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from campfire.config.schema import Compute
from campfire.data.batching import scale_and_offset
from campfire.errors import UsageError
from campfire.training.evaluation import Trained, autocast

RAW: float = 1 / 255  # a deviation that makes batches of the bytes themselves


@dataclass(frozen=True, eq=False)
class Normalisation:
    """``bytes * scale + offset``, exactly as batches are normalised; both [1, C, 1, 1]."""

    scale: Tensor
    offset: Tensor

    @classmethod
    def of(cls, trained: Trained, device: torch.device) -> "Normalisation":
        """The one that a network was trained with.

        Raises:
            UsageError: it is not known, or not one of its channels.
        """
        mean, std = trained.mean, trained.std
        if len(mean) != trained.channels or len(std) != trained.channels or min(std) <= 0:
            raise UsageError(
                f"the network was trained on {trained.channels} channels, and its normalisation is mean {list(mean)}, std "
                f"{list(std)}; without it an attack in pixels is impossible: train it with campfire train, which keeps it"
            )
        return cls(*scale_and_offset(tuple(mean), tuple(std), device))

    def of_bytes(self, raw: Tensor) -> Tensor:
        return raw * self.scale + self.offset


class Victim(nn.Module):
    """A network that takes images of one space.

    In ``pixel`` space values lie in [0, 1] and are normalised here; bytes divided by 255 give the very bits that evaluation
    sees. In ``normalised`` space images are what the network sees, and may be any that bytes can become.
    """

    def __init__(self, model: nn.Module, space: str, how: Normalisation, compute: Compute):
        super().__init__()
        self.model, self.pixel, self.how, self.compute = (
            model.eval().requires_grad_(False),
            space == "pixel",
            how,
            compute,
        )

    def images(self, raw: Tensor) -> Tensor:
        """Images of this space, from bytes as float32 [N, C, H, W]."""
        return raw / 255 if self.pixel else self.how.of_bytes(raw)

    @property
    def box(self) -> tuple[Any, Any]:
        """The smallest and the largest value of an image."""
        return (0.0, 1.0) if self.pixel else (self.how.offset, 255 * self.how.scale + self.how.offset)

    @property
    def ranges(self) -> list[float]:
        """How far apart these are, channel by channel."""
        return [1.0] * self.how.scale.numel() if self.pixel else (255 * self.how.scale).flatten().tolist()

    def forward(self, x: Tensor) -> Tensor:
        x = self.how.of_bytes(x * 255) if self.pixel else x
        layout = torch.channels_last if self.compute.channels_last else torch.contiguous_format
        with autocast(self.compute, x.device):
            return self.model(x.contiguous(memory_format=layout)).float()
