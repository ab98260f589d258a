"""TensorBoard: the numbers of every epoch as scalars, in ``tensorboard/`` of the run directory, where that was asked for."""

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from campfire.errors import CampfireError
from campfire.training.run_directory import BOARD, RunDirectory

TAGS = {  # field of a record: what TensorBoard calls it
    "eval_top1": "accuracy/top-1",
    "eval_top5": "accuracy/top-5",
    "train_top1": "accuracy/top-1, training images",
    "eval_loss": "loss/test",
    "train_loss": "loss/training",
    "sparsity_true": "sparsity/true",
    "sparsity_requested": "sparsity/requested",
    "lr": "training/learning rate",
    "images_per_second": "training/images per second",
    "data_wait": "training/share of the time waiting for images",
}


class Board:
    """The event file of a run; as the other files of a history it is always the whole of it, so never an epoch twice."""

    def __init__(self, folder: Path):
        from torch.utils.tensorboard import SummaryWriter

        forget(folder)
        self._writer = SummaryWriter(str(folder))
        self._written = 0

    def write(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Add the epochs that are not there yet."""
        for record in records[self._written :]:
            for field, tag in TAGS.items():
                if record.get(field) is not None:
                    self._writer.add_scalar(tag, record[field], record["epoch"] + 1)
        self._written = len(records)
        self._writer.flush()

    def close(self) -> None:
        """Nothing more will come."""
        self._writer.close()


def require() -> None:
    """Raise `CampfireError`, with the cure, where TensorBoard is missing."""
    if importlib.util.find_spec("tensorboard") is None:
        raise CampfireError(
            "--tensorboard needs the tensorboard package, which is not installed; "
            "pip install 'campfire-sparse[tensorboard]', or leave the flag out: metrics.jsonl has the same numbers"
        )


def forget(folder: Path) -> None:
    """Delete the event files of an earlier start."""
    for events in folder.glob("events.out.tfevents.*"):
        events.unlink()


@contextmanager
def shown(folder: RunDirectory, wanted: bool) -> Iterator[None]:
    """Meanwhile the history is written to TensorBoard, too, if that is wanted."""
    if not wanted:
        yield
        return
    folder.board = Board(folder.path / BOARD)
    try:
        yield
    finally:
        folder.board.close()
