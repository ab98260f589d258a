import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from campfire.packed.tile import by_channel, largest_tile, living_tiles, tile_positions, why_not_uniform

CANDIDATES = [(k, c, whole) for k in (32, 16, 8, 4, 2, 1) for c in (4, 2, 1) for whole in (True, False)]
sizes = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3), st.integers(1, 3))


@given(
    tile=st.tuples(*[st.sampled_from([1, 2, 4, 8, 32])] * 2, *[st.integers(1, 2)] * 2),
    counts=st.tuples(*[st.integers(1, 3)] * 4),
    density=st.sampled_from([0.0, 0.2, 0.5, 0.95, 1.0]),
    seed=st.integers(0, 999),
)
def test_the_largest_tile_is_what_trying_all_of_them_finds(tile, counts, density: float, seed: int) -> None:
    keep = torch.rand(counts, generator=torch.Generator().manual_seed(seed)) < density
    for axis, size in enumerate(tile):
        keep = keep.repeat_interleave(size, axis)
    tried = [(k, c, *(keep.shape[2:] if whole else (1, 1))) for k, c, whole in CANDIDATES]
    best = max((t for t in tried if not why_not_uniform(keep, t)), key=lambda t: (math.prod(t), t[0]))
    assert largest_tile(keep) == best


@given(counts=st.tuples(*[st.integers(1, 3)] * 4), tile=st.tuples(*[st.integers(1, 3)] * 4), seed=st.integers(0, 999))
def test_positions_are_written_out(counts, tile, seed: int) -> None:
    """Against the definition, in loops."""
    shape = tuple(n * t for n, t in zip(counts, tile, strict=True))
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(shape[0], generator=generator)
    unit = (torch.rand(math.prod(counts), generator=generator) < 0.5).nonzero()[:, 0].to(torch.int32)
    numbers = torch.arange(math.prod(shape)).view(shape)
    wanted = []
    for a, b, d, e in (torch.unravel_index(u.long(), counts) for u in unit):
        wanted.append(
            [
                int(numbers[order[a * tile[0] + k], b * tile[1] + c, d * tile[2] + r, e * tile[3] + s])
                for r in range(tile[2])
                for s in range(tile[3])
                for c in range(tile[1])
                for k in range(tile[0])
            ]
        )
    assert tile_positions(shape, tile, unit, order).tolist() == wanted


@given(counts=st.tuples(*[st.integers(1, 4)] * 4), seed=st.integers(0, 999))
def test_back_sorts_by_channel_block_tap_and_row_group(counts, seed: int) -> None:
    keep = torch.rand(counts, generator=torch.Generator().manual_seed(seed)) < 0.5
    unit = living_tiles(keep, (1, 1, 1, 1))
    places = [tuple(int(i) for i in torch.unravel_index(u.long(), counts)) for u in unit]
    wanted = sorted(range(len(places)), key=lambda j: (*places[j][1:], places[j][0]))
    assert by_channel(unit, counts).tolist() == wanted


@pytest.mark.parametrize("tile", [(3, 1, 3, 3), (0, 1, 3, 3), (-4, 1, 3, 3), (4, 1, 3), (4, 1, 3, 3, 1), (16, 1, 3, 3)])
def test_tiles_that_do_not_divide(tile) -> None:
    assert "does not divide 8x4x3x3" in why_not_uniform(torch.ones(8, 4, 3, 3, dtype=torch.bool), tile)[0]


def test_half_alive_tiles_are_counted() -> None:
    keep = torch.zeros(8, 4, 1, 1, dtype=torch.bool)
    keep[:5] = True
    assert why_not_uniform(keep, (2, 2, 1, 1)) == ["2 of 8 tiles of 2x2x1x1 are half alive"]
