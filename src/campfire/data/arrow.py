"""Data sets of Hugging Face's ``datasets``: rows of Arrow files, by name or from a folder."""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from campfire.data.sets import EncodedSet
from campfire.data.source import Source
from campfire.errors import CampfireError, UsageError
from campfire.extras import need

PREFIX = "hfds/"
TEST_SPLITS = ("validation", "val", "valid", "test")  # the first that is there is tested on
LABELS = ("label", "labels", "fine_label")
_LOOKED_AT = 64  # images whose sizes tell this data set from others


@dataclass(frozen=True, eq=False)
class ArrowSet(EncodedSet):
    """Images in rows of a table, whose column holds encoded files."""

    table: Any
    column: str
    rows: np.ndarray  # int64 [N]

    def open(self, index: int) -> str | io.BytesIO:
        cell = self.table[int(self.rows[index])][self.column]
        return cell["path"] if cell["bytes"] is None else io.BytesIO(cell["bytes"])

    def where(self, index: int) -> str:
        return f"in row {self.rows[index]} of {self.root}"

    def take(self, index: np.ndarray) -> "ArrowSet":
        return ArrowSet(self.labels[torch.from_numpy(index)], self.root, self.table, self.column, self.rows[index])

    def _identity(self) -> Iterable[bytes | memoryview]:
        for i in np.unique(np.linspace(0, len(self) - 1, _LOOKED_AT, dtype=np.int64)):
            image = self.open(int(i))
            yield image.encode() if isinstance(image, str) else image.getvalue()


def read(name: str) -> Source:
    """``hfds/NAME``, as ``datasets.load_dataset`` finds it, or a folder that ``save_to_disk`` wrote.

    Raises:
        CampfireError: ``datasets`` is not installed, or finds no such data set.
        UsageError: it has no split to train on, no column of images, or none of labels.
    """
    splits = _load(name)
    if "train" not in splits:
        raise UsageError(f"{name} has the splits {', '.join(splits)}; wanted train")
    test = next((split for split in TEST_SPLITS if split in splits), None)
    train, classes = _set(name, splits["train"], "train")
    if test is None:
        return Source(name, classes, train, None)
    tested, others = _set(name, splits[test], test)
    if others != classes[: len(others)]:  # plain numbers have no names, and the highest may be missing
        raise UsageError(f"{name}: {test} has other classes than train; wanted the same")
    return Source(name, classes, train, tested)


def _library(name: str) -> Any:
    return need(name, "data", "datasets")[0]


def _load(name: str) -> Any:
    datasets, name = _library(name), name.removeprefix(PREFIX)
    try:
        if (Path(name) / "dataset_dict.json").is_file():
            return datasets.load_from_disk(name)
        if (Path(name) / "dataset_info.json").is_file():  # one table, without splits
            return {"train": datasets.load_from_disk(name)}
        return datasets.load_dataset(name)
    except Exception as error:  # of many libraries
        line = str(error).strip().partition("\n")[0]
        raise CampfireError(f"datasets cannot load {name!r} ({type(error).__name__}: {line})") from None


def _set(name: str, table: Any, split: str) -> tuple[ArrowSet, list[str]]:
    datasets = _library(name)
    features = table.features
    images = [column for column, kind in features.items() if isinstance(kind, datasets.Image)]
    labels = [column for column in LABELS if column in features] or [
        column for column, kind in features.items() if isinstance(kind, datasets.ClassLabel)
    ]
    if len(images) != 1 or not labels:
        raise UsageError(
            f"{name} has the columns {', '.join(features)}; wanted one of images, and {' or '.join(LABELS)}"
        )
    kind, numbers = features[labels[0]], _numbers(table[labels[0]][:], f"{name}: the column {labels[0]} of {split}")
    classes = (
        list(kind.names) if isinstance(kind, datasets.ClassLabel) else [str(n) for n in range(int(numbers.max()) + 1)]
    )
    if not ((numbers >= 0) & (numbers < len(classes))).all():
        raise UsageError(
            f"{name}: {split} holds images without a label (or with one below 0); "
            "wanted the number of a class for each: leave these out (filter of datasets)"
        )
    encoded = table.select_columns([images[0]]).cast_column(images[0], datasets.Image(decode=False))
    return ArrowSet(numbers, f"{name}, {split}", encoded, images[0], np.arange(len(table))), classes


def _numbers(labels: Iterable[Any], what: str) -> torch.Tensor:
    """int64 [N].

    >>> _numbers([0, 2], "the labels").tolist()
    [0, 2]
    """
    found = list(labels)
    if odd := [label for label in found if not isinstance(label, int)][:1]:
        raise UsageError(
            f"{what} holds {odd[0]!r}; wanted the number of a class for each image: make numbers of words "
            "(class_encode_column of datasets)"
        )
    return torch.tensor(found, dtype=torch.int64)
