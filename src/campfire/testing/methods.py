"""What every method must pass."""

import copy
import io
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from campfire.errors import DoesNotFit
from campfire.mask import view4
from campfire.methods import Method, named
from campfire.pruner import Pruner
from campfire.schedules import Era, OneShot, Schedule, Steps
from campfire.structures.base import Structure
from campfire.testing.saying import Say

METHOD_STRUCTURES = ("fine", "ck", "tiles:rows=4,channels=2", "hrbp:rows=4,channels=2", "window", "filter")
PACE, STEPS, BATCHES = 3, 18, 2  # optimizer steps in an epoch, in a run, and batches in a step
SKIPPED = (0, 7)  # attempts at a step that meet an infinity
SPARSITY = 0.5


def method_schedules(sparsity: float = SPARSITY) -> list[Schedule]:
    """One schedule of each kind that ends within the runs of the suite."""
    return [
        Era(0, 4, sparsity, initial=sparsity, by="step"),
        Era(1, 3, sparsity, by="step"),
        Steps(((1, sparsity / 2), (3, sparsity))),
        OneShot(0, sparsity),
    ]


def check_method(
    method: str | Method,
    structures: Iterable[Structure | str] = METHOD_STRUCTURES,
    schedules: Iterable[Schedule] | None = None,
    **options: Any,
) -> int:
    """Train a small network by one method in every structure and by every schedule that it does not refuse; returns how many.

    After every step each mask must be legal by its structure's own rule and hold exactly the declared count, all layers together
    the budget of their allocation (to one unit, where the schedule's target is applied), and dead weights, the gradients that
    reach the loop, and optimizer state must be zero. A step that GradScaler skips must change nothing. Masks must be frozen at
    the end, and not change after that. A run that is stopped anywhere and resumed from a file must end bit for bit as the other.

    Args:
        structures: for the layers of the network; those the method refuses are left out.
        options: of `Pruner`, such as ``allocation="erk"``.

    >>> check_method("gradual", ["ck"])
    4

    Raises:
        AssertionError: what failed, in which structure, by which schedule, after which step.
    """
    plugin = named(method) if isinstance(method, str) else method
    _check_page(plugin)
    cases = 0
    for structure in structures:
        for schedule in method_schedules() if schedules is None else schedules:
            try:
                trial = Trial(plugin, structure, schedule, **options)
            except DoesNotFit:
                continue
            _check_case(trial, lambda s=structure, t=schedule: Trial(plugin, s, t, **options))
            cases += 1
    assert cases, f"{plugin} refuses all the structures and schedules that it was given"
    return cases


def _check_page(method: Method) -> None:
    assert hash(method) == hash(method), "a method is a frozen dataclass"
    assert named(str(method)) == method, f"{str(method)!r} is not read back as the same method"
    page = type(method).__doc__ or ""
    assert "Source:" in page, f"{method.name} has no page: its docstring says what it does, when, and its source"


