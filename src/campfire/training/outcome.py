"""The end of a run: the files that last, and the numbers that are quoted."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from campfire import costs
from campfire.errors import CampfireError
from campfire.sparsity import SparsityReport
from campfire.training.build import Parts
from campfire.training.costing import write_costs
from campfire.training.evaluation import MaskViolation, dead_weights
from campfire.training.progress import log
from campfire.training.run_directory import RunDirectory
from campfire.training.state import Position


@dataclass(frozen=True)
class Result:
    """What a run gave: ``summary`` is the content of ``summary.json``, accuracies are in percent."""

    summary: dict[str, Any]
    model: nn.Module
    output: Path

    @property
    def top1(self) -> float:
        return self.summary["top1"]

    @property
    def top5(self) -> float:
        return self.summary["top5"]

    @property
    def sparsity_true(self) -> float:
        """The fraction of zeros in the pruned layers."""
        return self.summary["sparsity_true"]


def conclude(parts: Parts, position: Position, folder: RunDirectory) -> dict[str, Any]:
    """Check the masks, write the weights and the numbers; returns the content of ``summary.json``.

    Raises:
        MaskViolation: the weights are not as sparse as the masks say.
    """
    if parts.pruner is not None and (wrong := dead_weights(parts.final, parts.pruner)):
        raise MaskViolation("; ".join(wrong))
    report = parts.report()
    if parts.pruner is not None:
        log.info("%s", report)
    result = summary(parts, position, report) | {"output": str(folder.path)}
    folder.write_weights(parts.final)
    folder.write_json("sparsity.json", report.to_dict())
    folder.write_json("summary.json", result)
    if folder.writes:
        write_costs(parts, position, folder)
    return result


def summary(parts: Parts, position: Position, report: SparsityReport) -> dict[str, Any]:
    """The numbers of the last epoch, which are those of ``model.safetensors``; sparsities over the pruned layers."""
    config, last = parts.config, position.history[-1]
    scope = report.convs if parts.pruner is None else report.pruned
    return {
        "model": config.model.name,
        "data": parts.data.name,
        "structure": config.pruning.structure,
        "method": config.pruning.method if parts.pruner else None,
        "seed": config.run.seed,
        "top1": last["eval_top1"],
        "top5": last["eval_top5"],
        "best_top1": position.best if position.best >= 0 else None,
        "sparsity_requested": report.requested,
        "sparsity_true": scope.sparsity,
        "kept_weights": scope.kept,
        "weights": scope.weights,
        "kept_parameters": report.model.kept,
        "parameters": report.model.weights,
        **_macs(parts),
        "layers": [
            {"name": r.name, "structure": r.structure, "sparsity": r.true, "kept": r.kept_weights, "weights": r.weights}
            for r in report.layers
        ],
        "epochs": position.epoch,
        "seconds": round(sum(record["seconds"] for record in position.history), 3),
    }


def _macs(parts: Parts) -> dict[str, int | None]:
    """Multiply-accumulates of one image, dense and of the living weights; None where the model cannot be counted."""
    shape = (parts.data.channels, parts.data.image_size, parts.data.image_size)
    masks = {} if parts.pruner is None else parts.pruner.masks
    try:
        keep = {name: mask.keep for name, mask in masks.items()}
        return {"macs": costs.macs(parts.model, shape), "sparse_macs": costs.sparse_macs(parts.model, keep, shape)}
    except CampfireError as error:
        log.warning("warning: %s", error)
        return {"macs": None, "sparse_macs": None}
