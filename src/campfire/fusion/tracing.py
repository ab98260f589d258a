"""Tracing the modules that a forward pass calls, in order: a program that runs as before, for images of any shape.

`torch.fx` and not the `torch.export` of couplings: that one proves what holds for one example, on operators without modules;
here the modules themselves are what is rewritten, and the result must take any batch.
"""

import inspect
import operator
from collections.abc import Callable
from typing import Any

from torch import fx, nn

from campfire.errors import UsageError

IN_PLACE = tuple(getattr(operator, f"i{name}") for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"))


class Proxy(fx.Proxy):
    """``x += y`` changes x, for all who hold it; torch's own proxy would take it for ``x = x + y``."""


def _in_place(function: Callable[..., Any]) -> Callable[[Proxy, Any], fx.Proxy]:
    return lambda self, other: self.tracer.create_proxy("call_function", function, (self, other), {})


for _function in IN_PLACE:
    setattr(Proxy, f"__{_function.__name__}__", _in_place(_function))


class Tracer(fx.Tracer):
    """Layers of campfire and of torch are single calls; so is a module whose inside cannot be traced (``opaque``).

    Optional arguments of the forward pass are fixed at their defaults.
    """

    def __init__(self) -> None:
        super().__init__()
        self.opaque: dict[str, str] = {}

    def proxy(self, node: fx.Node) -> Proxy:
        return Proxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m).__module__.startswith("campfire.nn.") or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        before = set(self.graph.nodes)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception as error:
            for node in reversed(list(self.graph.nodes)):
                if node not in before:
                    self.graph.erase_node(node)
            path = self.path_of_module(m)
            self.opaque[path] = first_line(error)
            return self.create_proxy("call_module", path, args, kwargs)

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> Any:
        call, args = super().create_args_for_root(root_fn, is_module, concrete_args)
        defaults = {
            name: p.default
            for name, p in inspect.signature(inspect.unwrap(root_fn)).parameters.items()
            if p.default is not p.empty
        }
        return call, [self._fixed(arg, defaults) for arg in args]

    def _fixed(self, arg: Any, defaults: dict[str, Any]) -> Any:
        if not isinstance(arg, fx.Proxy) or arg.node.target not in defaults:
            return arg
        self.graph.erase_node(arg.node)
        return defaults[str(arg.node.target)]


def trace(model: nn.Module) -> tuple[fx.Graph, dict[str, str]]:
    """The calls of the forward pass in the mode the model is in; and the parts that are single calls, with the reason.

    Raises:
        UsageError: the model's own forward pass takes steps that depend on its input.
    """
    tracer = Tracer()
    try:
        return tracer.trace(model), tracer.opaque
    except Exception as error:
        raise UsageError(
            f"{type(model).__name__} cannot be traced: {first_line(error)}\n"
            "Wanted: a forward pass that takes the same steps for every input. Cure: fuse the parts that do, "
            "as in model.body = campfire.fuse(model.body), or make the part that does not a module of its own."
        ) from error


def first_line(error: Exception) -> str:
    """What an exception says, in a line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
