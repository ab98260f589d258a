"""The run directory: every file a run writes, and how (whole or not at all)."""

import csv
import io
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from campfire.errors import UsageError
from campfire.files.writing import left, replacing
from campfire.training import checkpoint

if TYPE_CHECKING:
    from campfire.training.board import Board


FILES = (
    *("config.yaml", "env.json", "status.json", "metrics.jsonl", "summary.csv", "summary.json", "last.pt", "best.pt"),
    *("model.safetensors", "sparsity.json", "log.txt", "report.md", "report.html", "previous.pt", "damaged.pt"),
    *("attack.json", "costs.json", "kernels.json"),
)
BOARD = "tensorboard"  # the folder of event files


class RunDirectory:
    """A run's own directory.

    =====================  =====================================================================
    ``config.yaml``        the complete configuration; ``--config`` reads it
    ``env.json``           command, versions, machine, seed
    ``status.json``        running, done, diverged, preempted or failed; exit code, epoch, step
    ``metrics.jsonl``      one record an epoch; ``summary.csv`` has the same as a table
    ``summary.json``       the final numbers
    ``last.pt``            the newest checkpoint; resume continues it
    ``previous.pt``        the one before it: resume falls back on it where the newest is damaged (then ``damaged.pt``)
    ``previous-2.pt`` ...  those before, where ``--keep-checkpoints`` asks for them
    ``best.pt``            the checkpoint of the best top-1 among epochs at the target sparsity
    ``epoch-<N>.pt``       the checkpoint after N epochs, where ``--keep-epochs`` names N
    ``model.safetensors``  the final weights, zeros included: an ordinary state dict
    ``sparsity.json``      what was asked of each layer, and what is true
    ``log.txt``            the log
    ``report.md``          the report; ``report.html`` and ``figures/`` are there once `campfire report` was asked
    ``attack.json``        what attacks left of the accuracy (`campfire attack`)
    ``costs.json``         zeros, MACs, storage and memory references of every layer
    ``kernels.json``       which kernels ran the layers of a compressed run, and how fast
    ``tensorboard/``       the history as TensorBoard events, where ``--tensorboard`` asks for them
    =====================  =====================================================================
    """

    def __init__(self, path: Path, writes: bool = True):
        self.path, self.writes = path, writes  # one process of several does
        self.last, self.best = path / "last.pt", path / "best.pt"
        self.previous, self.damaged = path / "previous.pt", path / "damaged.pt"
        self.board: Board | None = None  # sees the history, too

    @property
    def generations(self) -> list[Path]:
        """The checkpoints that are there, the newest first."""
        return [p for p in (self.last, self.previous, *self._older()) if p.exists()]

    def _older(self) -> list[Path]:
        numbered = ((p.stem.rpartition("-")[2], p) for p in self.path.glob("previous-*.pt"))
        return [p for _, p in sorted((int(n), p) for n, p in numbered if n.isdigit())]

    def _files(self) -> list[Path]:
        """Those of a run that are there."""
        named = [p for name in FILES if (p := self.path / name).exists()]
        return [*named, *self._older(), *self.path.glob("epoch-*.pt")]

    def require_directory(self) -> None:
        """Raise `UsageError` where it is a file."""
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"the output {self.path} is a file; give a directory")

    def refuse_another_run(self) -> None:
        """Raise `UsageError` where the directory holds a run."""
        if held := [p.name for p in self._files()]:
            raise UsageError(
                f"the output {self.path} holds another run ({', '.join(held[:3])}{', ...' * (len(held) > 3)}); "
                "continue it with --resume auto, replace it with --overwrite, or give another --output"
            )

    def refuse_finished_run(self) -> None:
        """Raise `UsageError` where it holds what lasts of a run, and no checkpoint to go on from."""
        if held := [name for name in ("model.safetensors", "summary.json") if (self.path / name).exists()]:
            raise UsageError(
                f"the output {self.path} holds a finished run ({', '.join(held)}) without a checkpoint to go on from; "
                "replace it with --overwrite, or give another --output"
            )

    def kept(self, epoch: int) -> Path:
        """The checkpoint that is kept of the time after so many epochs."""
        return self.path / f"epoch-{epoch}.pt"

    def clear(self) -> None:
        """Delete the files of a run, and no others; the last checkpoint goes last: killed before, an earlier one would go on."""
        files = [*self._files(), *self.path.glob(f"{BOARD}/events.out.tfevents.*")]
        for path in sorted(files, key=lambda path: path == self.last):
            path.unlink()
        self.sweep()

    def forget_attacks(self) -> None:
        """Delete what attacks on earlier weights left: a report would set it beside the accuracy of others."""
        (self.path / "attack.json").unlink(missing_ok=True)

    def sweep(self) -> None:
        """Delete what a killed run had not finished writing."""
        named = [path for name in FILES for path in left(self.path / name)]
        for path in (*named, *self.path.glob(".*-*.pt.*.tmp")):
            path.unlink(missing_ok=True)

    def write_weights(self, model: nn.Module) -> None:
        """``model.safetensors``."""
        if self.writes:
            checkpoint.save_weights(self.path / "model.safetensors", model)

    def write_text(self, name: str, text: str) -> None:
        """Write a file, whole or not at all."""
        if not self.writes:
            return
        with replacing(self.path / name) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file, whole or not at all."""
        self.write_text(name, json.dumps(value, indent=2) + "\n")

    def write_history(self, records: Sequence[Mapping[str, Any]]) -> None:
        """``metrics.jsonl`` and ``summary.csv``: one record an epoch, always the whole history, so never one twice."""
        self.write_text("metrics.jsonl", "".join(json.dumps(r) + "\n" for r in records))
        table, names = (
            io.StringIO(),
            dict.fromkeys(name for record in records for name in record),
        )  # older ones have fewer
        writer = csv.DictWriter(table, list(names), lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
        self.write_text("summary.csv", table.getvalue())
        if self.board is not None:
            self.board.write(records)

    def write_status(self, state: str, exit_code: int | None, reason: str, epoch: int, step: int) -> None:
        """``status.json``: launchers hide exit codes, so the run itself says how it went."""
        self.write_json(
            "status.json", {"state": state, "exit_code": exit_code, "reason": reason, "epoch": epoch, "step": step}
        )


def fresh(model: str, data: str) -> Path:
    """``runs/<time>-<model>-<data>`` in the working directory, not yet there."""
    words = [word.replace("/", "-").replace(":", "-") for word in (model, Path(data).name or "data")]
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{'-'.join(words)}"
    free = (Path("runs") / (stem + suffix) for suffix in ("", *(f"-{i}" for i in range(2, 1000))))
    return next(path for path in free if not path.exists())
