import numpy as np
import pytest
import torch
from image_files import noise
from PIL import Image
from torch.nn import functional as F

from campfire.data.augment import CROP_DRAWS, central_part, crop_box, random_part, shift_and_flip
from campfire.data.keyed import uniforms


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("shape", "pad"), [((40, 3, 32, 32), 4), ((40, 1, 5, 9), 2), ((40, 2, 6, 6), 0)])
def test_shift_and_flip_image_by_image(shape: tuple[int, ...], pad: int, flip: bool) -> None:
    x, index = torch.from_numpy(noise(*shape)), np.arange(100, 140)
    out = shift_and_flip(x, index, seed=3, epoch=1, pad=pad, flip=flip)
    assert out.dtype == torch.uint8
    draws = uniforms(index, seed=3, epoch=1, draws=3)
    for image, changed, (down, right, coin) in zip(x, out, draws.T, strict=True):
        top, left = int(down * (2 * pad + 1)), int(right * (2 * pad + 1))
        wanted = F.pad(image, [pad] * 4)[:, top : top + shape[2], left : left + shape[3]]
        assert torch.equal(changed, wanted.flip(2) if flip and coin < 0.5 else wanted)


def test_every_shift_and_both_sides_occur() -> None:
    x = torch.zeros(2000, 1, 9, 9, dtype=torch.uint8)
    x[:, :, 4, 4], x[:, :, 4, 5] = 1, 2
    out = shift_and_flip(x, np.arange(2000), seed=0, epoch=0, pad=2, flip=True)
    places = (out == 1).flatten(1).int().argmax(1)
    assert len(places.unique()) == 25
    mirrored = (out.flatten(1)[torch.arange(2000), places - 1] == 2).float().mean()
    assert 0.45 < mirrored < 0.55


def test_crop_boxes_follow_the_recipe() -> None:
    draws = uniforms(np.arange(2000), seed=0, epoch=0, draws=40).T
    boxes = np.array([crop_box(500, 375, d) for d in draws])
    left, top, right, bottom = boxes.T
    assert left.min() == 0
    assert top.min() == 0
    assert right.max() == 500
    assert bottom.max() == 375
    width, height = right - left, bottom - top
    share, aspect = width * height / (500 * 375), width / height
    assert 0.078 < share.min() < 0.1
    assert 0.95 < share.max() <= 1.0
    assert 0.74 < aspect.min() < 0.76
    assert 1.31 < aspect.max() < 1.35


@pytest.mark.parametrize(("size", "box"), [((1000, 10), (493, 0, 506, 10)), ((10, 1000), (0, 493, 10, 506))])
def test_a_part_that_never_fits_is_central(size: tuple[int, int], box: tuple[int, ...]) -> None:
    assert crop_box(*size, np.full(40, 0.999)) == box


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (2, 3)])
def test_tiny_images_have_parts(size: tuple[int, int]) -> None:
    for draws in uniforms(np.arange(50), seed=0, epoch=0, draws=CROP_DRAWS).T:
        assert random_part(Image.new("RGB", size), 8, draws, flip=True).size == (8, 8)


def test_random_part_is_mirrored_by_its_last_draw() -> None:
    image = Image.fromarray(noise(20, 20, 3))
    draws = np.full(CROP_DRAWS, 0.5)
    right = np.asarray(random_part(image, 8, draws, flip=True))
    draws[-1] = 0.49
    assert np.array_equal(np.asarray(random_part(image, 8, draws, flip=True)), right[:, ::-1])
    assert np.array_equal(np.asarray(random_part(image, 8, draws, flip=False)), right)


@pytest.mark.parametrize("size", [(300, 400), (400, 300), (256, 256), (100, 90)])
def test_central_part(size: tuple[int, int]) -> None:
    """Shorter side to 256, then the centre: a white centre on black stays in the middle."""
    pixels = np.zeros((size[1], size[0]), np.uint8)
    y, x = size[1] // 4, size[0] // 4
    pixels[y : size[1] - y, x : size[0] - x] = 255
    out = np.asarray(central_part(Image.fromarray(pixels), 224)) > 127
    assert out.shape == (224, 224)
    for axis, length in ((0, size[0]), (1, size[1])):
        bright = np.flatnonzero(out.any(axis))
        assert abs(bright[0] - (223 - bright[-1])) <= 1
        assert abs(len(bright) - 256 / min(size) * (length - 2 * (length // 4))) <= 2
