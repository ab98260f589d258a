"""Scores that are hard to rank."""

import math

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

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
