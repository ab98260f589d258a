"""Packed files beside the storage formula, on every structure's own masks."""

import numpy as np
import pytest
import torch

from campfire.bench.sizes import bench_sizes, storage_formula, text
from campfire.files.encoding import encode
from campfire.structures import REGISTRY, named


@pytest.mark.parametrize("structure", sorted(REGISTRY))
@pytest.mark.parametrize("sparsity", [0.5, 0.7, 0.9])
def test_never_more_than_a_twentieth_above_the_formula(structure: str, sparsity: float) -> None:
    spelled = named(structure)
    shape = (64, 64, 1, 1) if spelled.scope == "linear" else (64, 64, 3, 3)
    score = torch.rand(shape, generator=torch.Generator().manual_seed(2))
    plan = spelled.plan(score, sparsity)
    keep = spelled.project(score, spelled.count(shape, sparsity), plan, torch.ones(shape, dtype=torch.bool)).numpy()
    order = plan.get("order")
    order = None if order is None else order.numpy()
    for itemsize in (4, 1):
        packed = encode(keep, order).nbytes + int(keep.sum()) * itemsize
        assert packed <= 1.05 * storage_formula(keep, itemsize, order)


def test_random_gaps() -> None:
    for density in (0.01, 0.03, 0.1, 0.3, 0.6):
        keep = np.random.default_rng(0).random((64, 64, 1, 1)) < density
        assert encode(keep).nbytes + int(keep.sum()) <= 1.05 * storage_formula(keep, 1)


def test_a_network() -> None:
    found = bench_sizes("resnet8", ["ck", "fine"], 0.7)
    ck, fine = found["rows"]
    assert ck["share"]["packed"] < fine["share"]["packed"] < fine["share"]["csr"]
    assert ck["file"] < ck["dense_file"]
    assert all(name in text(found) for name in ("ck", "fine", "csr"))
