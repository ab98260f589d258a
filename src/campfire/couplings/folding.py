"""Folding: what a layer adds up from constant inputs moves into its bias, and the weights that read them go."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.fx import Node

from campfire.couplings.constants import BATCH_NORM, LAYERS, Constant, State, along_channels, aten, propagate, why_lost
from campfire.couplings.reading import Reading, read, result, summed
from campfire.couplings.tracing import Traced, argument, label, packet, shape
from campfire.errors import DoesNotFit, UnknownName
from campfire.mask import Mask, view4

_PLAIN = (nn.Linear.forward, nn.Conv1d.forward, nn.Conv2d.forward, nn.Conv3d.forward)
_BORDER = "zero padding: the border of the image does not see this constant"
_LAST = "the last living input of an output stays"


@dataclass(frozen=True)
class DeadChannel:
    """One output channel that is constant, and one reader of it.

    ``value`` is the constant as the reader sees it; ``freed`` counts the reader's weights that went; ``reason`` says why
    some, or all, stay (None: the reader no longer reads this channel). A channel with two readers has two entries.
    """

    layer: str
    channel: int
    value: float
    consumer: str
    reason: str | None = None
    freed: int = 0


class Folding:
    """One walk along the calls; each layer finds its inputs settled, so one walk reaches the fixed point.

    The model stays as it is until `commit`.
    """

    def __init__(self, traced: Traced, masks: Mapping[str, Mask] | None = None):
        self.traced, self.masks = traced, masks
        self._require_fitting()
        self.channels: list[DeadChannel] = []
        self.removed: dict[str, Tensor] = {}  # layer -> bool, shaped as its weight
        self.new_biases: dict[str, Tensor] = {}
        self._edits: dict[Node, Tensor] = {}
        self._state: State = dict(traced.tensors)
        self._origins: list[tuple[str, int]] = []  # what `Constant.source` numbers
        for node in traced.nodes:
            self._visit(node)

    def commit(self) -> None:
        """Write the edits into the model's own tensors."""
        for node, tensor in self._edits.items():
            self.traced.tensors[node].copy_(tensor)
        for layer, bias in self.new_biases.items():
            module = self.traced.modules[layer]
            module.bias = nn.Parameter(bias, requires_grad=module.get_parameter("weight").requires_grad)

    def changed_masks(self) -> dict[str, Mask]:
        """The masks, with the removed weights dead, of the layers that lost any."""
        masks, changed = self.masks or {}, {}
        for layer, removed in self.removed.items():
            old = masks.get(layer) or Mask(torch.ones_like(view4(removed)))
            changed[layer] = replace(old, keep=old.keep & ~view4(removed).to(old.keep.device))
        return changed

    def _require_fitting(self) -> None:
        """A mask that no layer finds would leave its layer without one, and nothing of it would be dead."""
        modules = self.traced.modules
        for name, mask in (self.masks or {}).items():
            weight = _weight(modules.get(name))
            if weight is None:
                raise UnknownName("layer with a weight", name, [n for n in modules if _weight(modules[n]) is not None])
            wanted, given = list(view4(weight).shape), list(mask.keep.shape)
            if wanted != given:
                raise DoesNotFit(f"a mask {given}", f"layer {name!r}", [f"a mask of its weight is {wanted}"])

    def _visit(self, node: Node) -> None:
        if packet(node) in LAYERS and argument(node, "weight") in self.traced.tensors:
            known = self._layer(node)
        else:
            known = propagate(node, self._state) if node.op == "call_function" else None
            self._report_lost(node, known)
        if known is not None:
            self._state[node] = along_channels(known, node)

    def _layer(self, node: Node) -> Constant | None:
        x = self._state.get(argument(node, "input"))
        if isinstance(x, Constant) and (x := summed(node, x)) is None:
            self._report_lost(node, None)
        weight, layer = self.traced.tensors[argument(node, "weight")], self._layer_name(node)
        reading = read(node, weight, self._living(layer, weight), x if isinstance(x, Constant) else None)
        fold, refusal = self._fold(node, layer, reading)
        if isinstance(x, Constant):
            self._report_layer(layer, x, reading, fold, refusal)
        return self._output(node, layer, reading, reading.alive & ~fold)

    def _layer_name(self, node: Node) -> str:
        """The module's name; a weight that is not called ``weight`` adds its own, for no mask is meant for it."""
        weight = argument(node, "weight")
        module, attribute = self.traced.owner(weight)
        return module if attribute == "weight" else f"{module}.{attribute}"

    def _living(self, layer: str, weight: Tensor) -> Tensor:
        """With masks, a weight that happens to be zero lives as long as nothing keeps it from training."""
        if self.masks is None:
            return weight != 0
        if layer not in self.masks:
            return torch.ones_like(weight, dtype=torch.bool)
        return (weight != 0) | self.masks[layer].keep.reshape(weight.shape).to(weight.device)

    def _fold(self, node: Node, layer: str, reading: Reading) -> tuple[Tensor, str | None]:
        """The kernels that go, bool [K, C/groups], after their contribution has found its place; or why none goes."""
        fold = reading.exact & reading.alive
        if packet(node) is aten.linear:
            fold &= ~reading.last_inputs(fold)
        refusal = self._absorb(node, layer, reading.total(fold)) if fold.any() else None
        if refusal or not fold.any():
            return torch.zeros_like(fold), refusal
        weight = argument(node, "weight")
        removed = fold.view(*fold.shape, *[1] * (self.traced.tensors[weight].dim() - 2))
        self.removed[layer] = removed.expand_as(self.traced.tensors[weight])
        self._edit(weight, self.traced.tensors[weight].masked_fill(removed, 0))
        return fold, None

    def _absorb(self, node: Node, layer: str, amount: Tensor) -> str | None:
        """Add ``amount`` to the layer's bias, or take it from the mean that is subtracted next; or why neither can be."""
        if not self.traced.is_private(argument(node, "weight")):
            return "its weight is shared with another layer or call"
        bias, mean = argument(node, "bias"), self._mean_behind(node)
        if not amount.any():
            return None
        if bias is not None:
            if not self._is_editable(bias):
                return "its bias is shared or computed in the forward pass"
            self._shift(bias, amount)
        elif mean is not None:
            self._shift(mean, -amount)
        elif self.traced.forward_of(argument(node, "weight")) in _PLAIN:
            self.new_biases[layer] = amount.to(self.traced.tensors[argument(node, "weight")].dtype)
        else:
            return "it has no bias, and its own forward pass may ignore a new one"
        return None

    def _mean_behind(self, node: Node) -> Node | None:
        """The running mean of the batch normalisation that alone reads this layer, channel by channel."""
        reader = next(iter(node.users), node)
        per_channel = packet(node) is not aten.linear or len(shape(node)) == 2
        if len(node.users) != 1 or packet(reader) is not BATCH_NORM or not per_channel:
            return None
        mean = argument(reader, "running_mean")
        return mean if argument(reader, "input") is node and self._is_editable(mean) else None

    def _is_editable(self, node: Node) -> bool:
        return node in self.traced.tensors and self.traced.is_private(node)

    def _shift(self, node: Node, amount: Tensor) -> None:
        tensor = self.traced.tensors[node]
        self._edit(node, (tensor.double() + amount).to(tensor.dtype))

    def _edit(self, node: Node, tensor: Tensor) -> None:
        self._edits[node] = self._state[node] = tensor

    def _output(self, node: Node, layer: str, reading: Reading, alive: Tensor) -> Constant | None:
        """The outputs whose every living kernel reads an exact constant are constants themselves."""
        constant = ~(alive & ~reading.exact).any(1)
        bias = argument(node, "bias")
        offset = self.new_biases.get(layer) if bias is None else self._edits.get(bias, self.traced.tensors.get(bias))
        if not constant.any() or (bias is not None and offset is None):
            return None
        value = reading.total(alive & reading.exact) + (0 if offset is None else offset)
        first = len(self._origins)
        self._origins += [(layer, channel) for channel in constant.nonzero().flatten().tolist()]
        source = torch.full_like(constant, -1, dtype=torch.int64)
        source[constant] = torch.arange(first, len(self._origins), device=source.device)
        return result(node, value.to(reading.kernels.dtype), source)

    def _report_lost(self, node: Node, behind: Constant | Tensor | None) -> None:
        seen = behind.sources() if isinstance(behind, Constant) else set()
        for known in map(self._state.get, node.all_input_nodes):
            if isinstance(known, Constant):
                for source in sorted(known.sources() - seen):
                    self._report(known, source, label(node), why_lost(node))

    def _report_layer(self, layer: str, x: Constant, reading: Reading, fold: Tensor, refusal: str | None) -> None:
        freed = reading.freed(fold, len(self._origins))
        stays = reading.alive & ~fold & (reading.source >= 0)
        held, border = (set(reading.source[part].tolist()) for part in (stays, stays & ~reading.exact))
        for source in sorted(x.sources()):
            why = (_BORDER if source in border else refusal or _LAST) if source in held else None
            self._report(x, source, layer, why, freed[source])

    def _report(self, x: Constant, source: int, consumer: str, reason: str | None, freed: int = 0) -> None:
        value = float(x.value[x.source == source][0])
        self.channels.append(DeadChannel(*self._origins[source], value, consumer, reason, freed))


def _weight(module: nn.Module | None) -> Tensor | None:
    """What a mask may be of: a matrix or kernels, be they a Parameter or computed."""
    weight = getattr(module, "weight", None)
    return weight if isinstance(weight, Tensor) and weight.dim() > 1 else None
