"""How good a model is on the test images, and whether it is as sparse as it says."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from campfire import data
from campfire.config import Config
from campfire.config.schema import Compute
from campfire.data import ImageData
from campfire.errors import CampfireError, CheckpointError, UsageError
from campfire.mask import view4
from campfire.pruner import Pruner
from campfire.training import checkpoint
from campfire.training.build import compute_settings, load_data, make_model, placed, prepare
from campfire.training.pruning import make_pruner
from campfire.training.ranks import ALONE, Ranks


class MaskViolation(CampfireError):
    """Weights that a mask says are dead are not zero, or a mask is not of its structure."""

    exit_code: ClassVar[int] = 4


@dataclass(frozen=True)
class Accuracy:
    """Mean cross entropy and accuracies in percent over ``images`` images."""

    loss: float
    top1: float
    top5: float
    images: int


def autocast(compute: Compute, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Mixed precision, where it is on."""
    return torch.autocast(device.type, getattr(torch, compute.amp_dtype), enabled=compute.amp)


def correct(logits: Tensor, y: Tensor, k: int = 1) -> Tensor:
    """How many of the labels are among the k largest logits (all of them, where there are fewer classes)."""
    return (logits.topk(min(k, logits.shape[1]), dim=1).indices == y[:, None]).sum()


@torch.no_grad()
def measure(
    model: nn.Module, images: ImageData, config: Config, device: torch.device,
    poll: Callable[[], None] = lambda: None, ranks: Ranks = ALONE,
) -> Accuracy:  # fmt: skip
    """Top-1 and top-5 on the test images, each counted once, by one of the ranks; ``poll`` is called after every batch.

    All ranks poll equally often: the first one has the most batches.
    """
    ranks.share_buffers(model)
    model.eval()
    sums = torch.zeros(4, dtype=torch.float64, device=device)
    settings = config.data
    stream = data.batches(
        images, "test", settings.validation_batch_size,
        epoch=0, seed=config.run.seed, train=False, device=device, workers=settings.workers,
        channels_last=config.compute.channels_last, rank=ranks.rank, world=ranks.world,
    )  # fmt: skip
    left = data.num_batches(images, "test", settings.validation_batch_size, train=False, world=ranks.world)
    for x, y in stream:
        with autocast(config.compute, device):
            logits = model(x).float()
        loss = F.cross_entropy(logits, y, reduction="sum")
        sums += torch.stack([loss, correct(logits, y), correct(logits, y, 5), torch.tensor(len(y), device=device)])
        poll()
        left -= 1
    for _ in range(left):
        poll()
    loss, top1, top5, count = ranks.total(sums).tolist()
    return Accuracy(loss / count, 100 * top1 / count, 100 * top5 / count, int(count))


@dataclass(frozen=True)
class Trained:
    """What a checkpoint holds: a model in evaluation mode, its masks, and what it knows of its images."""

    model: nn.Module
    pruner: Pruner | None
    config: Config
    classes: list[str]
    channels: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str  # of the images


# What a checkpoint says of its images.
FACTS = {field.name for field in fields(Trained)} - {"model", "pruner", "config"}


def load_run(path: str | Path, device: str | torch.device = "cpu") -> Trained:
    """The model of a run, as it was evaluated.

    Args:
        path: a run directory (its ``last.pt``), a checkpoint, or a run's ``model.safetensors``.
        device: where the model goes.

    Raises:
        UsageError: there is no such run.
        CheckpointError: the file is damaged, or of another model than it says.
    """
    path = Path(path)
    file = path / "last.pt" if path.is_dir() else path
    saved = checkpoint.load(file.with_name("last.pt") if file.suffix == ".safetensors" else file)
    config = checkpoint.config_of(saved, file)
    try:
        facts, masks = saved["images"], saved["pruner"]
        if missing := FACTS - facts.keys():
            raise CheckpointError(f"{file} does not know {' and '.join(sorted(missing))} of its images: it is damaged")
        model = make_model(config, len(facts["classes"]), facts["channels"], facts["image_size"])
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{file} is damaged: {error!r}") from None
    model = placed(model, config.compute, torch.device(device)).eval()
    pruner = make_pruner(model, config)
    if pruner is not None:
        if masks is None:
            raise CheckpointError(f"{file} holds no masks, and its configuration prunes")
        pruner.load_state_dict(masks)
    # After the masks, for to load masks is to zero what they say is dead: the file's own weights are to be judged.
    checkpoint.fill(model, checkpoint.weights(file), str(file))
    return Trained(model, pruner, config, **facts)


def dead_weights(model: nn.Module, pruner: Pruner) -> list[str]:
    """What is wrong with a model under the pruner's masks: dead weights that are not zero, masks that are not legal."""
    wrong = []
    for name, mask in pruner.masks.items():
        weight = model.get_parameter(f"{name}.weight".lstrip("."))
        revived = int((view4(weight.detach())[~mask.keep] != 0).sum())
        reasons = [f"{revived} dead weights are not zero"] if revived else []
        reasons += pruner.layers[name].structure.why_invalid(mask)
        wrong += [f"layer {name!r}: {reason}" for reason in reasons]
    return wrong


def evaluate(path: str | Path, source: str | None = None, **compute: Any) -> dict[str, Any]:
    """Measure what a run produced, and check its masks on the weights as they are in the file.

    Args:
        path: as for `load_run`.
        source: other images than the run's own, of the same classes.
        compute: ``device`` and ``threads``.

    Returns:
        ``top1``, ``top5`` (percent), ``loss``, ``images``, the sparsities, ``violations``: what is wrong with the masks,
        [] when nothing is, and ``checkpoint``, the path.

    Raises:
        UsageError: there is no such run, or the images are of other classes.
        CheckpointError: a file is damaged or of another model.
    """
    device = prepare(compute_settings(**compute))
    trained = load_run(path, device)
    config, pruner = trained.config, trained.pruner
    same = {name: getattr(trained, name) for name in ("channels", "image_size", "mean", "std")}
    images = load_data(config.data, source, **same)
    if list(images.classes) != trained.classes:
        raise UsageError(
            f"{images.name} has the classes {_some(images.classes)}, and the model was trained on {_some(trained.classes)}"
        )
    accuracy = measure(trained.model, images, config, device)
    return {
        "top1": accuracy.top1,
        "top5": accuracy.top5,
        "loss": accuracy.loss,
        "images": accuracy.images,
        "sparsity_requested": pruner.report().requested if pruner else 0.0,
        "sparsity_true": pruner.sparsity if pruner else 0.0,
        "violations": dead_weights(trained.model, pruner) if pruner else [],
        "checkpoint": str(path),
    }


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f", ... ({len(names)})" if len(names) > 5 else "")
