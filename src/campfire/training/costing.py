"""What a finished run costs, beside its accuracy: the files that reports read."""

import itertools

import torch
from torch import Tensor

from campfire import costs, data
from campfire.errors import CampfireError
from campfire.files.encoding import encode
from campfire.training.build import Parts
from campfire.training.progress import log
from campfire.training.run_directory import RunDirectory
from campfire.training.state import Position

IMAGES = 4  # whose activations are counted


def write_costs(parts: Parts, position: Position, folder: RunDirectory) -> None:
    """``costs.json``, as ``campfire cost --json`` prints it, and the plan of a compressed run as ``kernels.json``."""
    if position.plan is not None:
        folder.write_json("kernels.json", position.plan)
    try:
        found = _cost(parts)
    except CampfireError as error:
        log.warning("warning: the costs of this model cannot be counted: %s", error)
    else:
        folder.write_json("costs.json", found)


def _cost(parts: Parts) -> dict[str, object]:
    masks = {} if parts.pruner is None else parts.pruner.masks
    keep = {name: mask.keep for name, mask in masks.items()}
    shape = (parts.data.channels, parts.data.image_size, parts.data.image_size)
    return costs.cost(parts.final, shape, keep, _images(parts), mask_bytes=_mask_bytes).to_dict()


def _mask_bytes(keep: Tensor) -> int:
    """Of a mask in a packed file."""
    return encode(keep.cpu().numpy()).nbytes


def _images(parts: Parts) -> Tensor:
    """The first test images."""
    stream = data.batches(parts.data, "test", 1, epoch=0, seed=0, train=False, device=parts.device)
    return torch.cat([x for x, _ in itertools.islice(stream, IMAGES)])
