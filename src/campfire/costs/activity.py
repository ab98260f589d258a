"""What a network does with real images, layer by layer: zeros among activations, references, work."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from campfire.costs.macs import Hook, entering
from campfire.costs.references import Geometry, References, Seen
from campfire.errors import CampfireError
from campfire.naming import named_layers


@dataclass(frozen=True)
class Activity:
    """A layer's traffic for one image, on average."""

    inputs: float  # activations that enter
    active: float  # of these, not zero
    outputs: float
    references: References
    dense_references: References  # were all its weights alive
    by_output: Tensor  # products, float64 [K]
    by_input: Tensor  # products, float64 [C]

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

    The model runs in evaluation mode, image by image so that memory stays small, and is left as it was. A layer that ever
    makes another output than its options tell (its class pads by itself, say) is left out: what it sees is not known.

    Raises:
        CampfireError: there is no image.
    """
    if len(images) == 0:
        raise CampfireError("activations are counted on images; got none")
    found: dict[str, Activity | None] = {}
    modules = dict(named_layers(model))
    hooks = [
        modules[name].register_forward_hook(_counting(name, mask, found), with_kwargs=True)
        for name, mask in keep.items()
    ]
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
    return {name: total / len(images) for name, total in found.items() if total is not None}


def of_layer(keep: Tensor, x: Tensor, outputs: int, geometry: Geometry) -> Activity:
    """What one call of a layer does with an input; ``keep`` is bool [K, C / groups, R, S]."""
    seen = Seen.of(x, geometry)
    by_output, by_input = (work.double() for work in seen.work(keep))
    both = seen.references(keep), seen.references(torch.ones_like(keep))
    return Activity(x.numel(), int(x.count_nonzero()), outputs, *both, by_output, by_input)


def _counting(name: str, keep: Tensor, found: dict[str, Activity | None]) -> Hook:
    """Adds up in ``found``; None there, for good, of a layer that is not what its options tell."""

    def count(module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
        x, geometry, before = entering(inputs, keywords), Geometry.of(module), found.get(name)
        given_up = name in found and before is None
        if given_up or x is None or not isinstance(output, Tensor) or not geometry.makes(output, x, keep.shape):
            found[name] = None
            return
        now = of_layer(keep.to(output.device), x.detach(), output.numel(), geometry)
        found[name] = now if before is None else before + now

    return count
