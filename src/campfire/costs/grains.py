"""The grains of Mao et al. 2017: what share of the units of 0 to 3 dimensions is dead, and which grain a mask has.

fine (0-D)    single weights      kernel (2-D)  W[k, c, :, :]
vector (1-D)  W[k, c, r, :]       filter (3-D)  W[k, :, :, :]
"""

import math

from torch import Tensor

GRAINS = {"fine": 4, "vector": 3, "kernel": 2, "filter": 1}  # how many leading axes number the units


def unit_size(grain: str, shape: tuple[int, ...]) -> int:
    """Weights in a unit of a weight [K, C, R, S].

    >>> [unit_size(grain, (64, 32, 3, 5)) for grain in GRAINS]
    [1, 5, 15, 480]
    """
    return math.prod(shape[GRAINS[grain] :])


def sparsity_by_grain(keep: Tensor) -> dict[str, float]:
    """The fraction of units, by grain, in which nothing lives; ``keep`` is bool [K, C, R, S].

    >>> import torch
    >>> sparsity_by_grain(torch.tensor([True, False, False, True]).view(2, 2, 1, 1).expand(2, 2, 3, 3))
    {'fine': 0.5, 'vector': 0.5, 'kernel': 0.5, 'filter': 0.0}
    """
    living = {grain: _units(keep, grain).any(-1) for grain in GRAINS}
    return {grain: 1 - int(units.count_nonzero()) / units.numel() for grain, units in living.items()}


def whole_grain(keep: Tensor) -> str:
    """The largest grain whose units live or die as a whole: the fewest indices that describe a mask [K, C, R, S].

    A kernel of one weight is a single weight. "dense" where everything lives.

    >>> import torch
    >>> whole_grain(torch.tensor([True, False, False, True]).view(2, 2, 1, 1).expand(2, 2, 3, 3))
    'kernel'
    """
    if bool(keep.all()):
        return "dense"
    wide = [grain for grain in GRAINS if unit_size(grain, tuple(keep.shape)) > 1]
    whole = (grain for grain in reversed(wide) if _is_whole(_units(keep, grain)))
    return next(whole, "fine")


def _units(keep: Tensor, grain: str) -> Tensor:
    """[..., weights of a unit]"""
    return keep.reshape(*keep.shape[: GRAINS[grain]], -1)


def _is_whole(units: Tensor) -> bool:
    return bool((units.any(-1) == units.all(-1)).all())
