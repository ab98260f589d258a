"""Structures of fully connected layers: no output dies, whatever the scores."""

import math

import pytest
import torch

from campfire.structures import named


@pytest.mark.parametrize("structure", ["fine-fc", "block:n=2", "two-tier:n=2"])
def test_infinite_scores_do_not_outweigh_what_must_not_die(structure: str) -> None:
    score = torch.rand(8, 8, 1, 1)
    score[4:] = math.inf  # of equal scores the first die first: those are the guarded ones above
    shape, chosen = tuple(score.shape), named(structure)
    keep = chosen.project(score, chosen.count(shape, 0.7), chosen.plan(score, 0.7), torch.ones(shape, dtype=torch.bool))
    assert keep.flatten(1).any(1).all()
    assert int(keep.sum()) == chosen.count(shape, 0.7)
