"""Holding images out for the test, the same share of every class, always the same ones."""

import numpy as np

from campfire.data.keyed import permutation
from campfire.errors import UsageError


def stratified(labels: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Sorted positions of the images that stay, and of the ``ceil(share * N)`` that are held out.

    Every class gives its share, rounded so that the total is met (largest remainders first), and at least one image
    goes to each side. Which ones depends on the labels alone, not on the seed of a run.

    Raises:
        UsageError: ``share`` is not between 0 and 1, or a class has fewer than two images.

    >>> stay, held = stratified(np.array([0, 0, 0, 0, 1, 1, 1, 1]), 0.25)
    >>> len(stay), np.array([0, 0, 0, 0, 1, 1, 1, 1])[held].tolist()
    (6, [0, 1])
    """
    if not (isinstance(share, float | int) and 0 < share < 1):
        raise UsageError(f"val_split is the share of the images to hold out, between 0 and 1; got {share!r}")
    counts = np.bincount(labels)
    if (lonely := np.flatnonzero(counts == 1)).size:
        raise UsageError(f"val_split needs two images of every class; class number {lonely[0]} has one")
    quota = counts * share
    wanted = np.floor(quota).astype(np.int64)
    by_remainder = np.argsort(wanted - quota, kind="stable")
    wanted[by_remainder[: int(np.ceil(round(len(labels) * share, 9))) - wanted.sum()]] += 1
    wanted = np.clip(wanted, np.minimum(1, counts), np.maximum(counts - 1, 0))
    held = [np.flatnonzero(labels == c)[permutation(n, seed=c)[: wanted[c]]] for c, n in enumerate(counts.tolist())]
    chosen = np.sort(np.concatenate(held))
    return np.setdiff1d(np.arange(len(labels)), chosen), chosen
