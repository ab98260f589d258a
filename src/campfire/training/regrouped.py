"""A network's weights in blocks on disk, with the masks that training needs to go on."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from campfire.config import Config, from_tree, load, to_yaml
from campfire.config.schema import Pruning
from campfire.errors import CampfireError, CheckpointError, UsageError
from campfire.files.foreign import unmasked
from campfire.mask import Mask, view4
from campfire.pruner import Pruner
from campfire.pruner.adopting import adopt
from campfire.pruner.clock import Clock
from campfire.pruner.zeroing import zero_where_dead_
from campfire.report.regrouping import LayerBlocks
from campfire.schedules import OneShot
from campfire.training import checkpoint
from campfire.training.build import make_model
from campfire.training.optim import make_optimizer
from campfire.training.pruning import make_pruner
from campfire.training.run_directory import FILES, RunDirectory

FORMAT = "campfire-regrouped-1"
SUFFIXES = (".pt", ".pth")
Kept = dict[str, tuple[str, float, Mask]]  # of each layer: its structure, the sparsity asked for, its mask


def save(source: Path, output: Path, layers: list[LayerBlocks], structure: str, overwrite: bool = False) -> None:
    """Write what `campfire.report.regrouping.regrouped` made of a checkpoint: to a file, or as a run directory.

    A file (``.pt``) holds ``state_dict``, dense and with its zeros, ``pruner`` (its state), ``rules`` and ``sparsity``. A
    directory, which only a run can be regrouped to, is a run that goes on under the new masks. Layers that stay dense keep
    the zeros that they have, as single weights or as the run's masks have them.

    Raises:
        UsageError: the output is there already, or cannot be had from this source.
        CheckpointError: the source is damaged.
    """
    check_output(source, output, overwrite)
    if output.suffix in SUFFIXES:
        _save_file(source, output, layers, structure)
    else:
        _save_run(source, output, layers, structure)


def check_output(source: Path, output: Path, overwrite: bool = False) -> None:
    """Raise `UsageError` where `save` would, as far as paths tell."""
    if output.suffix in SUFFIXES:
        if output.exists() and (output.resolve() == source.resolve() or not overwrite):
            cure = "" if output.resolve() == source.resolve() else "--overwrite, or "
            raise UsageError(f"the output {output} is there already; give {cure}another --output")
        if not output.parent.is_dir():
            raise UsageError(f"there is no folder {output.parent} to write {output.name} to")
        return
    if output.suffix == ".safetensors" or source.suffix not in SUFFIXES or model_of(source) is None:
        raise UsageError(
            f"the output is a file, such as blocks.pt, or, for the checkpoint of a run, a run directory; got {output} for {source}"
        )
    if output.resolve() == source.resolve().parent:
        raise UsageError(f"the output {output} is the run itself; give another --output")
    if not overwrite:
        RunDirectory(output).refuse_another_run()


def model_of(source: Path) -> nn.Module | None:
    """The model of a run's checkpoint, with fresh weights; None for any other file."""
    try:
        saved = checkpoint.load(source)
    except CheckpointError:
        return None
    return _model(saved, source)[1]


def _model(saved: Mapping[str, Any], source: Path) -> tuple[Config, nn.Module]:
    config = checkpoint.config_of(saved, source)
    try:
        facts = saved["images"]
        return config, make_model(config, len(facts["classes"]), facts["channels"], facts["image_size"])
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{source} is damaged: {error!r}") from None


def _in_blocks(layers: list[LayerBlocks], structure: str) -> Kept:
    return {x.name: (structure, x.requested, x.mask) for x in layers if x.mask is not None}


def _target(kept: Kept) -> float:
    """The true sparsity of all these layers."""
    weights = sum(mask.keep.numel() for *_, mask in kept.values())
    return 1 - sum(int(mask.keep.count_nonzero()) for *_, mask in kept.values()) / weights


# --- a file ----------------------------------------------------------------------------------------------------------


def _save_file(source: Path, output: Path, layers: list[LayerBlocks], structure: str) -> None:
    state, _ = unmasked(checkpoint.weights(source))
    if masks := [name for name, x in state.items() if x.dim() == 4 and x.dtype == torch.bool]:
        raise UsageError(f"{source} holds masks, such as {masks[0]}, and no weights to write in blocks")
    in_blocks = _in_blocks(layers, structure)
    kept = in_blocks | {n: x for n, x in _single_weights(state).items() if n not in in_blocks}
    for name, (*_, mask) in kept.items():
        weight = state[f"{name}.weight"]
        state[f"{name}.weight"] = (view4(weight) * mask.keep).view_as(weight)
    rules: Any = {name: spec for name, (spec, *_) in kept.items()}
    target = _target(kept)
    weights = {name: state[f"{name}.weight"] for name in kept}
    pruner = Pruner(_skeleton(weights), rules, OneShot(at=0, target=target))
    adopt(pruner, {n: mask for n, (*_, mask) in kept.items()}, {n: asked for n, (_, asked, _) in kept.items()})
    checkpoint.save(
        output,
        {"format": FORMAT, "state_dict": state, "pruner": pruner.state_dict(), "rules": rules, "sparsity": target},
    )


