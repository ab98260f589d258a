"""Method: how masks change. It is handed the pruner and never looks inside a structure."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from campfire.schedules import Schedule
from campfire.spelling import spell

REGISTRY: dict[str, type["Method"]] = {}
Shape = tuple[int, ...]


class Stage(Protocol):
    """One phase of a pruner as a method sees it."""

    schedule: Schedule
    structures: dict[str, Any]  # by layer
    applied: float | None  # the schedule's value when its masks were last made
    updates: int  # how many times they were

    def target_of(self, layer: str, target: float) -> float:
        """The layer's sparsity when the schedule stands at ``target``."""
        ...


class Host(Protocol):
    """The pruner as a method sees it."""

    every: int  # steps between updates
    seed: int  # of everything drawn
    model: nn.Module

    @property
    def steps(self) -> int:
        """Training steps done."""
        ...

    @property
    def epoch(self) -> float:
        """Epochs trained."""
        ...

    @property
    def stages(self) -> Sequence[Stage]:
        """The phases, in order."""
        ...

    def update(
        self,
        stage: Any,
        target: float,
        layers: Mapping[str, float] | None = None,
        scores: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Tighten a phase's masks to the schedule's ``target``, shared by the allocation or given for each layer; the best
        by the pruner's score, or by ``scores`` [K, C, R, S], live."""
        ...

    def select(self, stage: Any, target: float, scores: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, ...]]:
        """The masks that `update` would make, as the masks whose intersection each of them is; none changes."""
        ...

    def regrow(
        self,
        stage: Any,
        target: float,
        survivors: Mapping[str, Tensor],
        growth: Mapping[str, Tensor],
        layers: Mapping[str, float] | None = None,
        regroup: bool = False,
    ) -> None:
        """Make a phase's masks anew, not inside the previous ones: ``survivors`` first, then the best by ``growth``."""
        ...

    def saliencies(self, stage: Any, scores: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """For each layer of the phase, every weight's share in its unit's score, flat; the dead at 0."""
        ...

    def survivors(self, stage: Any, scores: Mapping[str, Tensor], counts: Mapping[str, int]) -> dict[str, Tensor]:
        """The best ``counts`` of each layer's living weights, in whole units as far as they go."""
        ...

    def shares(self, stage: Any, target: float, scores: Mapping[str, Tensor]) -> dict[str, float]:
        """Each layer's sparsity at ``target`` if these scores were to decide."""
        ...

    def weights(self, stage: Any) -> dict[str, Tensor]:
        """The weights of the phase's layers, as the model holds them."""
        ...

    def keeps(self, stage: Any) -> dict[str, Tensor]:
        """bool [K, C, R, S] for each layer of the phase."""
        ...

    def gradients(self, stage: Any) -> dict[str, Tensor]:
        """The loss's gradient of every weight, also of the dead where `Method.wants_gradients` asked for it, [K, C, R, S]."""
        ...

    def scaled(self, gradient: Tensor) -> Tensor:
        """What is to be added to a weight's ``grad`` in `Method.before_step`, with GradScaler's factor where that is still on it."""
        ...

    def budget(self, stage: Any, layer: str, sparsity: float) -> int:
        """How many weights of a layer live at this sparsity."""
        ...

    def sparsity_for(self, stage: Any, layer: str, count: int) -> float:
        """The smallest sparsity at which ``count`` weights of a layer live, or fewer."""
        ...

    def average(self, tensors: Iterable[Tensor]) -> list[Tensor]:
        """The mean of each tensor over all ranks."""
        ...

    def forget(self) -> None:
        """Drop what the optimizers remember of earlier steps."""
        ...


@dataclasses.dataclass(frozen=True)
class Method(ABC):
    """How masks change during training. A subclass with a ``name`` is registered by being defined.

    One training step calls: ``batch`` and ``penalty`` (added to the loss; both by the loop), backward, ``before_step``, the
    optimizer, ``after_step``.
    """

    name: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in vars(cls):  # a subclass that only inherits its name is another, private one
            REGISTRY[cls.name] = cls

    def __str__(self) -> str:
        return spell(self.name, self)

    @property
    def memory(self) -> dict[str, Any]:
        """What the method remembers of the training under way; the options stay as they were given."""
        return vars(self).setdefault("_memory", {})

    def why_not(self, schedule: Schedule) -> list[str]:
        """Reasons why the method cannot follow this schedule; [] when it can."""
        return []

    def why_not_on(self, stages: Sequence[Stage]) -> list[str]:
        """Reasons why the method cannot work on these phases and their structures; [] when it can."""
        return []

    def wants_gradients(self, pruner: Host, epoch: float) -> bool:
        """Whether `before_step` of the step under way will ask for gradients of dead weights; asked during backward."""
        return False

    def batch(self, pruner: Host, loss: Tensor, inputs: tuple[Any, ...]) -> None:
        """A batch went forward: its loss, with its graph, and what the model was given."""
        return

    def before_step(self, pruner: Host, epoch: float) -> None:
        """Gradients are ready, the optimizer has not stepped."""
        return

    @abstractmethod
    def after_step(self, pruner: Host, epoch: float) -> None:
        """The optimizer has stepped; ``epoch`` is that of the step."""

    def penalty(self, pruner: Host) -> Tensor | float:
        """A term for the loss."""
        return 0.0

    def lr_time(self, stages: Sequence[Stage], epoch: float, epochs: float) -> tuple[float, float]:
        """Where a learning-rate schedule over ``epochs`` stands at ``epoch``: epochs passed, of how many."""
        return epoch, epochs

    def state_dict(self) -> dict[str, Any]:
        """What a resume needs beyond the masks: tensors and plain values."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any], shapes: Mapping[str, Shape]) -> None:
        """Take back what `state_dict` gave, for layers of these shapes.

        Raises:
            KeyError, TypeError, ValueError: it is damaged; nothing has changed.
        """
        return


def read_tensors(state: Mapping[str, Any], shapes: Mapping[str, Shape]) -> dict[str, Tensor]:
    """A finite tensor [K, C, R, S] for some of the layers out of a state; raise ValueError for anything else."""
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor) or tuple(tensor.shape) != shapes.get(name):
            raise ValueError(f"no tensor of the shape of layer {name!r}")
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"what it holds for layer {name!r} is not finite")
    return {name: tensor.clone() for name, tensor in state.items()}
