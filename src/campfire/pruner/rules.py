"""Rules: which layer gets which structure, and why the others stay dense."""

import fnmatch
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import UninitializedParameter

from campfire.errors import NoEffect, UnknownName, UsageError
from campfire.mask import view4
from campfire.naming import bare, named_layers
from campfire.pruner.rulesets import RULESETS, is_structure, known
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
    first: bool = False  # the first convolution of the model

    @property
    def conv(self) -> bool:
        return isinstance(self.module, nn.Conv2d)


@dataclass(frozen=True)
class Refused:
    """A layer whose weight cannot be pruned, and why."""

    name: str
    module: nn.Module
    reason: str


def targets(model: nn.Module) -> tuple[list[Target], list[Refused]]:
    """Every 2-D convolution and linear layer with a weight of its own; and the layers that cannot be pruned."""
    found: list[Target] = []
    refused: list[Refused] = []
    owner: dict[int, str] = {}
    layers = [(n, m) for n, m in named_layers(bare(model)) if isinstance(m, (_ConvNd, nn.Linear))]
    first = next((m for _, m in layers if isinstance(m, nn.Conv2d)), None)
    for name, module in layers:
        weight = module._parameters.get("weight")
        if isinstance(weight, UninitializedParameter):
            reason = "its weight had no shape yet: run one batch through the model before making the pruner"
        elif not isinstance(module, (nn.Conv2d, nn.Linear)):
            reason = f"it is a {type(module).__name__}: structures are for Conv2d and Linear"
        elif weight is None:
            reason = "its weight is computed (a parametrization, or torch.nn.utils.prune: remove it first)"
        elif not weight.numel():
            reason = f"its weight {list(weight.shape)} holds no numbers"
        elif id(weight) in owner:
            reason = f"it shares its weight with {owner[id(weight)]}"
        else:
            owner[id(weight)] = name
            groups = module.groups if isinstance(module, nn.Conv2d) else 1
            found.append(Target(name, module, tuple(view4(weight).shape), groups, module is first))
            continue
        refused.append(Refused(name, module, reason))
    return found, refused


def resolve(
    found: Sequence[Target], rules: Rules, refused: Sequence[Refused] = ()
) -> tuple[dict[str, Structure], dict[str, str]]:
    """The structure of each pruned layer and the reason of each dense one; the first matching rule wins.

    A single structure, or the name of a rule set (`campfire.pruner.rulesets`), is laid on its default scope:
    convolutions with groups = 1 except the first, or, for the structures of fully connected layers, linear layers. In a
    mapping a key is a glob (``"layer1.*"``), a regular expression (``"re:layer[12]"``), a module type, or a function of
    (name, module); the value None means dense.

    Raises:
        UsageError: a rule matches no layer, or nothing would be pruned.
        DoesNotFit: a layer is named in full, and the structure does not fit it.
    """
    if isinstance(rules, str) and rules == "dense":
        raise UsageError("'dense' prunes nothing; train without a pruner")
    if isinstance(rules, (str, Structure)):
        wanted = {t.name: _structure_for(rules, t) for t in found}
        dense = {t.name: reason for t in found if (reason := _outside(wanted[t.name], t))}
        asked = {name: structure for name, structure in wanted.items() if name not in dense}
    elif isinstance(rules, Mapping):
        asked, dense = _by_rule(found, rules, refused)
    else:
        raise UsageError(f"rules are a structure, a mapping from layers to structures, or phases; got {rules!r}")
    chosen: dict[str, Structure] = {}
    for target in (t for t in found if t.name in asked):
        structure = asked[target.name]
        if reasons := structure.why_not(target.shape, target.groups):
            dense[target.name] = f"{str(structure)!r} does not fit: {'; '.join(reasons)}"
        else:
            chosen[target.name] = structure
    if not chosen:
        reasons = {**dense, **{r.name: r.reason for r in refused}}
        listed = _listed(reasons.items()) or " (the model has no convolution or linear layer)"
        raise UsageError(f"nothing would be pruned: no layer fits{listed}")
    return chosen, {t.name: dense[t.name] for t in found if t.name in dense}


