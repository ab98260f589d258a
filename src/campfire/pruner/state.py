"""The state of a pruner as plain values and bit masks, and back; nothing is believed unchecked."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from campfire.errors import CampfireError, CheckpointError
from campfire.mask import Mask, pack_bits, unpack_bits
from campfire.pruner.clock import Clock
from campfire.structures import Structure
from campfire.structures.base import Plan, Shape

if TYPE_CHECKING:
    from campfire.pruner.pruner import Pruner

VERSION = 1
Sparsity = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=0)]


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True, allow_inf_nan=False)


class _ClockForm(_Form):
    steps: Count
    steps_per_epoch: Annotated[int, Field(ge=1)] | None
    epoch_then: Annotated[float, Field(ge=0)]
    steps_then: Count


class _StageForm(_Form):
    schedule: dict[str, Any]
    structures: dict[str, str]
    goals: dict[str, Sparsity]
    plans: dict[str, dict[str, Tensor]]
    applied: Sparsity | None
    updates: Count


class _LayerForm(_Form):
    shape: list[int]
    structure: str
    requested: Sparsity
    bits: Tensor | None


class _MethodForm(_Form):
    name: str
    state: dict[str, Any]


class _StateForm(_Form):
    version: int
    settings: dict[str, Any]
    clock: _ClockForm
    stages: list[_StageForm]
    layers: dict[str, _LayerForm]
    method: _MethodForm


def state_of(pruner: "Pruner") -> dict[str, Any]:
    """Everything a resume needs: tensors, numbers, strings, lists and dicts only."""
    return {
        "version": VERSION,
        "settings": dict(pruner.settings),
        "clock": dict(vars(pruner._clock)),
        "stages": [
            {
                "schedule": _plain(s.schedule.to_dict()),
                "structures": {n: str(x) for n, x in s.structures.items()},
                "goals": _plain(dict(s.goals)),
                "plans": {n: dict(p) for n, p in s.plans.items()},
                "applied": _plain(s.applied),
                "updates": s.updates,
            }
            for s in pruner.stages
        ],
        "layers": {
            n: {
                "shape": list(x.target.shape),
                "structure": str(x.structure),
                "requested": _plain(x.requested),
                "bits": None if x.mask is None else pack_bits(x.mask.keep),
            }
            for n, x in pruner.layers.items()
        },
        "method": {"name": str(pruner.method), "state": pruner.method.state_dict()},
    }


def load_into(pruner: "Pruner", state: Mapping[str, Any]) -> None:
    """Check the whole state first, then take it: a refused state changes nothing.

    Raises:
        CheckpointError: naming what is wrong.
    """
    saved = _read(state)
    if differences := list(_differences(_read(state_of(pruner)), saved)):
        listed = "".join(f"\n  - {d}" for d in differences)
        raise CheckpointError(f"the pruner state belongs to another model or rule set:{listed}")
    loaded = {name: _load_layer(pruner, name, saved) for name in saved.layers}
    try:
        pruner.method.load_state_dict(saved.method.state, {n: x.target.shape for n, x in pruner.layers.items()})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"the state of method {saved.method.name!r} is damaged ({error!r})") from None
    clock, pruner._clock = pruner._clock, Clock(**saved.clock.model_dump())
    if pruner._binding is not None:  # attached already: at this run's own pace
        pruner._clock.pace(clock.steps_per_epoch)
    for stage, s in zip(pruner.stages, saved.stages, strict=True):
        stage.goals, stage.plans, stage.applied, stage.updates = s.goals, s.plans, s.applied, s.updates
    for name, (structure, mask) in loaded.items():
        layer = pruner.layers[name]
        layer.structure, layer.mask, layer.requested = structure, mask, saved.layers[name].requested


def _read(state: Mapping[str, Any]) -> _StateForm:
    version = state.get("version") if isinstance(state, Mapping) else None
    if type(version) is int and version != VERSION:
        raise CheckpointError(f"pruner state has version {version}; this campfire reads {VERSION}")
    try:
        return _StateForm.model_validate(state)
    except ValidationError as error:
        wrong = (f"\n  - {'.'.join(map(str, e['loc'])) or 'the state'}: {e['msg']}" for e in error.errors()[:8])
        raise CheckpointError(f"not the state of a pruner, or a damaged one:{''.join(wrong)}") from None


def _load_layer(pruner: "Pruner", name: str, state: _StateForm) -> tuple[Structure, Mask | None]:
    """A layer's structure and mask from its record, each checked against the layer."""
    saved, shape = state.layers[name], pruner.layers[name].target.shape
    on_it = [
        (s.structures[name], f.plans) for s, f in zip(pruner.stages, state.stages, strict=True) if name in s.structures
    ]
    same = [(structure, plans) for structure, plans in on_it if str(structure) == saved.structure]
    try:
        if not same:
            known = ", ".join(repr(str(structure)) for structure, _ in on_it)
            raise CheckpointError(f"it was saved as {saved.structure!r}; the rules know {known}")
        for structure, plans in on_it:
            _check_plan(structure, shape, plans.get(name))
        structure = same[-1][0]
        plan = next((plans[name] for _, plans in reversed(same) if name in plans), {})
        plan = {k: v.cpu() for k, v in plan.items()}
        mask = None if saved.bits is None else Mask(unpack_bits(saved.bits, shape), plan)
        _check_mask(structure, shape, mask, saved.requested)
    except CampfireError as error:
        raise CheckpointError(f"layer {name!r} of the pruner state is damaged: {error}") from None
    return structure, mask


