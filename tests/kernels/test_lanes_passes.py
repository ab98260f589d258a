"""Lane kernels against float64: random layers, every pass, every flavour that this CPU runs."""

import contextlib
import random
from collections.abc import Iterator
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d

from campfire import native
from campfire.kernels.formats import empty as new
from campfire.kernels.formats import is_format, to_format
from campfire.kernels.lanes import passes as lanes
from campfire.kernels.lanes.index import Index
from campfire.kernels.lanes.plan import Geometry
from campfire.native.flavours import flavour_names


def chwn(x: Tensor) -> Tensor:
    return to_format(x, "chwn")


@contextlib.contextmanager
def poisoned() -> Iterator[None]:
    """New memory holds NaN, so that what a kernel does not write is seen."""
    empty, nan = torch.empty, float("nan")
    with (
        mock.patch.object(torch, "empty", lambda *a, **k: empty(*a, **k).fill_(nan)),
        mock.patch.object(lanes, "empty", lambda *a: new(*a).fill_(nan)),
    ):
        yield


@pytest.fixture(params=flavour_names())
def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Lanes of a register."""
    monkeypatch.setenv("CAMPFIRE_ISA", request.param)
    library = native.library("lanes")
    if library is None:
        pytest.skip("no compiler")
    return library.campfire_lanes_width()


def drawn(seed: int) -> tuple[Geometry, Tensor]:
    """A random layer and its mask: whole kernels or single weights, empty and full outputs, an empty input."""
    choice, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    taps = choice.choice([(3, 3)] * 4 + [(1, 1)] * 2 + [(5, 5), (7, 7), (2, 3), (3, 1), (1, 7), (4, 4)])
    padding, least = choice.choice([0, 1, 2, 3]), max(taps)
    images, inputs, outputs = (
        choice.choice([1, 2, 15, 16, 17, 32, 40]),
        choice.choice([1, 3, 8, 17]),
        choice.choice([1, 5, 16]),
    )
    size = [choice.randrange(max(1, least - 2 * padding), 16) for _ in range(2)]
    geometry = Geometry(images, inputs, *size, outputs, *taps, stride=choice.choice([1, 1, 2]), padding=padding)
    shape = (outputs, inputs, 1, 1) if choice.random() < 0.5 else (outputs, inputs, *taps)
    keep = (torch.rand(shape, generator=generator) < choice.choice([0.1, 0.3, 0.7, 1.0])).repeat(1, 1, 1, 1)
    keep = keep.expand(outputs, inputs, *taps).clone()
    keep[choice.randrange(outputs)] = choice.random() < 0.5
    keep[:, choice.randrange(inputs)] &= choice.random() < 0.5
    keep[0, 0, 0, 0] = True
    return geometry, keep


def agree(got: Tensor, exact: Tensor, dense: Tensor, name: str) -> None:
    limit = 6 * float((dense - exact).abs().max()) + 2e-6 * float(exact.abs().max())
    assert float((got - exact).abs().max()) <= limit, name


@pytest.mark.parametrize("seed", range(40))
def test_random_layers(width: int, seed: int) -> None:
    (geometry, keep), generator = drawn(seed), torch.Generator().manual_seed(seed)
    weight = torch.randn(keep.shape, generator=generator) * keep
    x = torch.randn(geometry.images, geometry.inputs, geometry.height, geometry.width, generator=generator)
    bias = torch.randn(geometry.outputs, generator=generator)
    dy = torch.randn(geometry.images, geometry.outputs, *geometry.out_size, generator=generator)
    index, value = Index(keep.flatten().nonzero()[:, 0], geometry, width), weight[keep]
    with poisoned():
        y = lanes.forward(chwn(x), index, value, bias)
        dx = lanes.d_input(chwn(dy), index, value)
        dv = lanes.d_values(chwn(x), chwn(dy), index)
    sizes = [geometry.stride] * 2, [geometry.padding] * 2, [1, 1], False, [0, 0], 1, [True, True, False]
    found = []
    for kind in (torch.float64, torch.float32):
        a, w, d = x.to(kind), weight.to(kind), dy.to(kind)
        out = conv2d(a, w, bias.to(kind), stride=geometry.stride, padding=geometry.padding)
        found.append((out, *torch.ops.aten.convolution_backward(d, a, w, None, *sizes)[:2]))
    for name, got, exact, dense in zip(("forward", "d_input"), (y, dx), found[0], found[1], strict=False):
        assert is_format(got, "chwn")
        agree(got, exact, dense, name)
    agree(dv, found[0][2][keep], found[1][2][keep], "d_values")


def test_threads_agree_bit_for_bit() -> None:
    if native.library("lanes") is None:
        pytest.skip("no compiler")
    (geometry, keep), before, found = drawn(3), torch.get_num_threads(), []
    index, value = Index(keep.flatten().nonzero()[:, 0], geometry), torch.randn(int(keep.sum()))
    x = chwn(torch.randn(geometry.images, geometry.inputs, geometry.height, geometry.width))
    dy = chwn(torch.randn(geometry.images, geometry.outputs, *geometry.out_size))
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(
                (lanes.forward(x, index, value), lanes.d_input(dy, index, value), lanes.d_values(x, dy, index))
            )
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
