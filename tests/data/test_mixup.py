"""Mixup: shares from a Beta distribution, pairs inside the batch, and the same again for the same step."""

import pytest
import torch

from campfire.data.mixup import mix


def images(n: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(n, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return x.contiguous(memory_format=torch.channels_last), torch.arange(n)


def test_images_and_labels_are_mixed_alike() -> None:
    x, y = images()
    mixed, others, share = mix(x, y, 1.0, seed=1, epoch=2, batch=3)
    assert sorted(others.tolist()) == y.tolist() != others.tolist()
    assert torch.allclose(mixed, share * x + (1 - share) * x[others])
    assert mixed.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(x, images()[0])


def test_a_step_decides_what_is_drawn() -> None:
    x, y = images()
    first, second = (mix(x, y, 0.3, seed=1, epoch=2, batch=3) for _ in range(2))
    assert torch.equal(first[0], second[0])
    shares = {mix(x, y, 0.3, seed=s, epoch=e, batch=b)[2] for s, e, b in ((1, 2, 3), (0, 2, 3), (1, 0, 3), (1, 2, 0))}
    assert len(shares) == 4


@pytest.mark.parametrize(("alpha", "variance"), [(0.3, 0.25 / 1.6), (1.0, 1 / 12), (8.0, 0.25 / 17)])
def test_shares_are_of_a_beta_distribution(alpha: float, variance: float) -> None:
    x, y = images(2)
    shares = torch.tensor([mix(x, y, alpha, seed=0, epoch=0, batch=b)[2] for b in range(2000)])
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.05)
    assert float(shares.var()) == pytest.approx(variance, rel=0.15)
