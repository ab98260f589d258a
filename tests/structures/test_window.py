"""What is particular to windows: thinning, mixed budgets, layers that follow CK."""

import pytest
import torch

from campfire.mask import Mask
from campfire.structures import named
from campfire.structures.window import is_windowed, thin


def test_thin_takes_the_best_next_weights_and_kills_no_kernel() -> None:
    score = torch.rand(6, 5, 3, 3, generator=torch.Generator().manual_seed(0))
    alive = torch.ones(score.shape, dtype=torch.bool)
    alive[2, 3] = False  # a kernel that an earlier era removed
    keep = thin(score, 29 * 4 + 7, alive, alive.sum((2, 3)).flatten())
    held = keep.sum((2, 3))
    assert held[2, 3] == 0
    assert int((held == 5).sum()) == 7
    assert int((held == 4).sum()) == 22
    fifth = score.flatten(2).sort(2, descending=True).values[..., 4]
    fifth[2, 3] = -1
    assert set(fifth.flatten().topk(7).indices.tolist()) == set((held == 5).flatten().nonzero().flatten().tolist())


def test_mixed_meets_the_target_that_plain_windows_round() -> None:
    shape = (40, 30, 3, 3)
    assert 1 - named("window").count(shape, 0.7) / 10_800 == pytest.approx(7 / 9)
    assert 1 - named("window:mode=mixed").count(shape, 0.7) / 10_800 == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("shape", "windowed"),
    [((8, 8, 1, 1), False), ((8, 8, 3, 3), True), ((8, 8, 5, 5), True), ((8, 8, 7, 7), False), ((8, 8, 1, 7), True)],
)
def test_which_layers_are_windowed(shape: tuple[int, ...], windowed: bool) -> None:
    assert is_windowed(shape) == windowed
    same = all(named("window").count(shape, t / 50) == named("ck").count(shape, t / 50) for t in range(50))
    assert same != windowed


def test_dead_kernels_are_legal_only_after_a_ck_era() -> None:
    keep = torch.ones(2, 2, 3, 3, dtype=torch.bool)
    keep[0, 0] = False
    assert "dead" in named("window").why_invalid(Mask(keep))[0]
    assert named("window:dead_kernels=true").why_invalid(Mask(keep)) == []
