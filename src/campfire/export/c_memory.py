"""Where values lie while C runs: one piece of memory, places taken over as soon as nobody reads what is there."""

import math

from campfire.export.c_steps import Program

LINE = 16  # floats: places begin on cache lines


def places(program: Program) -> tuple[dict[str, int], int]:
    """Where every value begins, in floats, and how many there are in all; the image and the result lie elsewhere.

    First fit, in the order in which values are made; sizes are rounded up to cache lines.
    """
    last = {name: i for i, step in enumerate(program.steps) for name in (*step.reads, step.residual) if name}
    found: dict[str, int] = {}
    most = 0
    for i, step in enumerate(program.steps):
        if step.makes == program.result:
            continue
        size = _rounded(math.prod(step.size))
        alive = [name for name in found if last.get(name, -1) >= i]
        at = 0
        for start, end in sorted((found[n], found[n] + _rounded(math.prod(program.sizes[n]))) for n in alive):
            if at + size <= start:
                break
            at = max(at, end)
        found[step.makes] = at
        most = max(most, at + size)
    return found, most


def _rounded(floats: int) -> int:
    return -(-floats // LINE) * LINE
