"""shrunk: what is left when whole outputs and inputs are gone, a smaller dense weight."""

from typing import Any

import torch
from torch import Tensor

from campfire.mask import Mask
from campfire.packed.base import Layout, Packed
from campfire.packed.checks import why_not_rising


class Shrunk(Layout):
    """``output`` int32 [k'] and ``input`` int32 [c']: the living ones, rising; ``value`` [k', c' R S].

    ::

              c  0 1 2 3
        k = 0   [. . . .]        output  1 2
            1   [1 . 2 3]        input   0 2 3        value  1 2 3
            2   [4 . 5 6]                                    4 5 6

    >>> from campfire.packed import pack
    >>> weight = torch.tensor([[0.0, 0, 0, 0], [1, 0, 2, 3], [4, 0, 5, 6]])[:, :, None, None]
    >>> parts = pack(weight, Mask(weight != 0), "shrunk").parts
    >>> parts["output"].tolist(), parts["input"].tolist(), parts["value"].int().tolist()
    ([1, 2], [0, 2, 3], [[1, 2, 3], [4, 5, 6]])
    """

    name = "shrunk"
    parts = {"output": (1, (torch.int32,)), "input": (1, (torch.int32,))}

    def why_not(self, mask: Mask, **options: Any) -> list[str]:
        outputs, inputs = _living(mask)
        box = int(outputs.sum()) * int(inputs.sum()) * mask.keep[0, 0].numel()
        dead = box - int(mask.keep.count_nonzero())
        return [f"{dead} of {box} weights between living outputs and inputs are dead"] if dead else []

    def indices(self, mask: Mask, **options: Any) -> dict[str, Tensor]:
        output, input = (alive.nonzero()[:, 0].to(torch.int32) for alive in _living(mask))
        return {"output": output, "input": input}

    def value_shape(self, packed: Packed) -> tuple[int, ...]:
        _, _, height, width = packed.shape
        return packed.parts["output"].numel(), packed.parts["input"].numel() * height * width

    def positions(self, packed: Packed) -> Tensor:
        _, inputs, height, width = packed.shape
        taps = height * width
        output, input = (packed.parts[part].long() for part in ("output", "input"))
        channels = input[:, None] * taps + torch.arange(taps, device=input.device)
        return (output[:, None] * (inputs * taps) + channels.flatten()).flatten()

    def why_bad_indices(self, packed: Packed) -> list[str]:
        output, input = packed.parts["output"], packed.parts["input"]
        if (output.numel() == 0) != (input.numel() == 0):
            return ["outputs without inputs, or inputs without outputs, are dead and not listed"]
        outputs, inputs = packed.shape[:2]
        return why_not_rising("output", output, outputs) or why_not_rising("input", input, inputs)


def _living(mask: Mask) -> tuple[Tensor, Tensor]:
    """Which outputs [K] and inputs [C] have a living weight."""
    kernels = mask.keep.flatten(2).any(2)
    return kernels.any(1), kernels.any(0)
