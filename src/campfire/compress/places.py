"""Where a layer hangs in a model, and what forbids to put another in its place."""

from collections import Counter

from torch import nn

from campfire.errors import UsageError
from campfire.naming import bare

Place = tuple[nn.Module, str]


def places(model: nn.Module, layer: nn.Module) -> list[Place]:
    """Every module that holds the layer, and under which name."""
    return [(m, name) for m in model.modules() for name, child in m._modules.items() if child is layer]


def put(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """The new layer wherever the old one is."""
    for parent, name in places(model, old):
        parent._modules[name] = new


def tied(model: nn.Module) -> set[int]:
    """The ids of parameters that more than one module, or name, holds."""
    counts = Counter(id(p) for m in model.modules() for p in m._parameters.values() if p is not None)
    return {key for key, count in counts.items() if count > 1}


def require_unwrapped(model: nn.Module, verb: str) -> None:
    """Raise `UsageError` where DDP, `torch.compile` or an average is around the model or a part of it."""
    for name, module in model.named_modules():
        compiled = getattr(module, "_compiled_call_impl", None) is not None
        if compiled or bare(module) is not module:
            what = "torch.compile" if compiled or hasattr(module, "_orig_mod") else type(module).__name__
            where = f"its part {name!r}" if name else "the model"
            raise UsageError(
                f"{where} is wrapped by {what}, which holds on to the parameters it was given; "
                f"{verb} the model itself first, then wrap it"
            )


def why_not_replace(model: nn.Module, layer: nn.Module) -> list[str]:
    """Reasons why nothing can take the place of a layer; [] when something can."""
    if model is layer:
        return ["it is the whole model; put it into an nn.Sequential"]
    if not places(model, layer):
        return ["the model does not hold it any more"]
    hooks = [name for name, value in vars(layer).items() if name.endswith("_hooks") and value]
    replaced = [(name, p) for name, p in layer._parameters.items() if name != "bias"]  # the bias itself lives on
    for hook in ("_backward_hooks", "_post_accumulate_grad_hooks"):
        hooks += [f"{name}.{hook}" for name, parameter in replaced if getattr(parameter, hook, None)]
    return [f"it has hooks, which would be lost: {', '.join(sorted(hooks))}; remove them first"] if hooks else []
