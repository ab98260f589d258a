"""What a network does with real images, layer by layer: zeros among activations, references, work."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from campfire.costs.references import Geometry, References, Seen
from campfire.errors import CampfireError


@dataclass(frozen=True)
class Activity:
    """A layer's traffic for one image, on average."""

    inputs: float  # activations that enter
    active: float  # of these, not zero
    outputs: float
    references: References
    dense_references: References  # were all its weights alive
    by_output: Tensor  # products, float64 [K]
    by_input: Tensor  # products, float64 [C / groups]

    @property
    def density(self) -> float:
        """The fraction of the activations that enter and are not zero."""
        return self.active / self.inputs

    @property
    def work(self) -> tuple[Tensor, Tensor]:
        """Products by output and by input."""
        return self.by_output, self.by_input

    def __add__(self, other: "Activity") -> "Activity":
        return Activity(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def __truediv__(self, by: int) -> "Activity":
        return Activity(*(x / by for x in vars(self).values()))


@torch.no_grad()
def activity(model: nn.Module, keep: Mapping[str, Tensor], images: Tensor) -> dict[str, Activity]:
    """Of the layers that ``keep`` names, averages over ``images`` [N, C, H, W]; a layer that runs twice adds up.

    The model runs in evaluation mode, image by image so that memory stays small, and is left as it was.

    Raises:
        CampfireError: there is no image, or a layer's input is not what its mask is for.
    """
    if len(images) == 0:
        raise CampfireError("activations are counted on images; got none")
    found: dict[str, Activity] = {}
    hooks = [model.get_submodule(n).register_forward_hook(_counting(n, mask, found)) for n, mask in keep.items()]
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        for image in images:
            model(image[None])
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes.items():
            module.training = training
    return {name: total / len(images) for name, total in found.items()}


def of_layer(keep: Tensor, x: Tensor, outputs: int, geometry: Geometry) -> Activity:
    """What one call of a layer does with an input; ``keep`` is bool [K, C / groups, R, S]."""
    seen = Seen.of(x, geometry)
    by_output, by_input = (work.double() for work in seen.work(keep))
    both = seen.references(keep), seen.references(torch.ones_like(keep))
    return Activity(x.numel(), int(x.count_nonzero()), outputs, *both, by_output, by_input)


def _counting(
    name: str, keep: Tensor, found: dict[str, Activity]
) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        now = of_layer(keep.to(output.device), inputs[0].detach(), output.numel(), Geometry.of(module))
        found[name] = found[name] + now if name in found else now

    return count
