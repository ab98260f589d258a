"""Tracing the modules that a forward pass calls, in order: a program that runs as before, for images of any shape.

`torch.fx` and not the `torch.export` of couplings: that one proves what holds for one example, on operators without modules;
here the modules themselves are what is rewritten, and the result must take any batch.
"""

import inspect
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from torch import Tensor, fx, nn

from campfire.errors import UsageError
from campfire.fusion.effects import IN_PLACE, shares, written
from campfire.fusion.watching import Untraceable, Watch, casting, same_buffers
from campfire.nn.entrances import Entrance


class Proxy(fx.Proxy):
    """``x += y`` changes x, for all who hold it; torch's own proxy would take it for ``x = x + y``."""


def _in_place(function: Callable[..., Any]) -> Callable[[Proxy, Any], fx.Proxy]:
    return lambda self, other: self.tracer.create_proxy("call_function", function, (self, other), {})


for _function in IN_PLACE:
    setattr(Proxy, f"__{_function.__name__}__", _in_place(_function))


class Tracer(fx.Tracer):
    """Layers of campfire and of torch are single calls; so is a module whose inside cannot be traced (``opaque``).

    Optional arguments of the forward pass are fixed at their defaults.

    Args:
        buffers: read anew at every call; otherwise forward may take steps that depend on them, and the graph holds what
            it made of them. The default is what copies and pickles of a graph need, which torch.fx traces again.
    """

    def __init__(self, buffers: bool = True) -> None:
        super().__init__()
        self.proxy_buffer_attributes = buffers
        self.opaque: dict[str, str] = {}
        self._watch = Watch()
        self._held: set[fx.Node] = set()  # tensors that forward had at hand: every call reads the same memory
        self._read: dict[str, fx.Proxy] = {}  # torch.fx's own, of parameters and buffers

    def trace(self, root: Any, concrete_args: Any = None) -> fx.Graph:
        self._casting = casting()
        self._modules = dict(root.named_modules(remove_duplicate=False))
        with self._watch, same_buffers(root):
            return super().trace(root, concrete_args)

    def proxy(self, node: fx.Node) -> Proxy:
        return Proxy(node, self)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, fx.Proxy]) -> Any:
        self._read = parameter_proxy_cache
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def create_arg(self, a: Any) -> Any:
        arg = super().create_arg(a)
        if isinstance(a, Tensor) and not isinstance(a, nn.Parameter) and isinstance(arg, fx.Node):
            self._held.add(arg)
            self._watch.keep(a)
        return arg

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(*args, **kwargs)
        if casting() != self._casting:
            raise Untraceable("it switches autocast, which is no call in a graph")
        if any(self._is_held(one) for one in written(node, self._modules)):
            raise Untraceable(
                f"{node} may write to a tensor made without the input, that every call would find changed"
            )
        return node

    def _is_held(self, node: fx.Node) -> bool:
        """Whether it is a tensor that forward had at hand, or may be a view of one."""
        if node in self._held:
            return True
        return shares(node, self._modules) and any(self._is_held(one) for one in node.all_input_nodes)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m).__module__.startswith("campfire.nn.") or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        before, stack, opaque = set(self.graph.nodes), OrderedDict(self.module_stack), dict(self.opaque)
        path = self.path_of_module(m)
        try:
            if has_hooks(m) and not self.is_leaf_module(m, path):  # inside, they would run once, on no tensors
                raise Untraceable("there are hooks")
            with same_buffers(m):
                return super().call_module(m, forward, args, kwargs)
        except Exception as error:
            self.module_stack = stack  # torch.fx checks it, and leaves it as it was at the error
            self._forget(before)
            self.opaque = {**opaque, path: first_line(error)}  # and not what is inside it
            return self.create_proxy("call_module", path, args, kwargs)

    def _forget(self, before: set[fx.Node]) -> None:
        """Erase what was traced since: whoever reads the same parameter later makes a call of his own."""
        for node in reversed(list(self.graph.nodes)):
            if node not in before:
                self.graph.erase_node(node)
        for name, proxy in list(self._read.items()):
            if proxy.node not in before:
                del self._read[name]

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> Any:
        call, args = super().create_args_for_root(root_fn, is_module, concrete_args)
        defaults = {
            name: p.default
            for name, p in inspect.signature(inspect.unwrap(root_fn)).parameters.items()
            if p.default is not p.empty
        }
        return _entered(call, self.root), [self._fixed(arg, defaults) for arg in args]

    def _fixed(self, arg: Any, defaults: dict[str, Any]) -> Any:
        if not isinstance(arg, fx.Proxy) or arg.node.target not in defaults:
            return arg
        self.graph.erase_node(arg.node)
        return defaults[str(arg.node.target)]


def has_hooks(module: nn.Module) -> bool:
    """Whether calling it runs hooks of others; entrances are campfire's, and are traced."""
    hooks = (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
    return not all(isinstance(hook, Entrance) for hook in hooks)


def _entered(call: Callable[..., Any], root: nn.Module) -> Callable[..., Any]:
    """The forward pass behind the entrances of the outermost module, which torch.fx calls past."""
    entrances = list(root._forward_pre_hooks.values())

    def entered(module: nn.Module, *given: Any) -> Any:
        for entrance in entrances:
            given = entrance(module, given) or given
        return call(module, *given)

    return entered if entrances else call


def trace(model: nn.Module) -> tuple[fx.Graph, dict[str, str]]:
    """The calls of the forward pass in the mode the model is in; and the parts that are single calls, with the reason.

    Buffers are read at every call, where forward takes no steps that depend on them; else they stay as they are now.

    Raises:
        UsageError: the model has hooks or a replaced forward, or its own forward pass does what no graph does: takes steps
            that depend on its input, switches autocast, draws random numbers, or writes to what outlives the call.
    """
    _require_own_forward(model)
    found: list[tuple[fx.Graph, dict[str, str]]] = []
    errors: list[Exception] = []
    for tracer in (Tracer(), Tracer(buffers=False)):
        try:
            found.append((tracer.trace(model), tracer.opaque))
        except Exception as error:  # tracing raises anything at all
            errors.append(error)
        else:
            if not tracer.opaque:
                return found[-1]
    if found:
        graph, opaque = min(found, key=lambda one: len(one[1]))
        return graph, {path: found[-1][1].get(path, why) for path, why in opaque.items()}  # why it fails in any case
    raise UsageError(
        f"{type(model).__name__} cannot be traced: {first_line(errors[-1])}\n"
        "Wanted: a forward pass that takes the same steps for every input, and writes to nothing but what it computes from "
        "it. Cure: fuse the parts that do, as in model.body = campfire.fuse(model.body), or make the part that does not "
        "a module of its own."
    ) from errors[-1]


def _require_own_forward(model: nn.Module) -> None:
    """torch.fx calls the forward pass of the outermost module's class, past hooks and past a method of the instance."""
    name = type(model).__name__
    if has_hooks(model):
        raise UsageError(
            f"{name} has hooks, which a fused copy would not run. Cure: remove them before fuse and register them on the "
            "copy, or fuse the parts, as in model.body = campfire.fuse(model.body)."
        )
    if "forward" in vars(model):
        raise UsageError(
            f"the forward of this {name} was replaced on the instance, and a fused copy would run its class's. Cure: "
            f"subclass {name} with that forward, or make the model the child of a module that calls it."
        )


def first_line(error: Exception) -> str:
    """What an exception says, in a line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
