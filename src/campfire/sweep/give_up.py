"""When a trial is not worth its last epochs."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from campfire.errors import UnknownName, UsageError

KEYS = ("epoch", "top1")


@dataclass(frozen=True)
class GiveUp:
    """``give_up: {epoch: 10, top1: 20}``: a trial whose test top-1 after 10 epochs is below 20 % is stopped there."""

    epoch: int
    top1: float

    @classmethod
    def read(cls, given: Any, place: str) -> "GiveUp | None":
        """From a mapping of `KEYS`; None from None."""
        if given is None:
            return None
        if not isinstance(given, dict) or set(KEYS) - set(given):
            raise UsageError(f"{place}: give_up needs epoch and top1; got {given!r:.60}")
        for key in given:
            if key not in KEYS:
                raise UsageError(f"{place}: {UnknownName('key of give_up', key, KEYS)}")
        epoch, top1 = given["epoch"], given["top1"]
        if type(epoch) is not int or epoch < 1 or not isinstance(top1, int | float) or not 0 <= top1 <= 100:
            raise UsageError(f"{place}: give_up needs a whole epoch above 0 and a top1 in percent; got {given}")
        return cls(epoch, float(top1))

    def reason(self, folder: Path) -> str | None:
        """Why the run in this directory is given up; None while it is not."""
        try:
            line = (folder / "metrics.jsonl").read_text().splitlines()[self.epoch - 1]
            top1 = float(json.loads(line)["eval_top1"])
        except (OSError, LookupError, ValueError, TypeError):
            return None
        return None if top1 >= self.top1 else f"top-1 {top1:.2f} % after epoch {self.epoch}, below {self.top1:g} %"
