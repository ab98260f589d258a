"""What one image costs in multiply-accumulates, dense and sparse (floor 3).

Only convolutions and linear layers are counted, as `torch.utils.flop_counter` does; batch normalisation, activations,
pooling and biases are not. A FLOP count is twice the MACs. Sparse layers of a compressed model count as the dense ones they
stand for; they bring their masks along.
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from campfire.errors import CampfireError, DoesNotFit, UnknownName
from campfire.naming import as_written, bare, by_layer, named_layers
from campfire.packed import Packed


def layer_macs(
    model: nn.Module, input_shape: Sequence[int], keep: Mapping[str, Tensor] | None = None
) -> dict[str, int]:
    """Multiply-accumulates of one image, by name of the convolution or linear layer, in order of first use.

    Names are those that pruners give: without what ``torch.compile``, DDP and averages put into them.
    A weight is used once per output position, so a layer costs weights x positions; a layer named in ``keep`` costs
    its living weights x positions, and where ``keep`` is given, were it empty, compressed layers cost theirs. The model
    itself is not run: neither its mode, statistics, gradients nor hooks are touched.

    Args:
        model: any module that maps one batch of images to a result.
        input_shape: the shape of one image, [channels, height, width], without the batch.
        keep: which weights live, by layer name: non-zero or True, in the weight's shape ([K, C] or [K, C, 1, 1] for a
            linear layer).

    Raises:
        CampfireError: the model cannot run on such an image.
        UnknownName: ``keep`` names something that is no counted layer.
        DoesNotFit: a mask has not as many entries as its layer has weights.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 4 * 4, 10))
    >>> layer_macs(net, (3, 4, 4))
    {'0': 3456, '2': 1280}
    >>> layer_macs(net, (3, 4, 4), keep={"2": torch.eye(10, 128)})
    {'0': 3456, '2': 10}
    """
    layers = _weights_and_positions(model, input_shape)
    packed = {n: packed_of(m) for n, m in named_layers(model) if n in layers and keep is not None}
    living = {name: p.parts["value"].numel() for name, p in packed.items() if p is not None}
    living |= {name: _living(name, mask, layers) for name, mask in by_layer(model, keep or {}).items()}
    return {name: living.get(name, weights) * positions for name, (weights, positions) in layers.items()}


def macs(model: nn.Module, input_shape: Sequence[int]) -> int:
    """Multiply-accumulates of one image in all convolutions and linear layers; arguments as for `layer_macs`.

    >>> macs(nn.Conv2d(64, 64, 3, groups=64, bias=False), (64, 10, 10))  # depthwise: 9 weights x 8 x 8 x 64 channels
    36864
    """
    return sum(layer_macs(model, input_shape).values())


def flops(model: nn.Module, input_shape: Sequence[int]) -> int:
    """Floating-point operations of one image: a multiplication and an addition per MAC.

    >>> flops(nn.Linear(100, 10), (100,))
    2000
    """
    return 2 * macs(model, input_shape)


def sparse_macs(model: nn.Module, keep: Mapping[str, Tensor], input_shape: Sequence[int]) -> int:
    """Multiply-accumulates of one image that touch a living weight; a layer that ``keep`` leaves out is dense, or what it
    is compressed to.

    >>> net = nn.Conv2d(16, 32, 1)
    >>> sparse_macs(net, {"": torch.arange(32 * 16).view(32, 16, 1, 1) < 100}, (16, 5, 5))
    2500
    """
    return sum(layer_macs(model, input_shape, keep).values())


def _living(name: str, mask: Tensor, layers: Mapping[str, tuple[int, int]]) -> int:
    if name not in layers:
        raise UnknownName("convolution or linear layer run by the model", name, layers)
    weights, _ = layers[name]
    if mask.numel() != weights:
        raise DoesNotFit(
            f"a mask {list(mask.shape)}", f"layer {name!r}", [f"it has {mask.numel()} entries for {weights} weights"]
        )
    return int(mask.count_nonzero())


def _weights_and_positions(model: nn.Module, input_shape: Sequence[int]) -> dict[str, tuple[int, int]]:
    model = bare(model)
    twin = _meta_twin(model).eval()
    found: dict[str, tuple[int, int]] = {}
    for name, module in named_layers(twin):
        if isinstance(module, (_ConvNd, nn.Linear)) or packed_of(module) is not None:
            module.register_forward_hook(_counter(name, found), with_kwargs=True)
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    try:
        with torch.no_grad(), torch.device("meta"), as_written():
            twin(torch.empty(1, *input_shape, dtype=dtype))
    except Exception as error:  # a model's own code may raise anything, an assertion without words among it
        raise CampfireError(
            f"cannot count: {type(model).__name__} does not run on one image of shape {list(input_shape)}: "
            f"{str(error) or type(error).__name__}\n"
            "An image is [channels, height, width], as the model takes it; a path that depends on pixels has no count."
        ) from error
    return found


Hook = Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], None]  # after a forward pass, with its keywords


def _counter(name: str, found: dict[str, tuple[int, int]]) -> Hook:
    def count(module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
        weight: Tensor | Packed = packed_of(module) or module.weight  # pyright: ignore[reportAssignmentType]
        shape = tuple(weight.shape)
        # A transposed convolution, [C, K, R, S], spreads its weights from every input position.
        image = entering(inputs, keywords) if getattr(module, "transposed", False) else next(_tensors(output), None)
        assert image is not None, f"layer {name!r} takes, or returns, no tensor whose positions could be counted"
        positions = image.numel() // shape[0]
        found[name] = math.prod(shape), positions + found.get(name, (0, 0))[1]

    return count


def entering(inputs: tuple[Any, ...], keywords: Mapping[str, Any]) -> Tensor | None:
    """What a layer was called on: its first argument, or the one called ``input`` or ``x``; None where that is no tensor."""
    given = [*inputs, *(keywords[name] for name in ("input", "x") if name in keywords)]
    return given[0] if given and isinstance(given[0], Tensor) else None


def is_linear(module: nn.Module) -> bool:
    """Whether it is a linear layer, sparse or not."""
    return isinstance(module, nn.Linear) or hasattr(module, "in_features")


def packed_of(module: nn.Module) -> Packed | None:
    """The weight of a sparse layer, whose class stands on a floor above."""
    found = getattr(module, "packed", None)
    return found if isinstance(found, Packed) else None


def _meta_twin(model: nn.Module) -> nn.Module:
    """A deep copy without data or hooks: its tensors are on the meta device, and nothing of the user's runs in it."""
    memo: dict[int, object] = {}
    for module in model.modules():
        attributes = vars(module)
        plain = [value for name, value in attributes.items() if name != "_modules"]
        for value in _tensors(plain):
            memo[id(value)] = value.detach().to("meta")
        for name, value in attributes.items():
            if name.endswith("_hooks"):
                memo[id(value)] = type(value)()
    return copy.deepcopy(model, memo)


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in lists, tuples and dicts of them, whatever their depth."""
    ahead, seen = [value], set()
    while ahead:
        if isinstance(value := ahead.pop(), Tensor):
            yield value
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))  # a list may hold itself
            ahead += reversed(list(value.values()) if isinstance(value, dict) else value)
