"""The rewriting of a traced forward pass: normalisations into weights, sums and ReLUs into sparse layers."""

from collections import Counter

from torch import Tensor, fx, nn

from campfire.errors import DoesNotFit
from campfire.fusion.effects import NORMS, is_harmless, is_plain, is_relu, is_sum, why_not_move, writes
from campfire.fusion.folding import fold_, why_not_fold
from campfire.nn import SparseConv2d, SparseLinear

SPARSE = (SparseConv2d, SparseLinear)
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


class Rewriting:
    """One forward pass in eval mode; ``modules`` are changed, so they are those of a copy."""

    def __init__(self, graph: fx.Graph, modules: dict[str, nn.Module], opaque: list[str]):
        self.graph, self.modules = graph, modules
        self.folded: dict[str, str] = {}  # normalisation -> layer
        self.kept: dict[str, str] = {}  # normalisation -> why it stays
        self.sums: list[str] = []  # layers
        self.relus: list[str] = []
        self._calls = Counter(id(modules[str(n.target)]) for n in graph.nodes if n.op == "call_module")
        for path in opaque:  # what happens inside, and which modules it shares with others, is not known
            self._calls.update(2 * [id(m) for m in modules[path].modules()])
        self._read = {str(n.target) for n in graph.nodes if n.op == "get_attr"}
        for step in (self._drop, self._fold, self._add, self._relu):
            for node in list(graph.nodes):
                step(node)
        graph.lint()

    def _drop(self, node: fx.Node) -> None:
        """What does nothing in eval mode, and stands between what can be fused."""
        module = self._module(node)
        if module is None or type(module) not in (nn.Identity, *DROPOUTS):  # subclasses may do anything
            return
        if is_plain(module) and _one(node):
            self._replace(node, node.all_input_nodes[0])

    def _fold(self, node: fx.Node) -> None:
        norm = self._module(node)
        if not isinstance(norm, NORMS) or not _one(node):
            return
        before = node.all_input_nodes[0]
        layer = self._module(before)
        if layer is None:
            self.kept[str(node.target)] = f"it follows {before}"
        elif reasons := why_not_fold(layer, norm) + self._why_not_alone(before, layer, norm):
            self.kept[str(node.target)] = "; ".join(reasons)
        else:
            fold_(layer, norm)
            self.folded[str(node.target)] = str(before.target)
            if isinstance(norm, nn.BatchNorm1d):
                with self.graph.inserting_before(node):
                    before = self.graph.call_function(rows, (before,))
            self._replace(node, before)

    def _why_not_alone(self, node: fx.Node, layer: nn.Module, norm: nn.Module) -> list[str]:
        """Who else sees the layer's result or its weights."""
        reasons = [] if is_plain(norm) else ["there are hooks"]
        if len(node.users) > 1:
            reasons.append(f"{node.target} is read by others too")
        if any(self._owner(name) is norm for name in self._read):  # and perhaps written
            reasons.append("its statistics are read by others too")
        return [*reasons, *self.why_not_own(node, layer)]

    def why_not_own(self, node: fx.Node, layer: nn.Module) -> list[str]:
        """Reasons why the layer that a node calls cannot be changed for its sake; [] when it can."""
        reasons = [] if is_plain(layer) else ["there are hooks"]
        if self._calls[id(layer)] > 1:
            reasons.append(f"{node.target} is called more than once")
        if any(self._owner(name) is layer for name in self._read):
            reasons.append(f"the weights of {node.target} are read by others too")
        return reasons

    def _add(self, node: fx.Node) -> None:
        summands = node.all_input_nodes
        if not is_sum(node) or len(summands) != 2:
            return
        order = {n: i for i, n in enumerate(self.graph.nodes)}
        for layer in sorted(summands, key=order.__getitem__, reverse=True):  # the last one moves least
            residual = summands[layer is summands[0]]
            if self._takes(layer, "residual") and not self._why_not_add(layer, residual, node):
                node.prepend(layer)
                layer.update_kwarg("residual", residual)
                self.sums.append(str(layer.target))
                self._replace(node, layer)
                return

    def _why_not_add(self, layer: fx.Node, residual: fx.Node, node: fx.Node) -> list[str]:
        written = writes(node, self.modules) and node.args[0] is residual and not is_harmless(node, self.modules)
        return [f"{residual} is added to in place"] if written else why_not_move(layer, node, self.modules)

    def _relu(self, node: fx.Node) -> None:
        if is_relu(node, self.modules) and self._takes(layer := node.all_input_nodes[0], "relu"):
            layer.update_kwarg("relu", True)
            self.relus.append(str(layer.target))
            self._replace(node, layer)

    def _takes(self, node: fx.Node, what: str) -> bool:
        """Whether it is a call of a sparse layer, read once, whose kernel can do this as well."""
        module = self._module(node)
        if module is None or type(module) not in SPARSE or not is_plain(module) or len(node.users) != 1:
            return False
        return "relu" not in node.kwargs and what not in node.kwargs

    def _module(self, node: fx.Node) -> nn.Module | None:
        return self.modules[str(node.target)] if node.op == "call_module" else None

    def _owner(self, name: str) -> nn.Module | None:
        """The module that holds a parameter or buffer, under whatever name it is called."""
        return self.modules.get(name.rpartition(".")[0])

    def _replace(self, node: fx.Node, by: fx.Node) -> None:
        node.replace_all_uses_with(by)
        self.graph.erase_node(node)


def _one(node: fx.Node) -> bool:
    """Whether it is handed one result and nothing else."""
    return len(node.args) == 1 and not node.kwargs and len(node.all_input_nodes) == 1


def rows(y: Tensor) -> Tensor:
    """y [N, K] itself; with more axes the batch normalisation folded into it would have run along another.

    Raises:
        DoesNotFit: y has other than two axes.
    """
    if y.dim() != 2:
        raise DoesNotFit(
            "fuse",
            f"a linear layer's result of shape {tuple(y.shape)}",
            ["BatchNorm1d was folded into it, which is right for [N, K] only; feed rows, or do not fuse this part"],
        )
    return y
