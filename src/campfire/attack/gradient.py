"""FGSM and PGD: images moved along the gradient of the loss."""

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from campfire.attack.norms import NORMS, Norm

Model = Callable[[Tensor], Tensor]  # images [N, C, H, W] to logits [N, classes]
Box = tuple[Tensor | float, Tensor | float]  # the smallest and the largest value of an image, perhaps [1, C, 1, 1]


def fgsm(model: Model, x: Tensor, y: Tensor, eps: float, *, norm: str = "linf", box: Box = (0.0, 1.0)) -> Tensor:
    """One step of length ``eps`` up the gradient of the cross entropy (Goodfellow et al. 2015, arXiv 1412.6572).

    Args:
        model: images [N, C, H, W] to logits; in evaluation mode, and with its normalisation inside if ``x`` is in [0, 1].
        y: the right classes, int64 [N].
        eps: in the units of ``x``.
        norm: ``linf`` or ``l2``.
        box: the smallest and the largest value of an image.

    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)).eval()
    >>> x = torch.full((1, 1, 2, 2), 0.5)
    >>> bool(((fgsm(net, x, torch.tensor([0]), 0.1) - x).abs() - 0.1 < 1e-6).all())
    True
    """
    return next(fgsm_each(model, x, y, [eps], norm=norm, box=box))


def fgsm_each(
    model: Model, x: Tensor, y: Tensor, eps: Sequence[float], *, norm: str = "linf", box: Box = (0.0, 1.0)
) -> Iterator[Tensor]:
    """`fgsm` of each length: all of them step along the one gradient at ``x``."""
    direction = NORMS[norm].direction(input_gradient(model, x, y))
    for length in eps:
        yield _within(x + length * direction, box)


def pgd(
    model: Model, x: Tensor, y: Tensor, eps: float, *, norm: str = "linf", box: Box = (0.0, 1.0), steps: int = 10,
    step_size: float | None = None, restarts: int = 1, start: str = "random", keys: Sequence[int] | None = None,
) -> Tensor:  # fmt: skip
    """Steps up the gradient, each brought back into the ball of radius ``eps`` (Madry et al. 2018, arXiv 1706.06083).

    Images that are still classified rightly are tried again up to ``restarts`` times in all.

    Args:
        model, y, eps, norm, box: as for `fgsm`.
        step_size: of one step; default: 2.5 eps / steps.
        start: ``random``, anywhere in the ball, or ``image``; further restarts are random in any case.
        keys: a number for each image, which decides its random starts; default: its position.
    """
    length = 2.5 * eps / steps if step_size is None else step_size
    numbers = torch.arange(len(x)) if keys is None else torch.tensor(keys)
    ball, found = NORMS[norm], x.clone()
    left = torch.ones(len(x), dtype=torch.bool, device=x.device)
    for restart in range(restarts):
        where, label = x[left], y[left]
        noise = _noise(ball, where, numbers[left.cpu()], restart) if restart or start == "random" else 0.0
        moved = _within(where + eps * noise, box)
        for _ in range(steps):
            moved = moved + length * ball.direction(input_gradient(model, moved, label))
            moved = _within(where + ball.project(moved - where, eps), box)
        found[left] = moved
        if restart + 1 < restarts:
            left = right(model, found, y)
            if not left.any():
                break
    return found


def input_gradient(model: Model, x: Tensor, y: Tensor) -> Tensor:
    """The gradient of the summed cross entropy by the images; every image's own, whatever else is in the batch."""
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        loss = F.cross_entropy(model(x), y, reduction="sum")
        return torch.autograd.grad(loss, x)[0]


@torch.no_grad()
def right(model: Model, x: Tensor, y: Tensor) -> Tensor:
    """Which images are classified rightly, bool [N]; ties, which bfloat16 has, go as in evaluation."""
    return model(x).topk(1).indices[:, 0] == y


def _within(x: Tensor, box: Box) -> Tensor:
    low, high = (torch.as_tensor(bound, dtype=x.dtype, device=x.device) for bound in box)
    return torch.minimum(torch.maximum(x, low), high)


def _noise(norm: Norm, x: Tensor, keys: Tensor, restart: int) -> Tensor:
    """A starting point for each image that depends on its key and the restart alone, on any device."""
    starts = [norm.draw(x.shape[1:], torch.Generator().manual_seed(key * 1_000_003 + restart)) for key in keys.tolist()]
    return torch.stack(starts).to(x)
