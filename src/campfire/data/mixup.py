"""Mixup (Zhang et al., ICLR 2018): every image is blended with another one of its batch, and so are their losses."""

import numpy as np
import torch
from torch import Tensor

_STREAM = 0x6D6978  # apart from everything else that is drawn from (seed, epoch, batch)


def mix(x: Tensor, y: Tensor, alpha: float, *, seed: int, epoch: int, batch: int) -> tuple[Tensor, Tensor, float]:
    """``share * x + (1 - share) * x[order]``, the labels ``y[order]``, and the share, drawn from Beta(alpha, alpha).

    The loss to train by is ``share * loss(y) + (1 - share) * loss(y[order])``. A pure function of (seed, epoch, batch).

    >>> x, y = torch.arange(4.0).view(4, 1, 1, 1), torch.arange(4)
    >>> mixed, others, share = mix(x, y, 0.3, seed=0, epoch=0, batch=0)
    >>> bool(torch.allclose(mixed.flatten(), share * y + (1 - share) * others))
    True
    """
    drawn = np.random.default_rng((_STREAM, seed, epoch, batch))
    share = float(drawn.beta(alpha, alpha))
    order = torch.from_numpy(drawn.permutation(len(y))).to(x.device)
    return torch.empty_like(x).copy_(x.index_select(0, order)).lerp_(x, share), y[order], share
