"""How much of their accuracy trained networks keep when images are moved to mislead them."""

import dataclasses
import functools
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from campfire import data
from campfire.attack import Attack, right
from campfire.attack.distances import SPACES, check_eps
from campfire.attack.record import FORMAT, accuracy
from campfire.compress import compress_
from campfire.config import Config
from campfire.data import ImageData
from campfire.data.keyed import bits, permutation
from campfire.errors import UnknownName, UsageError
from campfire.training.build import compute_settings, load_data, prepare
from campfire.training.evaluation import Trained, load_run
from campfire.training.progress import log
from campfire.training.victims import RAW, Normalisation, Victim


@dataclasses.dataclass(frozen=True)
class Sample:
    """The test images that all networks are attacked on, as bytes, and their places in the test set."""

    images: ImageData
    index: Any  # int64 [n]
    seed: int
    fingerprint: str  # of the data set that they are from

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.index.tobytes()).hexdigest()[:16]

    def keys(self, start: int, count: int) -> list[int]:
        """A number for each of these images, of 40 bits, whichever others were drawn."""
        return (bits(self.index[start : start + count], seed=self.seed) >> 24).tolist()


@dataclasses.dataclass(frozen=True)
class Trial:
    """One network ready to be attacked: what its record will say of it, and the rest of that record."""

    path: Path
    facts: dict[str, Any]
    attack: Callable[[], dict[str, Any]]

    def record(self) -> dict[str, Any]:
        return self.facts | self.attack()


def robustness(
    paths: Sequence[str | Path], attacks: Sequence[Attack], eps: Sequence[float], **options: Any
) -> list[dict[str, Any]]:
    """Attack trained networks on the same images: a record for each, as in `campfire.attack.record`; arguments of `trials`."""
    return [trial.record() for trial in trials(paths, attacks, eps, **options)]


def trials(
    paths: Sequence[str | Path], attacks: Sequence[Attack], eps: Sequence[float], *, space: str = "pixel",
    num_examples: int | None = 1000, seed: int = 0, source: str | None = None, compress: bool = False, **compute: Any,
) -> list[Trial]:  # fmt: skip
    """Everything that attacks on these networks need; whatever can be refused is refused here.

    Args:
        paths: run directories or checkpoints, as for `campfire.load_run`, all of the same images.
        eps: distances in units of ``space``; 0 is the clean accuracy again.
        space: ``pixel`` (values in [0, 1]) or ``normalised`` (as the network sees them).
        num_examples: how many test images, drawn by ``seed``; None for all.
        source: other images than the first run's own, of the same classes.
        compress: attack pruned networks in their compressed form, gradients computed by sparse kernels.
        compute: ``device`` and ``threads``.

    Raises:
        UsageError: runs of different images, an ``eps`` out of the range of images, or an attack that does not fit.
        CheckpointError: a file is damaged.
    """
    if space not in SPACES:
        raise UnknownName("space", space, SPACES)
    if not attacks or not eps:
        raise UsageError(f"wanted an attack and a distance at least, such as 8/255; got {len(attacks)} and {len(eps)}")
    if space != "pixel" and (names := [a.name for a in attacks if a.by_library]):
        raise UsageError(f"{', '.join(names)} moves images in [0, 1] only; leave --space {space} out, or the attack")
    device = prepare(compute_settings(**compute))
    networks = [load_run(path, device) for path in paths]
    if compress and all(trained.pruner is None for trained in networks):
        raise UsageError("--compress keeps what pruning leaves, and nothing is pruned here; leave it out")
    _same_images(paths, networks)
    sample = _draw(networks[0], num_examples, seed, source)
    victims = [_victim(trained, space, device, compress) for trained in networks]
    _check_all(eps, attacks, victims, networks)
    return [
        Trial(
            Path(path),
            _facts(path, trained, sample)
            | {"device": str(device), "compressed": compress and trained.pruner is not None},
            functools.partial(_attacked, victim, sample, trained.config, attacks, eps, space, device),
        )
        for path, trained, victim in zip(paths, networks, victims, strict=True)
    ]


def _same_images(paths: Sequence[str | Path], networks: Sequence[Trained]) -> None:
    first = networks[0]
    for path, other in zip(paths, networks, strict=True):
        if (other.fingerprint, other.classes, other.image_size) != (first.fingerprint, first.classes, first.image_size):
            raise UsageError(
                f"{paths[0]} was trained on {first.config.data.source} and {path} on {other.config.data.source}, "
                "which are not the same images; networks can be compared on the same ones only: attack them one by one"
            )