def _structure_for(given: Structure | str, target: Target) -> Structure:
    ruleset = RULESETS.get(given) if isinstance(given, str) else None
    return _structure(given) if ruleset is None else ruleset(target.shape)


def _structure(given: Structure | str) -> Structure:
    if not isinstance(given, (str, Structure)):
        raise UsageError(f"a rule gives a structure, its name, or None; got {given!r}")
    if isinstance(given, Structure):
        return given
    name = given.partition(":")[0].strip()
    if name == "inter-epoch":
        raise UsageError("inter-epoch is two eras of their own: Pruner(model, inter_epoch(start, length, target))")
    if is_structure(name):
        return named(given)
    raise UnknownName("structure", name, [*known(), "dense"])


def _outside(structure: Structure, target: Target) -> str:
    """Why the layer is outside the default scope; "" when it is inside."""
    if structure.scope == "linear":
        return "a convolution; this structure's default scope is linear layers" if target.conv else ""
    if not target.conv:
        return "a linear layer; the default scope is convolutions"
    if target.groups > 1:
        return f"it has {target.groups} groups; the default scope is convolutions with groups = 1"
    return "the first convolution" if target.first else ""


def _by_rule(
    found: Sequence[Target], rules: Mapping[Selector, Structure | str | None], refused: Sequence[Refused]
) -> tuple[dict[str, Structure], dict[str, str]]:
    asked: dict[str, Structure] = {}
    dense = {t.name: "no rule matches it" for t in found}
    free = {t.name: t for t in found}
    for selector, given in rules.items():
        matched = [t.name for t in found if _matches(selector, t)]
        if not matched:
            raise _no_match(selector, found, [r for r in refused if _matches(selector, r)])
        taken = [free.pop(name) for name in matched if name in free]
        if not taken:
            _no_effect(selector, "earlier rules take all the layers it matches")
        if given is None or given == "dense":
            dense |= {t.name: "a rule leaves it dense" for t in taken}
            continue
        wanted = {t.name: _structure_for(given, t) for t in taken}
        for t in taken:
            if selector == t.name:
                require(wanted[t.name], t.shape, f"layer {t.name!r} of shape {t.shape}", t.groups)
        if taken and all(wanted[t.name].why_not(t.shape, t.groups) for t in taken):
            _no_effect(selector, f"{' or '.join(dict.fromkeys(map(str, wanted.values())))!r} fits none of its layers")
        asked |= wanted
        dense = {name: reason for name, reason in dense.items() if name not in asked}
    return asked, dense


def _matches(selector: Selector, layer: Target | Refused) -> bool:
    if isinstance(selector, type):
        return isinstance(layer.module, selector)
    if isinstance(selector, nn.Module):
        raise UsageError(f"a rule names layers by their names, not by themselves; got {type(selector).__name__}")
    if callable(selector):
        return bool(selector(layer.name, layer.module))
    if not isinstance(selector, str):
        raise UsageError(f"a rule names layers by a glob, 're:...', a module type or a function; got {selector!r}")
    if not selector.startswith("re:"):
        return fnmatch.fnmatchcase(layer.name, selector)
    try:
        return re.search(selector[3:], layer.name) is not None
    except re.error as error:
        raise UsageError(f"rule {selector!r} is not a regular expression: {error}") from None


def _no_match(selector: Selector, found: Sequence[Target], refused: Sequence[Refused]) -> UsageError:
    rule = f"rule {_spelled(selector)} matches"
    if refused:
        return UsageError(f"{rule} only layers that cannot be pruned:{_listed((r.name, r.reason) for r in refused)}")
    names = ", ".join(t.name for t in found[:8]) + ", ..." * (len(found) > 8)
    return UsageError(f"{rule} no convolution or linear layer; the layers are {names}")


def _no_effect(selector: Selector, why: str) -> None:
    warnings.warn(f"rule {_spelled(selector)} has no effect: {why}", NoEffect, stacklevel=5)


def _spelled(selector: Selector) -> str:
    return repr(selector) if isinstance(selector, str) else getattr(selector, "__name__", repr(selector))


def _listed(reasons: Iterable[tuple[str, str]]) -> str:
    return "".join(f"\n  - {name}: {reason}" for name, reason in reasons)
