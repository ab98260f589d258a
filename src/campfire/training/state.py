"""The state of a run as one dictionary, and back: everything a bit-exact resume needs."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from campfire.compress import Plan, dense_optimizer_state
from campfire.config import differences
from campfire.data import ImageData
from campfire.errors import CampfireError, CheckpointError
from campfire.training import checkpoint
from campfire.training.build import Parts


def _nothing() -> Tensor:
    return torch.zeros(3, dtype=torch.float64)


@dataclasses.dataclass
class Position:
    """How far a run has come."""

    epoch: int = 0
    batch: int = 0  # batches done in the epoch
    step: int = 0  # optimizer steps done
    seconds: float = 0.0  # of training in the epoch
    waited: float = 0.0  # of these, for images
    sums: Tensor = dataclasses.field(default_factory=_nothing)  # of loss, correct and images in the epoch
    best: float = -1.0  # top-1 of ``best.pt``
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    plan: dict[str, Any] | None = None  # of the kernels of compressed layers, chosen once: others round otherwise

    def next_epoch(self) -> None:
        """Stand at the start of the next epoch."""
        self.epoch, self.batch, self.seconds, self.waited = self.epoch + 1, 0, 0.0, 0.0
        self.sums = torch.zeros_like(self.sums)


def capture(parts: Parts, position: Position) -> dict[str, Any]:
    """Tensors, numbers, strings, and containers of them only, so that it loads with ``weights_only=True``.

    Weights and optimizer state are dense, also those of a compressed model. All ranks must call it; only the first one,
    which writes, gets all of it.
    """
    own, *others = parts.ranks.gather({"rng": checkpoint.rng_state(), "sums": position.sums.cpu()})
    if not parts.ranks.first:
        return own
    ema = parts.ema
    return {
        **{field.name: getattr(position, field.name) for field in dataclasses.fields(position)},
        **own,
        "others": others,
        "steps_per_epoch": parts.steps_per_epoch,
        "images": _facts(parts.data),
        "config": json.dumps(parts.config.model_dump(mode="json")),
        "model": parts.model.state_dict(),
        "optimizer": dense_optimizer_state(parts.model, parts.optimizer),
        "scaler": parts.scaler.state_dict(),
        "pruner": None if parts.pruner is None else parts.pruner.state_dict(),
        "ema": None if ema is None else ema.module.state_dict(),
        "averaged": 0 if ema is None else int(ema.n_averaged),
    }


def _facts(images: ImageData) -> dict[str, Any]:
    """What a model must know of the images it was made for."""
    names = ("classes", "channels", "image_size", "mean", "std", "fingerprint")
    return {name: getattr(images, name) for name in names}


def _changed(parts: Parts, saved: Mapping[str, Any], origin: str) -> list[str]:
    """What is different from when the checkpoint was written, and decides the result."""
    before, now = saved.get("images"), _facts(parts.data)
    if not isinstance(before, Mapping):
        raise CheckpointError(f"{origin} is damaged: it does not say on which images it was trained")
    images = [
        f"images.{k} is {v} here and {before.get(k)} in the checkpoint" for k, v in now.items() if before.get(k) != v
    ]
    options = differences(parts.config, checkpoint.config_of(saved, origin))
    return images + [o for o in options if images or not o.startswith("data.source ")]  # images may have moved


def restore(
    parts: Parts,
    saved: Mapping[str, Any],
    origin: str,
    allow_config_change: bool = False,
    allow_world_change: bool = False,
) -> Position:
    """Put every part back to where it stood.

    Raises:
        CheckpointError: the checkpoint is of another configuration, model or number of processes, or has values of the
            wrong types.
    """
    changed = _changed(parts, saved, origin)
    if changed and not allow_config_change:
        raise CheckpointError(
            f"{origin} is of a run that differs from this one: {'; '.join(changed)}. "
            "Give --config of that run to go on as it was, or --allow-config-change"
        )
    try:
        if not allow_world_change:
            _check_world(parts, saved, origin)
        _check_optimizer(parts, saved, origin)
        position = _restore(parts, saved, origin)
    except CheckpointError as error:
        if moved := [change for change in changed if change.startswith("pruning.")]:
            raise CheckpointError(f"{error}\nGive these as they were: {'; '.join(moved)}") from None
        raise
    except CampfireError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, IndexError, ArithmeticError) as error:
        raise CheckpointError(f"{origin} is damaged, or of another run ({type(error).__name__}: {error})") from None
    if any(change.startswith("pruning.") for change in changed):
        position.best = -1.0  # of weights that were pruned otherwise
    return position


def _check_optimizer(parts: Parts, saved: Mapping[str, Any], origin: str) -> None:
    """Adam and AdamW remember the same of the past, SGD something else."""
    before, now = checkpoint.config_of(saved, origin).optim.opt, parts.config.optim.opt
    if before != now and "sgd" in (before, now):
        raise CheckpointError(
            f"{origin} was trained by {before}, whose state is none of {now}; go on with --opt {before}, or begin a new "
            "run from its weights: --initial-checkpoint"
        )


def _check_world(parts: Parts, saved: Mapping[str, Any], origin: str) -> None:
    before, now, size = _world(saved), parts.ranks.world, parts.config.data.batch_size
    if before != now:
        raise CheckpointError(
            f"{origin} is of a run in {before} process{'es' * (before > 1)}, and this one is in {now}: batches of {size} "
            f"would make steps of {size * now} images instead of {size * before}. Start {before} (torchrun "
            f"--nproc-per-node, times the machines), or share the images anew with --allow-world-change"
        )


def _world(saved: Mapping[str, Any]) -> int:
    return 1 + len(saved.get("others", ()))


def _plan(saved: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if saved is None else Plan.from_dict(saved).to_dict()


def _restore(parts: Parts, saved: Mapping[str, Any], origin: str) -> Position:
    position = Position(
        epoch=int(saved["epoch"]),
        batch=int(saved["batch"]),
        step=int(saved["step"]),
        seconds=float(saved["seconds"]),
        waited=float(saved.get("waited", 0.0)),
        best=float(saved["best"]),
        history=[dict(record) for record in saved["history"]],
        plan=_plan(saved.get("plan")),
    )
    checkpoint.fill(parts.model, saved["model"], origin)
    options = [{k: v for k, v in group.items() if k != "params"} for group in parts.optimizer.param_groups]
    parts.optimizer.load_state_dict(saved["optimizer"])
    for group, own in zip(parts.optimizer.param_groups, options, strict=True):
        group.update(own)  # the configuration's, not the checkpoint's: they may differ with --allow-config-change
    parts.scaler.load_state_dict(saved["scaler"])
    if parts.pruner is not None and saved["pruner"] is not None:
        parts.pruner.load_state_dict(saved["pruner"])
    if parts.ema is not None:  # without one until now, it begins at the weights
        checkpoint.fill(parts.ema.module, saved["model"] if saved["ema"] is None else saved["ema"], origin)
        parts.ema.n_averaged.fill_(saved["averaged"])
    _restore_own(parts, position, [saved, *saved.get("others", ())])
    position = _paced(parts, position, int(saved.get("steps_per_epoch", parts.steps_per_epoch)))
    if parts.pruner is not None and saved["pruner"] is None:  # what was dense goes on pruned
        parts.pruner.set_epoch(position.step / parts.steps_per_epoch, position.step)
    return position


def _restore_own(parts: Parts, position: Position, everyone: Sequence[Mapping[str, Any]]) -> None:
    """What each rank has of its own; where their number changed, the first one takes the sums of all."""
    rank = parts.ranks.rank
    if len(everyone) != parts.ranks.world:
        sums = sum(other["sums"] for other in everyone) if parts.ranks.first else _nothing()
        position.sums = torch.as_tensor(sums).to(parts.device)
        return
    position.sums = everyone[rank]["sums"].to(parts.device)
    checkpoint.set_rng_state(everyone[rank]["rng"])


def _paced(parts: Parts, position: Position, before: int) -> Position:
    """At the same share of the epoch, where steps are of another number of images now."""
    now, accumulate = parts.steps_per_epoch, parts.config.optim.grad_accum_steps
    if now != before:
        done = round((position.step - position.epoch * before) / before * now)
        position.batch = min(done * accumulate, parts.batches)
        position.step = position.epoch * now + done
    return position