def _draw(trained: Trained, count: int | None, seed: int, source: str | None) -> Sample:
    """Bytes as floats: a deviation of 1/255 undoes the scaling to [0, 1]."""
    if count is not None and count < 1:
        raise UsageError(f"the number of images is 1 or more; got {count}")
    channels = trained.channels
    same = {"channels": channels, "image_size": trained.image_size, "mean": (0.0,) * channels, "std": (RAW,) * channels}
    images = load_data(trained.config.data, source, **same)
    if source is None and images.fingerprint != trained.fingerprint:
        raise UsageError(f"the images in {trained.config.data.source} are not those that the network was trained with")
    if list(images.classes) != trained.classes:
        raise UsageError(f"{images.name} has other classes than the network was trained on")
    total = len(images.test)
    index = permutation(total, seed=seed)[: total if count is None else count]
    index.sort()
    return Sample(dataclasses.replace(images, test=images.test.take(index)), index, seed, images.fingerprint)


def _victim(trained: Trained, space: str, device: torch.device, compress: bool) -> Victim:
    how = Normalisation.of(trained, device)
    if compress and trained.pruner is not None:
        log.info("%s", compress_(trained.model, trained.pruner))
    return Victim(trained.model, space, how, trained.config.compute)


def _check_all(
    eps: Sequence[float], attacks: Sequence[Attack], victims: Sequence[Victim], networks: Sequence[Trained]
) -> None:
    """Everything that can be refused is, before hours are spent."""
    remarks = {}
    for attack in attacks:
        attack.require(len(networks[0].classes))
    for victim, trained in zip(victims, networks, strict=True):
        shape = (trained.channels, trained.image_size, trained.image_size)
        space = "pixel" if victim.pixel else "normalised"
        for norm in {attack.norm for attack in attacks}:
            remarks |= dict.fromkeys(filter(None, (check_eps(e, norm, space, victim.ranges, shape) for e in eps)))
    for remark in remarks:
        log.warning("warning: %s", remark)


def _facts(path: str | Path, trained: Trained, sample: Sample) -> dict[str, Any]:
    config, pruner = trained.config, trained.pruner
    return {
        "format": FORMAT,
        "run": str(path),
        "model": config.model.name,
        "data": sample.images.name,
        "structure": config.pruning.structure if pruner else "dense",
        "sparsity_true": pruner.sparsity if pruner else 0.0,
        "weights": _digest(trained.model.state_dict()),
        "fingerprint": sample.fingerprint,
        "sample": sample.digest,
        "images": len(sample.index),
        "seed": sample.seed,
    }


def _digest(state: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        found.update(json.dumps([name, list(tensor.shape), str(tensor.dtype)]).encode())
        values = tensor.detach().cpu().flatten() + 0  # a dead weight may be -0.0
        found.update(values.view(torch.uint8).numpy().data)
    return found.hexdigest()[:16]


def _attacked(
    victim: Victim, sample: Sample, config: Config, attacks: Sequence[Attack], eps: Sequence[float], space: str,
    device: torch.device,
) -> dict[str, Any]:  # fmt: skip
    """The accuracies of one network. Images that are wrong before the attack are wrong after it."""
    total = len(sample.index)
    clean = torch.cat([right(victim, victim.images(x), y) for x, y, _ in _batches(sample, config, device)])
    results = []
    for attack, distances in [(one, distances) for one in attacks for distances in one.together(eps)]:
        began, withstood = time.perf_counter(), [0] * len(distances)
        for x, y, start in _batches(sample, config, device):
            images, keys = victim.images(x), sample.keys(start, len(y))
            for i, moved in enumerate(attack.each(victim, images, y, distances, victim.box, keys)):
                withstood[i] += int((right(victim, moved, y) & clean[start : start + len(y)]).sum())
        seconds = round((time.perf_counter() - began) / len(distances), 3)
        for distance, correct in zip(distances, withstood, strict=True):
            results.append({**attack.facts(distance), "space": space, **accuracy(correct, total), "seconds": seconds})
            log.info("%s %s %.4g: %.2f %%", attack.name, attack.norm, distance, results[-1]["top1"])
    return {"clean": accuracy(int(clean.sum()), total), "results": results}


def _batches(sample: Sample, config: Config, device: torch.device) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Bytes as floats, labels, and the place of the first image in the sample; batches as evaluation has them."""
    settings, start = config.data, 0
    stream = data.batches(
        sample.images, "test", settings.validation_batch_size,
        epoch=0, seed=0, train=False, device=device, workers=settings.workers,
    )  # fmt: skip
    for x, y in stream:
        yield x, y, start
        start += len(y)
