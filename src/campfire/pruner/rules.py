"""Rules: which layer gets which structure, and why the others stay dense."""

import fnmatch
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.parameter import UninitializedParameter
from torch.optim.swa_utils import AveragedModel

from campfire.errors import NoEffect, UsageError
from campfire.mask import view4
from campfire.structures import Structure, named, require
from campfire.structures.base import Shape

Selector = str | type[nn.Module] | Callable[[str, nn.Module], bool]
Rules = Structure | str | Mapping[Selector, Structure | str | None]


@dataclass(frozen=True)
class Target:
    """A weight that can be pruned: its layer's name, the module, the weight as [K, C / groups, R, S], and its groups."""

    name: str
    module: nn.Conv2d | nn.Linear
    shape: Shape
    groups: int

    @property
    def conv(self) -> bool:
        return isinstance(self.module, nn.Conv2d)


def bare(model: nn.Module) -> nn.Module:
    """The user's own module, out of DDP, `torch.compile` and averaging wrappers."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, (DistributedDataParallel, DataParallel, AveragedModel)):
            inner = model.module
        if inner is None:
            return model
        model = inner


def targets(model: nn.Module) -> tuple[list[Target], dict[str, str]]:
    """Every convolution and linear layer with a weight of its own; and the others by name, each with the reason."""
    found: list[Target] = []
    refused: dict[str, str] = {}
    owner: dict[int, str] = {}
    for name, module in bare(model).named_modules():
        if not isinstance(module, (nn.Conv2d, nn.Linear)):
            continue
        weight = module._parameters.get("weight")
        if weight is None:
            refused[name] = "its weight is computed (a parametrization, or torch.nn.utils.prune: remove it first)"
        elif isinstance(weight, UninitializedParameter):
            refused[name] = "its weight has no shape yet: run one batch through the model first"
        elif id(weight) in owner:
            refused[name] = f"it shares its weight with {owner[id(weight)]}"
        else:
            owner[id(weight)] = name
            groups = module.groups if isinstance(module, nn.Conv2d) else 1
            found.append(Target(name, module, tuple(view4(weight).shape), groups))
    return found, refused


def resolve(found: list[Target], rules: Rules) -> tuple[dict[str, Structure], dict[str, str]]:
    """The structure of each pruned layer and the reason of each dense one; the first matching rule wins.

    A single structure is laid on its default scope: convolutions with groups = 1 except the first, or, for the
    structures of fully connected layers, linear layers. In a mapping a key is a glob (``"layer1.*"``), a regular
    expression (``"re:layer[12]"``), a module type, or a function of (name, module); the value None means dense.

    Raises:
        UsageError: a rule matches no layer, or nothing would be pruned.
        DoesNotFit: a layer is named in full, and the structure does not fit it.
    """
    if isinstance(rules, (str, Structure)):
        structure = named(rules) if isinstance(rules, str) else rules
        asked = {t.name: (structure, False) for t in found if not _outside(structure, t, found)}
        dense = {t.name: reason for t in found if (reason := _outside(structure, t, found))}
    else:
        asked, dense = _by_rule(found, rules)
    chosen: dict[str, Structure] = {}
    for target in found:
        if target.name not in asked:
            continue
        structure, by_name = asked[target.name]
        if by_name:
            require(structure, target.shape, f"layer {target.name!r} of shape {target.shape}", target.groups)
        if reasons := structure.why_not(target.shape, target.groups):
            dense[target.name] = "; ".join(reasons)
        else:
            chosen[target.name] = structure
    if not chosen:
        listed = "".join(f"\n  - {name}: {reason}" for name, reason in dense.items())
        raise UsageError(
            f"nothing would be pruned: no layer fits{listed or ' (the model has no convolution or linear layer)'}"
        )
    return chosen, dense


def _outside(structure: Structure, target: Target, found: list[Target]) -> str:
    """Why the layer is outside the default scope; "" when it is inside."""
    if structure.scope == "linear":
        return "a convolution; this structure's default scope is linear layers" if target.conv else ""
    if not target.conv:
        return "a linear layer; the default scope is convolutions"
    if target.groups > 1:
        return f"it has {target.groups} groups; the default scope is convolutions with groups = 1"
    first = next(t.name for t in found if t.conv)
    return "the first convolution" if target.name == first else ""


def _by_rule(
    found: list[Target], rules: Mapping[Selector, Structure | str | None]
) -> tuple[dict[str, tuple[Structure, bool]], dict[str, str]]:
    asked: dict[str, tuple[Structure, bool]] = {}
    dense = {t.name: "no rule matches it" for t in found}
    free = {t.name for t in found}
    for selector, structure in rules.items():
        matched = [t.name for t in found if _matches(selector, t)]
        if not matched:
            names = ", ".join(t.name for t in found[:8]) + (", ..." if len(found) > 8 else "")
            raise UsageError(f"rule {selector!r} matches no convolution or linear layer; the layers are {names}")
        if not free & set(matched):
            message = f"rule {selector!r} has no effect: earlier rules take all the layers it matches"
            warnings.warn(message, NoEffect, stacklevel=5)
        for name in matched:
            if name not in free:
                continue
            if structure is None or structure == "dense":
                dense[name] = "a rule leaves it dense"
            else:
                asked[name] = (named(structure) if isinstance(structure, str) else structure, selector == name)
                del dense[name]
        free -= set(matched)
    return asked, dense


def _matches(selector: Selector, target: Target) -> bool:
    if isinstance(selector, type):
        return isinstance(target.module, selector)
    if not isinstance(selector, str):
        return bool(selector(target.name, target.module))
    if selector.startswith("re:"):
        try:
            return re.search(selector[3:], target.name) is not None
        except re.error as error:
            raise UsageError(f"rule {selector!r} is not a regular expression: {error}") from None
    return fnmatch.fnmatchcase(target.name, selector)
