"""Format, the interface of exports; and Subject, what is exported."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from campfire.compress import decompress_
from campfire.errors import CampfireError
from campfire.fusion.copying import copied
from campfire.pruner import Pruner

REGISTRY: dict[str, "Format"] = {}
MARGIN = 10  # times the error that float32 makes in torch itself


@dataclass(frozen=True)
class Subject:
    """A network, images that it takes, and what is known of them.

    ``mean`` and ``std`` are what pixels in [0, 1] were normalised by, channel by channel; empty where that is not known.
    """

    model: nn.Module
    images: Tensor  # [N, C, H, W]
    pruner: Pruner | None = None
    mean: Sequence[float] = ()
    std: Sequence[float] = ()
    classes: Sequence[str] = ()
    structure: str = ""

    def dense(self, pixels: bool = False) -> nn.Module:
        """A copy in evaluation mode, in float32 on the CPU, with ordinary layers and zeros where nothing lives.

        With ``pixels`` it takes pixels in [0, 1].

        Raises:
            UsageError: it holds tensors that torch cannot copy.
        """
        model = copied(self.model).cpu().float().eval()
        decompress_(model)
        model.requires_grad_(False)
        plain = model.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
        return Pixels(plain, self.mean, self.std) if pixels else plain

    def example(self, pixels: bool = False) -> Tensor:
        """Two images of its own, as `dense` takes them: float32, contiguous, on the CPU."""
        x = self.images[:2].detach().cpu().float().contiguous()
        x = torch.cat([x, x]) if len(x) == 1 else x
        return x * _column(self.std) + _column(self.mean) if pixels else x


class Pixels(nn.Module):
    """A network that normalises its images itself: pixels in [0, 1], [N, C, H, W]."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.model = model
        self.register_buffer("mean", _column(mean))
        self.register_buffer("std", _column(std))

    def forward(self, x: Tensor) -> Tensor:
        return self.model((x - self.mean) / self.std)


class Format(ABC):
    """A format that other programs read. A subclass with a ``name`` is registered by being defined."""

    name: ClassVar[str] = ""
    suffixes: ClassVar[tuple[str, ...]] = ()
    summary: ClassVar[str] = ""
    options: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if cls.name:
            REGISTRY[cls.name] = cls()

    def why_not(self, subject: Subject, path: Path) -> list[str]:
        """Reasons why it cannot hold this network at this path; [] when it can."""
        wrong = bool(self.suffixes) and path.suffix not in self.suffixes
        return [f"its files end in {' or '.join(self.suffixes)}; got {path.name!r}"] if wrong else []

    @abstractmethod
    def write(self, subject: Subject, path: Path, **options: Any) -> dict[str, Any]:
        """Write the file, whole or not at all; what was checked, and what is worth saying."""


def require_pixels(subject: Subject, pixels: bool) -> list[str]:
    """Why images cannot be normalised inside; [] when they can."""
    if not pixels or subject.mean:
        return []
    return ["--pixels (pixels=True) normalises images inside, and mean and deviation are not known of these"]


def difference(model: nn.Module, x: Tensor, run: Callable[[Tensor], Tensor], what: str) -> dict[str, float]:
    """The largest difference between what ``run`` and the model make of images, and how large logits are.

    Raises:
        CampfireError: it is more than `MARGIN` times what float32 itself loses, there is nothing to compare, or ``run`` fails.
    """
    with torch.no_grad():
        ours, exact = model(x), copy.deepcopy(model).double()(x.double())
    if not isinstance(ours, Tensor):
        raise CampfireError(
            f"{what} is compared with the network by one tensor, and this one returns a {type(ours).__name__}; export a module "
            "that returns its logits alone; nothing was written"
        )
    if not exact.isfinite().all():
        raise CheckFailed(
            f"{what} cannot be compared: the network itself makes logits that are not finite of its images; look for weights "
            "that are NaN or infinite; nothing was written"
        )
    theirs = _ran(run, x, what)
    largest = float(exact.abs().max())
    own, lost = float((ours - exact).abs().max()), float((theirs - exact).abs().max())
    found = {"max_abs_difference": float((theirs - ours).abs().max()), "largest_logit": largest}
    if not lost <= MARGIN * own + 1e-6 * largest:
        raise CheckFailed(
            f"{what} computes something else: a logit is off by {lost:.3g} (torch in float32: {own:.3g}, largest logit "
            f"{largest:.3g}); nothing was written"
        )
    return found


def _ran(run: Callable[[Tensor], Tensor], x: Tensor, what: str) -> Tensor:
    try:
        return run(x)
    except CampfireError:
        raise
    except Exception as error:  # those of other programs have no base of their own
        line = " ".join(str(error).split())
        raise CheckFailed(
            f"{what} cannot be run on images of shape {list(x.shape)}: {line}; nothing was written"
        ) from error


class CheckFailed(CampfireError):
    """What was written is not what was meant."""

    exit_code: ClassVar[int] = 4


def is_there(module: str) -> bool:
    """Whether a package is installed."""
    return find_spec(module) is not None


def _column(values: Sequence[float]) -> Tensor:
    return torch.tensor(list(values)).view(1, -1, 1, 1)
