"""What every structure must pass."""

from collections.abc import Iterable

import torch
from torch import Tensor

from campfire.mask import Mask
from campfire.packed import pack
from campfire.selection import keep_best
from campfire.structures import REGISTRY, Structure, named
from campfire.structures.base import Plan, Shape
from campfire.testing.saying import Say

SHAPES: tuple[Shape, ...] = (
    (16, 8, 3, 3),
    (64, 16, 3, 3),
    (40, 20, 1, 1),
    (8, 8, 5, 5),
    (10, 64, 1, 1),
    (6, 4, 7, 7),
    (12, 1, 3, 3),
)
SPARSITIES = (0.0, 0.2, 0.45, 0.5, 0.61, 0.7, 0.83, 0.9)


def check_structure(
    structure: Structure,
    shapes: Iterable[Shape] = SHAPES,
    sparsities: Iterable[float] = SPARSITIES,
    seed: int = 0,
) -> int:
    """Check one structure on every shape it fits, along a rising schedule; returns the number of cases.

    A mask must be bool and of the weight's shape, hold exactly the declared count, lie inside the previous mask, be
    deterministic, break ties by index (the lowest goes first), be legal by the structure's own ``why_invalid``, keep
    better weights than masks made for other scores, and survive packing; ``why_invalid`` must catch a broken mask;
    the inputs must not be changed.

    >>> from campfire.structures import named
    >>> check_structure(named("ck"), shapes=[(16, 8, 3, 3)], sparsities=[0.3, 0.7])
    2

    Raises:
        AssertionError: what failed, on which shape and sparsity.
    """
    _check_spelling(structure)
    steps, cases = sorted(set(sparsities)), 0
    for shape in map(tuple, shapes):
        if not structure.why_not(shape):
            cases += _check_shape(structure, shape, steps, seed)
    assert cases, f"{structure} fits none of the shapes it was given"
    return cases


def _check_spelling(structure: Structure) -> None:
    assert hash(structure) == hash(structure), "a structure is a frozen dataclass"
    if REGISTRY.get(structure.name) is type(structure):
        assert named(str(structure)) == structure, f"{str(structure)!r} is not read back as the same structure"
        assert type(structure).__doc__, f"{structure.name} has no page: its docstring draws its mask"


def _check_shape(structure: Structure, shape: Shape, steps: list[float], seed: int) -> int:
    generator = torch.Generator().manual_seed(seed)
    score = torch.rand(shape, generator=generator) + 1e-3
    plan = structure.plan(score.clone(), steps[-1])
    alive, size, caught = torch.ones(shape, dtype=torch.bool), score.numel(), False
    for sparsity in steps:
        drift = score * (0.5 + torch.rand(shape, generator=generator))  # training moves the scores between updates
        count = structure.count(shape, sparsity)
        say = Say(f"{structure} at {sparsity} on {shape}: ")
        say(isinstance(count, int) and 0 < count <= size, f"the declared count {count} is not in [1, {size}]")
        say(count <= int(alive.sum()), "the declared count rises with the sparsity")
        if sparsity == 0:
            say(count == size, "sparsity 0 must keep everything")
        mask = Mask(_project(structure, drift, count, plan, alive, say), plan)
        _check_best(structure, drift, count, plan, alive, generator, say)
        _check_run(structure, drift, count, mask.keep, alive, say)
        _check_ties(structure, count, plan, alive, say)
        _check_zero_scores(structure, drift, count, plan, alive, say)
        say(not structure.why_invalid(mask), lambda m=mask: f"breaks its own rule: {structure.why_invalid(m)}")
        caught |= any(structure.why_invalid(Mask(keep, plan)) for keep in _broken(mask.keep))
        weight = torch.randn(shape, generator=generator)
        packed = pack(weight, mask, structure.layout)
        say(torch.equal(packed.dense(), weight * mask.keep), f"{structure.layout}: unpacking does not give it back")
        alive = mask.keep
    assert caught or structure.any_mask(shape), f"{structure} on {shape}: why_invalid lets every broken mask pass"
    return len(steps)


