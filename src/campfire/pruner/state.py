"""The state of a pruner as plain values and bit masks, and back; nothing is believed unchecked."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch.distributed as dist
from torch import Tensor

from campfire.errors import CampfireError, CheckpointError
from campfire.mask import Mask, pack_bits, unpack_bits

if TYPE_CHECKING:
    from campfire.pruner.pruner import Pruner

VERSION = 1


def state_of(pruner: "Pruner") -> dict[str, Any]:
    """Everything a resume needs: tensors, numbers, strings, lists and dicts only."""
    return {
        "version": VERSION,
        "steps": pruner.steps,
        "epoch": pruner.epoch,
        "stages": [
            {
                "schedule": _plain(s.schedule.to_dict()),
                "structures": {n: str(x) for n, x in s.structures.items()},
                "goals": dict(s.goals),
                "plans": {n: dict(p) for n, p in s.plans.items()},
                "applied": s.applied,
                "updates": s.updates,
            }
            for s in pruner.stages
        ],
        "layers": {
            n: {
                "shape": list(x.target.shape),
                "structure": str(x.structure),
                "requested": x.requested,
                "bits": None if x.mask is None else pack_bits(x.mask.keep),
            }
            for n, x in pruner.layers.items()
        },
        "method": {"name": str(pruner.method), "state": pruner.method.state_dict()},
    }


def load_into(pruner: "Pruner", state: Mapping[str, Any]) -> None:
    """Check the whole state first, then take it: a refused state changes nothing."""
    try:
        if state["version"] != VERSION:
            raise CheckpointError(f"pruner state has version {state['version']}; this campfire reads {VERSION}")
        if differences := _differences(state_of(pruner), state):
            listed = "".join(f"\n  - {d}" for d in differences)
            raise CheckpointError(f"the pruner state belongs to another model or rule set:{listed}")
        masks = {n: _mask(pruner, n, s, state["stages"]) for n, s in state["layers"].items()}
        steps, epoch = int(state["steps"]), float(state["epoch"])
        stages = [(dict(s["goals"]), dict(s["plans"]), s["applied"], int(s["updates"])) for s in state["stages"]]
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise CheckpointError(f"not the state of a pruner, or a damaged one ({error!r})") from None
    pruner.steps = steps
    pruner.set_epoch(epoch)
    for stage, (goals, plans, applied, updates) in zip(pruner.stages, stages, strict=True):
        stage.goals, stage.plans, stage.applied, stage.updates = goals, plans, applied, updates
    for name, (mask, requested, stage) in masks.items():
        layer = pruner.layers[name]
        layer.requested, layer.structure = requested, stage
        if mask is None:
            layer.mask = None
        else:
            layer.set(mask)
    pruner.method.load_state_dict(state["method"]["state"])


def _mask(pruner: "Pruner", name: str, saved: Mapping[str, Any], stages: Any) -> tuple[Mask | None, float, Any]:
    layer = pruner.layers[name]
    known = [s.structures[name] for s in pruner.stages if name in s.structures]
    structure = next((s for s in known if str(s) == saved["structure"]), None)
    if structure is None:
        raise CheckpointError(f"layer {name!r} was saved as {saved['structure']!r}; the rules know {known}")
    if saved["bits"] is None:
        return None, float(saved["requested"]), structure
    device = layer.weight.device
    plans = [s["plans"][name] for s in stages if name in s["plans"]]
    plan: dict[str, Tensor] = {k: v.to(device) for k, v in (plans[-1] if plans else {}).items()}
    return Mask(unpack_bits(saved["bits"], layer.target.shape).to(device), plan), float(saved["requested"]), structure


def _differences(ours: Mapping[str, Any], saved: Mapping[str, Any]) -> list[str]:
    found = []
    for name in sorted(set(ours["layers"]) | set(saved["layers"])):
        here, there = ours["layers"].get(name), saved["layers"].get(name)
        if here is None or there is None:
            found.append(f"layer {name!r} is pruned {'in the checkpoint' if here is None else 'here'} only")
        elif list(here["shape"]) != list(there["shape"]):
            found.append(f"layer {name!r} has shape {here['shape']} here and {there['shape']} in the checkpoint")
    if len(ours["stages"]) != len(saved["stages"]):
        return [*found, f"{len(ours['stages'])} phases here and {len(saved['stages'])} in the checkpoint"]
    for i, (here, there) in enumerate(zip(ours["stages"], saved["stages"], strict=True)):
        if here["schedule"] != there["schedule"]:
            found.append(
                f"the schedule of phase {i} is {here['schedule']} here and {there['schedule']} in the checkpoint"
            )
        for name in sorted(set(here["structures"]) & set(there["structures"])):
            if here["structures"][name] != there["structures"][name]:
                one, other = here["structures"][name], there["structures"][name]
                found.append(f"layer {name!r} is {one!r} here and {other!r} in the checkpoint")
    if ours["method"]["name"] != saved["method"]["name"]:
        found.append(f"the method is {ours['method']['name']!r} here and {saved['method']['name']!r} in the checkpoint")
    return found


def _plain(value: Any) -> Any:
    """Tuples as lists, so that saved and live schedules compare equal."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def check_ranks(masks: Mapping[str, Mask]) -> None:
    """Under `torch.distributed`: raise where a layer's mask differs between ranks."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return
    sums = {name: mask.checksum() for name, mask in masks.items()}
    everyone: list[dict[str, str] | None] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, sums)
    for rank, other in enumerate(everyone):
        names = sorted(n for n in {*sums, *(other or {})} if sums.get(n) != (other or {}).get(n))
        if names:
            raise CampfireError(
                f"masks differ between rank {dist.get_rank()} and rank {rank} in {', '.join(names)}; "
                "ranks must train on equal weights and gradients (is DDP missing?)"
            )
