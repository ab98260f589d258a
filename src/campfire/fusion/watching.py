"""What forward does while it is traced: whatever runs then runs once, so nothing may run then that every call has to repeat.

y = torch.zeros(4)      runs while tracing; the graph holds y as a constant
y += conv(x)            a call in the graph, that would add to the same constant at every call: refused
self.calls.add_(1)      runs while tracing, and never again: refused
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

LIFTED = (torch.ops.aten.lift_fresh.default, torch.ops.aten.lift.default)  # how torch.tensor hands over what it made
DEVICES = ("cpu", "cuda")


class Untraceable(Exception):
    """A graph of its calls would not do what a forward pass does; the message says why."""


class Watch(TorchDispatchMode):
    """Refuses what forward does to tensors while it is traced, and would have to do again at every call.

    That is to write to memory which it did not make itself, or which the graph holds already, and to draw random numbers.

    >>> kept = torch.zeros(2)
    >>> with Watch():
    ...     made = torch.zeros(2).add_(1)
    ...     kept.add_(1)
    Traceback (most recent call last):
    campfire.fusion.watching.Untraceable: it writes to a tensor that outlives the call (aten.add_.Tensor)
    """

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[int, torch.UntypedStorage] = {}  # by address; held, so that no other memory gets the same one

    def keep(self, tensor: Tensor) -> None:
        """The graph holds it from now on."""
        for address in _memory(tensor):
            self._made.pop(address, None)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded in getattr(func, "tags", ()):
            raise Untraceable(f"it draws random numbers ({func}), that would be the same at every call")
        if any(address not in self._made for address in _memory(_written(func, args, kwargs))):
            raise Untraceable(f"it writes to a tensor that outlives the call ({func})")
        result = func(*args, **kwargs)
        known = {} if func in LIFTED else _memory((args, kwargs))
        self._made.update({address: memory for address, memory in _memory(result).items() if address not in known})
        return result


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """The arguments that an operator writes to, by its schema."""
    schema = getattr(func, "_schema", None)
    if schema is None:
        return []
    given = {argument.name: value for argument, value in zip(schema.arguments, args, strict=False)} | kwargs
    return [given.get(a.name) for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write]


def _memory(found: Any) -> dict[int, torch.UntypedStorage]:
    """Of all tensors in a nest of containers, by address; those that are not strided have none of their own."""
    tensors = [one for one in tree_leaves(found) if isinstance(one, Tensor) and one.layout is torch.strided]
    return {memory._cdata: memory for memory in (one.untyped_storage() for one in tensors)}


@contextmanager
def same_buffers(model: nn.Module) -> Iterator[None]:
    """Buffers that forward sets anew while it is traced are put back, and refused: it would happen once."""
    before = [(module, dict(module._buffers)) for module in model.modules()]
    try:
        yield
        for module, buffers in before:
            for name in (*buffers, *module._buffers):
                if buffers.get(name) is not module._buffers.get(name):
                    raise Untraceable(f"it sets its buffer {name} anew")
    finally:
        for module, buffers in before:
            module._buffers.clear()
            module._buffers.update(buffers)


def casting() -> tuple[Any, ...]:
    """What autocast does now; another depth is another block, whatever it asks for."""
    depth = torch.autocast_increment_nesting()
    torch.autocast_decrement_nesting()
    return depth, *((torch.is_autocast_enabled(d), torch.get_autocast_dtype(d)) for d in DEVICES)