class Trial:
    """A small network in training.

    Args:
        wrap: makes of the network what is called, such as `DistributedDataParallel`.
        rank, world: the batches of this process: every ``world``-th one.
    """

    def __init__(
        self,
        method: str | Method,
        structure: Structure | str,
        schedule: Schedule,
        wrap: Callable[[nn.Module], nn.Module] = lambda model: model,
        rank: int = 0,
        world: int = 1,
        **options: Any,
    ):
        self.case = f"{method} with {structure} by {schedule}"
        self.model = _net()
        self.called, self.rank, self.world = wrap(self.model), rank, world
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
        rules: Any = {"body": structure, "point": structure}
        self.pruner = Pruner(self.model, rules, schedule, method=method, **options).attach(self.optimizer, PACE)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)  # pyright: ignore[reportPrivateImportUsage]
        self.tries = 0

    def backward(self, spoil: bool = False) -> None:
        """The gradients of one attempt at a step, of several batches."""
        self.optimizer.zero_grad()
        for part in range(BATCHES):
            x, y = _batch((self.tries * BATCHES + part) * self.world + self.rank)
            loss = nn.functional.cross_entropy(self.called(x), y)
            self.pruner.batch(loss, x)
            self.scaler.scale((loss + self.pruner.penalty()) / BATCHES).backward()
        if spoil and (grad := dict(self.model.named_parameters())["head.bias"].grad) is not None:
            grad.fill_(torch.inf)

    def step(self) -> None:
        """The optimizer's."""
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.tries += 1

    def run(self, tries: int) -> "Trial":
        """Go on without looking, until so many attempts were made."""
        while self.tries < tries:
            self.backward(spoil=self.tries in SKIPPED)
            self.step()
        return self

    def state(self) -> dict[str, Any]:
        """All of it, in a file's memory."""
        parts = {"model": self.model, "optimizer": self.optimizer, "pruner": self.pruner, "scaler": self.scaler}
        file = io.BytesIO()
        torch.save({n: p.state_dict() for n, p in parts.items()} | {"tries": self.tries}, file)
        file.seek(0)
        return torch.load(file, weights_only=True)

    def load(self, state: dict[str, Any]) -> "Trial":
        """Stand where the other one stood."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.pruner.load_state_dict(state["pruner"])
        self.scaler.load_state_dict(state["scaler"])
        self.tries = state["tries"]
        return self

    def kept(self) -> dict[str, Tensor]:
        """The masks."""
        return {n: x.keep.clone() for n, x in self.pruner.layers.items()}


def _check_case(trial: Trial, again: Callable[[], Trial]) -> None:
    saved, before = [], trial.kept()
    for attempt in range(STEPS):
        say = Say(f"{trial.case}, attempt {attempt}: ")
        if attempt in (1, 5, 11):
            saved.append(trial.state())
        frozen, spoil = trial.pruner.frozen, attempt in SKIPPED
        trial.backward(spoil)
        _check_gradients(trial, say)
        weights = copy.deepcopy(trial.model.state_dict()) if spoil else {}
        trial.step()
        if frozen or spoil:
            say(
                _same(before, trial.kept()),
                f"masks change {'in a skipped step' if spoil else 'after they were frozen'}",
            )
        if spoil:
            now = trial.model.state_dict()
            say(all(torch.equal(x, now[n]) for n, x in weights.items()), "a skipped step changes the model")
        _check_step(trial, say)
        before = trial.kept()
    assert trial.pruner.frozen, f"{trial.case}: masks are not frozen at the end"
    wanted = trial.state()
    for state in saved:
        there = again().load(state).run(STEPS).state()
        assert not (found := _difference(wanted, there)), f"{trial.case}, resumed at {state['tries']}: {found} differs"


def _check_gradients(trial: Trial, say: Say) -> None:
    for name, layer in trial.pruner.layers.items():
        grad = layer.weight.grad
        say(grad is None or not view4(grad)[~layer.keep].any(), f"gradients of dead weights reach the loop in {name}")


def _check_step(trial: Trial, say: Say) -> None:
    for name, layer in trial.pruner.layers.items():
        dead, count = ~layer.keep, layer.structure.count(layer.target.shape, layer.requested)
        say(layer.kept == count, f"{name} keeps {layer.kept} weights, declared {count} at {layer.requested}")
        if (mask := layer.mask) is not None:
            say(
                not (bad := layer.structure.why_invalid(mask)), f"the mask of {name} breaks its structure's rule: {bad}"
            )
        state = trial.optimizer.state.get(layer.weight, {}).values()
        like = [v for v in state if isinstance(v, Tensor) and v.shape == layer.weight.shape]
        say(
            not any(view4(x)[dead].any() for x in (layer.weight.detach(), *like)),
            f"dead weights of {name} are not zero",
        )
    _check_budget(trial.pruner, say)


def _check_budget(pruner: Pruner, say: Say) -> None:
    (stage,) = pruner.stages
    if not stage.applied:
        return
    shapes = {n: x.target.shape for n, x in pruner.layers.items()}
    declared = sum(s.count(shapes[n], stage.target_of(n, stage.applied)) for n, s in stage.structures.items())
    unit = max(round(s.least(shapes[n]) * x.weight.numel()) for n, x in pruner.layers.items() for s in [x.structure])
    kept = sum(x.kept for x in pruner.layers.values())
    say(kept <= declared, f"{kept} weights live, the budget is {declared}")
    low = stage.applied < stage.schedule.target or kept > declared - unit
    say(low, f"{kept} weights live, a unit of {unit} or more below the budget of {declared}")


def _same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[n], other[n]) for n in one)


def _difference(one: Any, other: Any, where: str = "") -> str:
    """The first place where two trees differ; "" where they are equal bit for bit."""
    if isinstance(one, dict) and isinstance(other, dict) and list(one) == list(other):
        return next((d for k in one if (d := _difference(one[k], other[k], f"{where}/{k}"))), "")
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return next(
            (d for i, (a, b) in enumerate(zip(one, other, strict=True)) if (d := _difference(a, b, f"{where}/{i}"))), ""
        )
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return "" if torch.equal(one, other) else where
    return "" if type(one) is type(other) and one == other else where


def _net() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            OrderedDict(
                stem=nn.Conv2d(2, 8, 3, padding=1),
                norm=nn.BatchNorm2d(8),
                relu=nn.ReLU(),
                body=nn.Conv2d(8, 12, 3, padding=1),
                relu2=nn.ReLU(),
                point=nn.Conv2d(12, 16, 1),
                pool=nn.AdaptiveAvgPool2d(1),
                flat=nn.Flatten(),
                head=nn.Linear(16, 5),
            )
        )


def _batch(number: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(number)
    return torch.randn(8, 2, 6, 6, generator=generator), torch.randint(5, (8,), generator=generator)
