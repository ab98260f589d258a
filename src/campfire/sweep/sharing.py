"""Trials that start from another trial's checkpoint: what their first epochs have in common is trained once."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from campfire.config import OPTIONS, prunes
from campfire.config.schema import FREE
from campfire.errors import UnknownName, UsageError
from campfire.sweep.trial import Trial, varied

KEYS = ("group", "epoch", "differs")
EARLY = (
    "lottery",
    "prunetrain",
)  # methods that train otherwise from the first step on: a learning rate or a lasso of their own


@dataclass(frozen=True)
class Start:
    """``from``: a group before this one, how many of its epochs are taken over, and what else may differ.

    The parent of a trial is the one that agrees with it in everything that the parent's group varies, such as the seed. Its
    first epochs are those of the trial bit for bit only where nothing but ``pruning`` differs, and pruning begins
    later: everything else is refused unless ``differs`` names it.
    """

    place: str
    group: str
    epoch: int | None = None
    differs: tuple[str, ...] = ()

    @classmethod
    def read(cls, given: Any, place: str) -> "Start":
        """From the name of a group, or a mapping of `KEYS`."""
        tree = {"group": given} if isinstance(given, str) else given
        if not isinstance(tree, dict) or not isinstance(tree.get("group"), str):
            raise UsageError(f"{place}: must be the name of a group, or hold {', '.join(KEYS)}; got {given!r:.60}")
        for key in tree:
            if key not in KEYS:
                raise UsageError(f"{place}: {UnknownName('key', key, KEYS)}")
        epoch, differs = tree.get("epoch"), tree.get("differs") or []
        if epoch is not None and (type(epoch) is not int or epoch < 1):  # True is an int, too
            raise UsageError(f"{place}: epoch is the number of epochs to take over, 1 or more; got {epoch!r}")
        if not isinstance(differs, list) or not all(isinstance(path, str) for path in differs):
            raise UsageError(f"{place}: differs is a list of options, such as [optim.epochs]; got {differs!r:.60}")
        for path in differs:
            if path not in OPTIONS:
                raise UsageError(f"{place}: {UnknownName('option', path, OPTIONS)}")
        return cls(place, tree["group"], epoch, tuple(differs))

    def of(self, trial: Trial, earlier: Sequence[Trial]) -> Trial:
        """The trial with its parent among the ``earlier`` ones."""
        parent, begins = self._parent(trial, earlier), _begins(trial)
        epoch = math.floor(begins) if self.epoch is None else self.epoch
        if not 1 <= epoch <= begins:
            raise UsageError(
                f"{self.place}: a trial prunes from epoch {begins:g} on, which leaves no {epoch} to share (method "
                f"{trial.config.pruning.method}); drop from, or take over fewer epochs"
            )
        if epoch > parent.config.optim.epochs:
            raise UsageError(f"{self.place}: {self.group} has {parent.config.optim.epochs} epochs; got {epoch}")
        self._check_equal(trial, parent)
        return replace(trial, parent=parent, epoch=epoch)

    def _parent(self, trial: Trial, earlier: Sequence[Trial]) -> Trial:
        group = [t for t in earlier if t.group == self.group]
        if not group:
            known = dict.fromkeys(t.group for t in earlier)
            raise UsageError(
                f"{self.place}: {UnknownName('earlier group', self.group, known or ['(this is the first)'])}"
            )
        paths = varied(group)
        found = [t for t in group if all(t.value(path) == trial.value(path) for path in paths)]
        if len(found) != 1:
            wanted = ", ".join(f"{path} {trial.value(path)}" for path in paths)
            raise UsageError(
                f"{self.place}: {len(found)} trials of {self.group} have {wanted or 'these options'}; need one"
            )
        return found[0]

    def _check_equal(self, trial: Trial, parent: Trial) -> None:
        free = {*FREE, *self.differs}
        paths = [p for p in OPTIONS if p not in free and not p.startswith("pruning.")]
        if other := [p for p in paths if trial.value(p) != parent.value(p)]:
            raise UsageError(
                f"{self.place}: a trial differs from its parent in {', '.join(other)}, so their first epochs are not the same; "
                "drop from, or name these options in differs to start from other epochs than its own"
            )


def _begins(trial: Trial) -> float:
    """The epoch in which a trial begins to differ from a dense one; without any pruning, the last."""
    pruning = trial.config.pruning
    if not prunes(pruning):
        return trial.config.optim.epochs
    if pruning.method.partition(":")[0].strip() in EARLY:
        return 0.0
    if pruning.schedule == "steps" and pruning.steps:
        return min(epoch for epoch, _ in pruning.steps)
    return pruning.era_start or 0.0
