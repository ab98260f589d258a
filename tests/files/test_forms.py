"""Structures are found by what they allow, and the tightest one is named."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from campfire.files.forms import choices, forms
from campfire.structures import named

TIGHTEST = {
    "ck": "kernel", "kernel": "kernel", "vector": "vector", "fine": "fine", "filter": "filter",
    "window": "window", "window:mode=mixed": "window:mode=mixed", "combined": "combined", "2:4": "nm:n=2,m=4",
    "tiles": "tiles:rows=32,channels=4", "tiles:rows=16,channels=1": "tiles:rows=16,channels=1",
    "block": "tiles:rows=4,channels=4", "hrbp:rows=16,channels=1": "hrbp:rows=16,channels=1,inputs=neighbours",
    "hrbp++": "hrbp++:rows=32,channels=1,inputs=neighbours,taps=4",
    "pattern:book=fixed4": "pattern:book=auto:4,entries=4,size=3", "fine-fc": "fine",
}  # fmt: skip


@pytest.mark.parametrize("structure", TIGHTEST)
def test_the_tightest_structure(structure: str) -> None:
    spelled = named(structure)
    shape = (64, 32, 1, 1) if spelled.scope == "linear" else (64, 32, 3, 3)
    score = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    plan = spelled.plan(score, 0.7)
    keep = spelled.project(score, spelled.count(shape, 0.7), plan, torch.ones(shape, dtype=torch.bool))
    found = forms(keep.numpy())
    assert found[0].name == TIGHTEST[structure]
    assert found[-1].name == "fine" or structure == "2:4"
    assert all(a.bits <= b.bits for a, b in itertools.pairwise(found))


def test_dense_and_empty() -> None:
    assert [f.name for f in forms(np.ones((4, 4, 3, 3), bool))] == ["dense"]
    assert [f.name for f in forms(np.zeros((4, 4, 3, 3), bool))] == ["empty"]


def test_one_weight_that_moves_changes_the_answer() -> None:
    keep = np.zeros((16, 8, 3, 3), bool)
    keep[np.arange(16), np.arange(16) % 8] = True
    assert forms(keep)[0].name == "kernel"
    keep[0, 0, 1, 1] = False
    assert forms(keep)[0].name != "kernel"
    assert "kernel" not in [form.name for form in forms(keep)]


@given(n=st.integers(1, 300), k=st.integers(0, 300))
@settings(max_examples=30)
def test_choices(n: int, k: int) -> None:
    k = min(k, n)
    assert math.isclose(choices(n, k), math.log2(math.comb(n, k)), rel_tol=1e-9, abs_tol=1e-6)