def _check_mask(structure: Structure, shape: Shape, mask: Mask | None, requested: float) -> None:
    kept = math.prod(shape) if mask is None else int(mask.keep.count_nonzero())
    budget = structure.count(shape, requested)
    if not 0 < kept <= budget:
        raise CheckpointError(f"{kept} weights live; {str(structure)!r} at sparsity {requested:.4f} keeps {budget}")
    if mask is not None and (reasons := structure.why_invalid(mask)):
        raise CheckpointError(f"its mask is no {str(structure)!r}: {'; '.join(reasons)}")


def _check_plan(structure: Structure, shape: Shape, plan: Plan | None) -> None:
    if plan is None:
        return
    wanted = _forms(structure.plan(torch.ones(shape, device="cpu"), 0.5))
    if _forms(plan) != wanted or not all(bool(v.isfinite().all()) for v in plan.values()):
        raise CheckpointError(f"its plan is {_forms(plan)}; {str(structure)!r} wants {wanted}, all finite")


def _forms(plan: Plan) -> dict[str, str]:
    return {name: f"{v.dim()}-D {v.dtype}" for name, v in sorted(plan.items())}


def _differences(ours: _StateForm, saved: _StateForm) -> Iterator[str]:
    """What cannot be resumed, one line each."""
    for name in sorted({*ours.layers, *saved.layers}):
        here, there = ours.layers.get(name), saved.layers.get(name)
        if here is None or there is None:
            yield f"layer {name!r} is pruned {'in the checkpoint' if here is None else 'here'} only"
        elif here.shape != there.shape:
            yield f"layer {name!r} has shape {here.shape} here and {there.shape} in the checkpoint"
    if len(ours.stages) != len(saved.stages):
        yield f"{len(ours.stages)} phases here and {len(saved.stages)} in the checkpoint"
    for i, (here, there) in enumerate(zip(ours.stages, saved.stages, strict=False)):
        if here.schedule != there.schedule:
            yield f"the schedule of phase {i} is {here.schedule} here and {there.schedule} in the checkpoint"
        for name in sorted({*here.structures, *there.structures} & {*ours.layers} & {*saved.layers}):
            one, other = here.structures.get(name, "dense"), there.structures.get(name, "dense")
            if one != other:
                yield f"layer {name!r} is {one!r} here and {other!r} in the checkpoint (phase {i})"
        for field in ("goals", "plans"):
            if strangers := {*getattr(there, field)} - {*there.structures}:
                yield f"the {field} of phase {i} name {', '.join(sorted(strangers))}, which it does not prune"
        if there.goals and (missing := {*there.structures} - {*there.goals}):
            yield f"the goals of phase {i} lack {', '.join(sorted(missing))}"
    for name in sorted({*ours.settings, *saved.settings}):
        one, other = ours.settings.get(name), saved.settings.get(name)
        if one != other:
            yield f"the {name} is {one!r} here and {other!r} in the checkpoint"
    if ours.method.name != saved.method.name:
        yield f"the method is {ours.method.name!r} here and {saved.method.name!r} in the checkpoint"


def _plain(value: Any) -> Any:
    """Tuples as lists, so that saved and live schedules compare equal; numpy's numbers as Python's."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, np.generic):
        return value.item()
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def spelled(part: Any) -> str:
    """A score or an allocation as a checkpoint names it: the same in every process."""
    if isinstance(part, Mapping):
        return repr(dict(sorted(_plain(dict(part)).items())))
    if isinstance(part, str) or is_dataclass(part):
        return str(part)
    return getattr(part, "__qualname__", type(part).__qualname__)
