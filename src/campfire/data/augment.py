"""Random changes to training images: each a pure function of (seed, epoch, index of the image)."""

import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from campfire.data.decode import fit
from campfire.data.keyed import uniforms

_ATTEMPTS = 10
CROP_DRAWS = 4 * _ATTEMPTS + 1


def shift_and_flip(x: Tensor, index: np.ndarray, *, seed: int, epoch: int, pad: int, flip: bool) -> Tensor:
    """Shift each image of uint8 [N, C, H, W] by up to ``pad`` pixels over black, and mirror half of them.

    ``index`` [N] says which images these are. One gather moves the whole batch.

    >>> x = torch.arange(2 * 9, dtype=torch.uint8).view(2, 1, 3, 3)
    >>> tuple(shift_and_flip(x, np.array([7, 8]), seed=0, epoch=0, pad=1, flip=True).shape)
    (2, 1, 3, 3)
    """
    n, channels, height, width = x.shape
    down, right, coin = uniforms(index, seed=seed, epoch=epoch, draws=3)
    rows = np.arange(height) + np.floor(down * (2 * pad + 1)).astype(np.int64)[:, None]
    columns = np.arange(width) + np.floor(right * (2 * pad + 1)).astype(np.int64)[:, None]
    if flip:
        columns = np.where(coin[:, None] < 0.5, columns[:, ::-1], columns)
    source = torch.from_numpy(rows * (width + 2 * pad)).to(x.device)[:, :, None]
    source = (source + torch.from_numpy(columns).to(x.device)[:, None, :]).view(n, 1, -1).expand(-1, channels, -1)
    return F.pad(x, [pad] * 4).flatten(2).gather(2, source).view(x.shape)


def random_part(image: Image.Image, size: int, draws: np.ndarray, flip: bool) -> Image.Image:
    """A random part of the image, scaled to ``size``, mirrored half of the time; ``draws`` are `CROP_DRAWS` numbers."""
    image = image.crop(crop_box(*image.size, draws[:-1])).resize((size, size), Image.Resampling.BILINEAR)
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip and draws[-1] < 0.5 else image


def crop_box(width: int, height: int, draws: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of 8 to 100 % of the area at aspect 3/4 to 4/3 (Szegedy et al., CVPR 2015, section 6).

    A part that does not fit is drawn again, ten times; then it is the largest central one.

    >>> crop_box(100, 50, np.zeros(40))
    (0, 0, 17, 23)
    """
    for area, aspect, x, y in draws.reshape(-1, 4):
        pixels = width * height * (0.08 + 0.92 * area)
        ratio = math.exp(math.log(3 / 4) + aspect * math.log(16 / 9))
        w, h = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(x * (width - w + 1)), int(y * (height - h + 1))
            return left, top, left + w, top + h
    w, h = min(width, max(1, round(height * 4 / 3))), min(height, max(1, round(width * 4 / 3)))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def central_part(image: Image.Image, size: int) -> Image.Image:
    """What is tested: the centre of ``size`` pixels, once the shorter side is 256/224 of that."""
    return fit(image, size, round(size * 256 / 224))
