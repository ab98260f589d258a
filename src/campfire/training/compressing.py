"""A run goes on with the survivors only: its layers packed, and their kernels chosen, once for the whole run."""

from collections.abc import Mapping
from typing import Any

import torch

from campfire.compress import Plan, compress_, tune_
from campfire.training.build import Parts
from campfire.training.evaluation import autocast
from campfire.training.progress import log


def compress(parts: Parts, plan: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """Compress the model of a run, and let it run as planned before; without a plan, tune it: on the first rank, for all.

    Returns:
        the plan, to be kept; None where no layer could be compressed.
    """
    assert parts.pruner is not None
    report = compress_(parts.model, parts.pruner, parts.optimizer)
    log.info("%s", report)
    if not report.compressed:
        return None
    tuned = None
    if plan is None:
        with parts.ranks.together():
            tuned = _tuned(parts) if parts.ranks.first else None
        plan = parts.ranks.from_first(tuned)
    return tuned or _apply(parts, plan or {})


def _apply(parts: Parts, plan: Mapping[str, Any]) -> dict[str, Any]:
    found = Plan.from_dict(plan)
    for name, reasons in found.apply(parts.model).items():
        log.warning("warning: layer %r runs dense, otherwise than before: %s", name, "; ".join(reasons))
    return found.to_dict()


def _tuned(parts: Parts) -> dict[str, Any]:
    with autocast(parts.config.compute, parts.device):
        found = tune_(parts.model, _batch(parts), by=parts.config.pruning.dispatch)
    log.info("%s", found)
    if not found.pays:
        log.warning(
            "warning: compressed, this model trains at %.2f of its dense speed; leave --compress out", found.whole
        )
    return found.to_dict()


def _batch(parts: Parts) -> torch.Tensor:
    """As large as those the run trains on."""
    images, config = parts.data, parts.config
    size = config.data.batch_size, images.channels, images.image_size, images.image_size
    layout = torch.channels_last if config.compute.channels_last else torch.contiguous_format
    return torch.zeros(size, device=parts.device).contiguous(memory_format=layout)
