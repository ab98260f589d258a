"""How fast training images come, beside a bare DataLoader, and beside decoding alone. `python bench/data.py --workers 2`

The images are JPEGs of 500 x 375 pixels, made up, decoded and cropped at random to 224. All of it is read three ways: class
folders, WebDataset shards, and, where `datasets` is installed, Arrow tables. The bare DataLoader is what a page of PyTorch's
tutorial has: a Dataset that opens, crops and flips an image, the library's collation, and normalisation. Decoding alone is
the same work in as many processes, without batches, queues or normalisation. Rounds are interleaved; medians. CPU time, of all
processes together, tells the same where a machine is busy with other things.
"""

import argparse
import io
import json
import multiprocessing
import random
import resource
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from campfire.data import FileSet, ImageData, batches, load
from campfire.data.augment import CROP_DRAWS, random_part
from campfire.data.decode import read_image, to_array

SIDES, SIZE, CLASSES = (500, 375), 224, 8


def write(folder: Path, count: int) -> None:
    """``count`` images in class folders, and the same in shards."""
    chance = np.random.default_rng(0)
    (folder / "shards").mkdir()
    for part, first, last in (("train", 0, count), ("val", count, count + 2 * CLASSES)):
        with tarfile.open(folder / "shards" / f"{part}-0.tar", "w") as shard:
            for i in range(first, last):
                coarse = chance.integers(0, 256, (12, 16, 3), dtype=np.uint8)
                image = Image.fromarray(coarse).resize(SIDES, Image.Resampling.BICUBIC)
                grain = chance.normal(0, 12, (SIDES[1], SIDES[0], 3))
                image = Image.fromarray((np.asarray(image) + grain).clip(0, 255).astype(np.uint8))
                data = io.BytesIO()
                image.save(data, "JPEG", quality=90)
                path = folder / "files" / part / f"{i % CLASSES}" / f"{i:06}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data.getvalue())
                for name, content in ((f"{i:06}.jpg", data.getvalue()), (f"{i:06}.cls", b"%d" % (i % CLASSES))):
                    entry = tarfile.TarInfo(name)
                    entry.size = len(content)
                    shard.addfile(entry, io.BytesIO(content))


def to_arrow(folder: Path) -> bool:
    """The same in a table, where `datasets` is there."""
    try:
        import datasets
    except ImportError:
        return False
    datasets.disable_progress_bars()
    loaded = datasets.load_dataset("imagefolder", data_dir=str(folder / "files"), cache_dir=str(folder / "cache"))
    loaded.save_to_disk(str(folder / "arrow"))
    return True


class Bare(Dataset[tuple[torch.Tensor, int]]):
    """An image and its label."""

    def __init__(self, files: FileSet):
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.from_numpy(cropped(self.files, index).copy()), int(self.files.labels[index])


def cropped(files: FileSet, index: int) -> np.ndarray:
    draws = np.random.default_rng(index).random(CROP_DRAWS)
    return to_array(random_part(read_image(files, index, 3), SIZE, draws, flip=True))


def bare(data: ImageData, batch: int, workers: int) -> int:
    """An epoch of the library's own loader."""
    assert isinstance(data.train, FileSet)
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (data.mean, data.std))
    seen = 0
    for x, _ in DataLoader(Bare(data.train), batch_size=batch, shuffle=True, num_workers=workers, drop_last=True):
        x.float().div_(255).sub_(mean).div_(std)
        seen += len(x)
    return seen


def ours(data: ImageData, batch: int, workers: int) -> int:
    """An epoch of `campfire.data.batches`, as `campfire train` takes it."""
    stream = batches(data, "train", batch, epoch=0, seed=0, train=True, workers=workers, channels_last=True)
    return sum(len(x) for x, _ in stream)


def _decode(job: tuple[FileSet, range]) -> int:
    files, part = job
    return sum(len(cropped(files, i)) // 3 for i in part)


def decoding(data: ImageData, batch: int, workers: int) -> int:
    """Every image decoded and cropped by ``workers`` processes, and thrown away."""
    files, processes = data.train, max(1, workers)
    assert isinstance(files, FileSet)
    jobs = [(files, range(first, len(files), processes)) for first in range(processes)]
    if workers == 0:
        return _decode(jobs[0])
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        return sum(pool.map(_decode, jobs))


def cpu() -> float:
    """Seconds that this process and those that ended under it have computed."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in spent)


Subjects = dict[str, tuple[Callable[..., int], ImageData]]


def measure(subjects: Subjects, batch: int, workers: int, rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """Medians of images a second, and of milliseconds of CPU time an image."""
    rates: dict[str, list[float]] = {name: [] for name in subjects}
    costs: dict[str, list[float]] = {name: [] for name in subjects}
    names = list(subjects)
    for _ in range(rounds):
        random.shuffle(names)
        for name in names:
            run, data = subjects[name]
            began, spent = time.perf_counter(), cpu()
            count = run(data, batch, workers)
            rates[name].append(count / (time.perf_counter() - began))
            costs[name].append(1000 * (cpu() - spent) / count)
    return _medians(rates), _medians(costs)


def _medians(found: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in found.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="campfire-data-") as name:
        folder = Path(name)
        write(folder, args.images)
        files = load(folder / "files")
        subjects: Subjects = {
            "bare": (bare, files), "decoding": (decoding, files), "files": (ours, files), "shards": (ours, load(folder / "shards")),
        }  # fmt: skip
        if to_arrow(folder):
            subjects["arrow"] = (ours, load(f"hfds/{folder / 'arrow'}"))
        rates, costs = measure(subjects, args.batch, args.workers, args.rounds)
    found: dict[str, Any] = {**vars(args), "images_per_second": rates, "cpu_ms_per_image": costs}
    own = [name for name in subjects if name not in ("bare", "decoding")]
    for beside in ("bare", "decoding"):
        found[f"rate_of_{beside}"] = {name: round(rates[name] / rates[beside], 3) for name in own}
        found[f"cpu_of_{beside}"] = {name: round(costs[name] / costs[beside], 3) for name in own}
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