def _single_weights(state: Mapping[str, Tensor]) -> Kept:
    """The layers in which some weights are zero, as masks of single weights."""
    found: Kept = {}
    for name, x in state.items():
        if x.dim() not in (2, 4) or not name.endswith(".weight") or (x.dim() == 4 and x.shape[1] == 1 < x.shape[0]):
            continue
        keep = view4(x) != 0
        if 0 < (living := int(keep.count_nonzero())) < x.numel():
            found[name.removesuffix(".weight")] = ("fine", 1 - living / x.numel(), Mask(keep))
    return found


def _skeleton(weights: Mapping[str, Tensor]) -> nn.Module:
    """Modules with nothing but these weights, under these names."""
    root = nn.Module()
    for name, weight in weights.items():
        *path, last = name.split(".")
        parent = root
        for part in path:
            if part not in parent._modules:
                parent.add_module(part, nn.Module())
            parent = parent.get_submodule(part)
        outputs, inputs, *kernel = weight.shape
        module = nn.Conv2d(inputs, outputs, tuple(kernel), bias=False) if kernel else nn.Linear(inputs, outputs, False)  # pyright: ignore[reportArgumentType]
        parent.add_module(last, module)
    return root


# --- a run directory -------------------------------------------------------------------------------------------------


def _save_run(source: Path, output: Path, layers: list[LayerBlocks], structure: str) -> None:
    saved = checkpoint.load(source)
    config, model = _model(saved, source)
    try:
        before = make_pruner(model, config)
        if before is not None:
            before.load_state_dict(saved["pruner"])
        config, pruner, kept = _under_new_masks(model, config, before, _in_blocks(layers, structure))
        checkpoint.fill(model, saved["model"], str(source))
        clock = before._clock if before is not None else Clock(saved["step"], 1, float(saved["epoch"]), saved["step"])
        adopt(
            pruner, {n: mask for n, (*_, mask) in kept.items()}, {n: asked for n, (_, asked, _) in kept.items()}, clock
        )
        saved |= {
            "config": json.dumps(config.model_dump(mode="json")),
            "model": {name: tensor.clone() for name, tensor in model.state_dict().items()},
            "optimizer": _optimizer(model, config, pruner, saved["optimizer"]),
            "pruner": pruner.state_dict(),
            "plan": None,  # of kernels for other layouts
            "best": -1.0,  # of weights that were pruned otherwise
        }
    except CampfireError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{source} is damaged ({error!r})") from None
    if saved["ema"] is not None:
        checkpoint.fill(model, saved["ema"], str(source))
        with torch.no_grad():
            zero_where_dead_(model, pruner.masks)
        saved["ema"] = model.state_dict()
    folder = RunDirectory(output)
    output.mkdir(parents=True, exist_ok=True)
    checkpoint.save(folder.last, saved)
    folder.write_text("config.yaml", to_yaml(config))
    folder.write_history(saved["history"])
    checkpoint.save_weights(output / "model.safetensors", model)
    for name in set(FILES) - {"last.pt", "config.yaml", "model.safetensors", "metrics.jsonl", "summary.csv"}:
        (output / name).unlink(missing_ok=True)  # of the run that was there


def _under_new_masks(
    model: nn.Module, config: Config, before: Pruner | None, in_blocks: Kept
) -> tuple[Config, Pruner, Kept]:
    """The configuration of a run whose masks are made, and its pruner; other layers keep the masks they had."""
    others = {} if before is None else before.layers
    kept = in_blocks | {
        n: (str(x.structure), x.requested, x.mask)
        for n, x in others.items()
        if x.mask is not None and n not in in_blocks
    }
    pruning = Pruning(
        structure="dense",
        rules={name: spec for name, (spec, *_) in kept.items()},
        sparsity=_target(kept),
        schedule="oneshot",
        era_start=0,
        compress=config.pruning.compress,
        dispatch=config.pruning.dispatch,
    )
    config, _ = load(from_tree(config.model_copy(update={"pruning": pruning}).model_dump(), "the regrouped run"))
    pruner = make_pruner(model, config)
    assert pruner is not None
    return config, pruner, kept


def _optimizer(model: nn.Module, config: Config, pruner: Pruner, state: Mapping[str, Any]) -> dict[str, Any]:
    """The optimizer's state, zero where weights are dead."""
    optimizer = make_optimizer(model, config.optim)
    optimizer.load_state_dict(dict(state))
    pruner.reapply(optimizer)
    return optimizer.state_dict()