def _project(s: Structure, score: Tensor, count: int, plan: Plan, alive: Tensor, say: Say) -> Tensor:
    """Project twice, watching the inputs."""
    given = score.clone(), alive.clone()
    keep = s.project(given[0], count, plan, given[1])
    say(torch.equal(given[0], score) and torch.equal(given[1], alive), "project changes its inputs")
    say(keep.dtype == torch.bool and keep.shape == score.shape, f"a mask is bool {tuple(score.shape)}")
    say(int(keep.sum()) == count, f"keeps {int(keep.sum())} weights, declared {count}")
    say(not bool((keep & ~alive).any()), f"{int((keep & ~alive).sum())} dead weights came back")
    say(torch.equal(keep, s.project(score.clone(), count, plan, alive.clone())), "project is not deterministic")
    say(keep.data_ptr() != given[1].data_ptr(), "the mask shares memory with the previous one")
    return keep


def _check_run(s: Structure, score: Tensor, count: int, keep: Tensor, alive: Tensor, say: Say) -> None:
    if not (run := s.run(tuple(score.shape))):
        return
    say(count % run == 0, f"{count} weights are no whole runs of {run}")
    runs, living = score.reshape(-1, run).amax(1), alive.reshape(-1, run).any(1)
    best = keep_best(runs, count // run, living)[:, None].expand(-1, run).reshape(score.shape)
    say(torch.equal(keep, best), f"run says {run}, but the mask is not the best runs by their largest score")


def _check_ties(s: Structure, count: int, plan: Plan, alive: Tensor, say: Say) -> None:
    tied = _project(s, torch.ones(alive.shape), count, plan, alive, say)
    say(not s.why_invalid(Mask(tied, plan)), lambda: f"ties break its rule: {s.why_invalid(Mask(tied, plan))}")
    rising = 1 + torch.arange(alive.numel(), dtype=torch.float32).view(alive.shape) / (1 << 20)
    first, second = (
        _project(s, x, count, plan, torch.ones_like(alive), say) for x in (torch.ones_like(rising), rising)
    )
    say(torch.equal(first, second), "of equal scores the lowest index goes first")


def _check_zero_scores(s: Structure, score: Tensor, count: int, plan: Plan, alive: Tensor, say: Say) -> None:
    """A living weight may score 0 and is not dead; a dead one may have any score and stays dead."""
    mixed = score * (torch.arange(score.numel()).view(score.shape) % 3 != 0) * alive + 9.0 * ~alive
    _project(s, mixed, count, plan, alive, say)
    _project(s, torch.zeros_like(score), count, plan, alive, say)


def _check_best(
    s: Structure, score: Tensor, count: int, plan: Plan, alive: Tensor, generator: torch.Generator, say: Say
) -> None:
    heavy = (score / score.max()) ** 12  # heavy tails: ranking units by their sum or by their maximum agrees
    kept = float((heavy * s.project(heavy, count, plan, alive)).sum())
    others = (torch.rand(score.shape, generator=generator) + 1e-3 for _ in range(5))
    strangers = [float((heavy * s.project(x, count, plan, alive)).sum()) for x in others]
    say(kept >= sum(strangers) / 5 * (1 - 1e-6), "keeps worse weights than masks made for other scores")


def _broken(keep: Tensor) -> list[Tensor]:
    """Masks with one weight less, one output less, one kernel stripped to a weight, one kernel filled up."""
    k, c, r, t = keep.nonzero()[0].tolist()
    one, row, stripped, full = (keep.clone(memory_format=torch.contiguous_format) for _ in range(4))
    one[k, c, r, t] = row[k] = stripped[k, c] = False
    stripped[k, c, r, t] = full[k, c] = True
    return [one, row, stripped, full]
