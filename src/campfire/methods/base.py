"""Method: how masks change. It is handed the pruner and never looks inside a structure."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

from torch import Tensor

from campfire.schedules import Schedule
from campfire.spelling import spell

REGISTRY: dict[str, type["Method"]] = {}


class Stage(Protocol):
    """One phase of a pruner as a method sees it."""

    schedule: Schedule
    applied: float | None  # the schedule's value when its masks were last made
    updates: int  # how many times they were


class Host(Protocol):
    """The pruner as a method sees it."""

    every: int  # steps between updates

    @property
    def steps(self) -> int:
        """Training steps done."""
        ...

    @property
    def stages(self) -> Sequence[Stage]:
        """The phases, in order."""
        ...

    def update(self, stage: Any, target: float, layers: Mapping[str, float] | None = None) -> None:
        """Tighten a phase's masks to the schedule's ``target``, shared by the allocation or given for each layer."""
        ...

    def saliencies(self, stage: Any) -> dict[str, Tensor]:
        """For each layer of the phase, every weight's share in its unit's score, flat; the dead at 0."""
        ...


@dataclasses.dataclass(frozen=True)
class Method(ABC):
    """How masks change during training. A subclass with a ``name`` is registered by being defined.

    One training step calls: ``penalty`` (added to the loss by the loop), backward, ``before_step``, the optimizer,
    ``after_step``.
    """

    name: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in vars(cls):  # a subclass that only inherits its name is another, private one
            REGISTRY[cls.name] = cls

    def __str__(self) -> str:
        return spell(self.name, self)

    def why_not(self, schedule: Schedule) -> list[str]:
        """Reasons why the method cannot follow this schedule; [] when it can."""
        return []

    def before_step(self, pruner: Host, epoch: float) -> None:
        """Gradients are ready, the optimizer has not stepped."""
        return

    @abstractmethod
    def after_step(self, pruner: Host, epoch: float) -> None:
        """The optimizer has stepped; ``epoch`` is that of the step."""

    def penalty(self, pruner: Host) -> Tensor | float:
        """A term for the loss."""
        return 0.0

    def state_dict(self) -> dict[str, Any]:
        """What a resume needs beyond the masks: tensors and plain values."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        return
