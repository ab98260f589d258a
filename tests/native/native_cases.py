"""Scores that are hard to rank, and what torch makes of them."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from campfire.errors import CampfireError

SPECIAL = [0.0, -0.0, 1.0, 1.0, 0.5, math.inf, 1e-45, 1.1754944e-38, 3.4028235e38, 2.0, 1.0000001]
UGLY = [*SPECIAL, -1.0, -2.0, -math.inf, -1e-45, math.nan]


@st.composite
def scores(draw: st.DrawFn, values: list[float] = SPECIAL, largest: int = 200) -> tuple[Tensor, int, Tensor | None]:
    """Scores [n], a number to keep that selection takes, and who lives."""
    score = torch.tensor(draw(st.lists(st.sampled_from(values), min_size=2, max_size=largest)), dtype=torch.float32)
    alive = torch.tensor(draw(st.lists(st.booleans(), min_size=len(score), max_size=len(score))))
    living = None if draw(st.booleans()) else alive
    most = len(score) if living is None else int(alive.sum())
    return score, draw(st.integers(0, max(most, 0))), living


@st.composite
def rows(draw: st.DrawFn, values: list[float] = UGLY) -> tuple[Tensor, int, Tensor | None]:
    """Scores [n, t], a number to keep in each row, and who lives."""
    n, t = draw(st.integers(1, 150)), draw(st.sampled_from([1, 2, 3, 4, 5, 9, 16, 25, 64]))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    few = random.choice(np.array(draw(st.lists(st.sampled_from(values), min_size=1)), np.float32), (n, t))
    score = torch.from_numpy(np.where(random.random((n, t)) < 0.3, random.random((n, t)).astype(np.float32), few))
    alive = None if draw(st.booleans()) else torch.from_numpy(random.random((n, t)) < draw(st.floats(0, 1)))
    return score.float(), draw(st.integers(0, t + 1)), alive


BITS = [0, -(2**31), 1, 0x7F800000, 0x7F800001, 0x7FC00001, -1, 0x3F800000, 0x00800000, -0x800000]


def bits(n: int, seed: int) -> Tensor:
    """Any float there is, signalling NaN and denormals included."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-(2**31), 2**31, (n,), dtype=torch.int64, generator=generator).to(torch.int32)
    x[: len(BITS)] = torch.tensor(BITS, dtype=torch.int64).to(torch.int32)[:n]
    return x.view(torch.float32)


def by_torch(work: Callable[..., Tensor], *arguments: object) -> Tensor | str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAMPFIRE_NATIVE", "0")
        return outcome(work, *arguments)


def outcome(work: Callable[..., Tensor], *arguments: object) -> Tensor | str:
    try:
        return work(*arguments)
    except CampfireError as error:
        return str(error)


def same(a: Tensor | str, b: Tensor | str) -> bool:
    if isinstance(a, str) or isinstance(b, str):
        return a == b
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)


def threaded(threads: int, work: Callable[..., Tensor], *arguments: object) -> Tensor | str:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return outcome(work, *arguments)
    finally:
        torch.set_num_threads(before)
