"""Masks on a GPU by Triton, equal bit for bit to those of the CPU; None where it cannot serve and torch must.

Nothing here waits for the device. What would be an error is told by ``refused``, a number on the device for each tensor.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from campfire.native.gpu.serving import or_none, serves
from campfire.native.gpu.tables import Chunks, addresses, chunks, sent

CHUNK, STRIP, BINS = 4096, 4096, 2048
REFUSED = 2
DTYPES = (torch.float32, torch.bfloat16, torch.float16)  # of tensors that are multiplied
LONGEST = 64  # entries of a row that can be ranked
MOST = 2**31  # entries that can be counted
DIGITS = ((21, 11), (10, 11), (0, 10))  # shift and bits of each round


class Part(NamedTuple):
    """A tensor whose units compete: values float32 [K, C, R, S], contiguous or channels_last, who lives, and how many
    weights to keep in runs of ``grain`` neighbours."""

    value: Tensor
    alive: Tensor | None  # bool, contiguous, in the order of the unit
    kept: int
    grain: int = 1


def keep_best(score: Tensor, count: int, alive: Tensor | None) -> tuple[Tensor, Tensor] | None:
    """The ``count`` best living entries of [n], of equal ones the last, as bool [n]; and whether that was refused, [1]."""
    if not _fits(score) or not serves(score.device):
        return None
    living = None if alive is None else alive.contiguous()
    found = select([Part(score.detach().contiguous()[None, :, None, None], living, count)], absolute=False)
    return None if found is None else (found[0][0].flatten(), found[1])


def select(parts: Sequence[Part], absolute: bool = True) -> tuple[list[Tensor], Tensor] | None:
    """Masks [K, C, R, S] of many tensors in a dozen launches, by the largest |value| (or value) in each unit.

    The second result is int32 [parts], not 0 where more was asked for than lives, or where NaN leaves too little to keep.
    """
    device = parts[0].value.device
    if not serves(device) or sum(p.value.numel() for p in parts) >= MOST or not all(servable(p.value) for p in parts):
        return None
    return _select(parts, absolute, device)


@or_none
def _select(parts: Sequence[Part], absolute: bool, device: torch.device) -> tuple[list[Tensor], Tensor]:
    from campfire.native.gpu import selecting

    narrow: Any = selecting.narrow
    settle: Any = selecting.settle
    units = tuple(p.value.numel() // p.grain for p in parts)
    work = chunks(units, CHUNK, device)
    outputs = [0, *itertools.accumulate(p.value.numel() for p in parts)]
    shapes = _shapes(tuple(_fields(p) for p in parts), device)
    pointers = sent([addresses(p.value for p in parts), addresses(p.alive for p in parts), outputs[:-1]], device)
    wanted = sent([p.kept // p.grain for p in parts], device, torch.int32)
    launch = functools.partial(_launch, work=work)
    keys = torch.empty(sum(units), dtype=torch.int32, device=device)
    launch(selecting.write_keys, pointers[0], pointers[1], shapes, keys=keys, ABSOLUTE=absolute)
    cuts, states = torch.zeros_like(wanted), torch.empty_like(wanted)
    for i, (shift, bits) in enumerate(DIGITS):
        counts = torch.zeros(len(parts), BINS, dtype=torch.int32, device=device)
        launch(selecting.count_digits, keys, shapes, cuts=cuts, counts=counts, SHIFT=shift, BITS=bits)
        narrow[(len(parts),)](counts, cuts, wanted, states, FIRST=i == 0, BITS=bits, num_warps=8)
    ties, nans, after = torch.empty(3, work.number, dtype=torch.int32, device=device)
    launch(selecting.count_ties, keys, shapes, cuts=cuts, ties=ties, nans=nans)
    settle[(len(parts),)](ties, nans, work.firsts, cuts, wanted, states, after, BLOCK=1024)
    keep = torch.empty(outputs[-1], dtype=torch.bool, device=device)
    launch(
        selecting.write_keep, keys, shapes, cuts=cuts, wanteds=wanted, states=states, after=after, outputs=pointers[2],
        keep=keep.view(torch.uint8),
    )  # fmt: skip
    masks = [keep[a:b].view(p.value.shape) for p, (a, b) in zip(parts, itertools.pairwise(outputs), strict=True)]
    return masks, states & REFUSED


def _launch(kernel: Any, *first: Tensor, work: Chunks, **others: Any) -> None:
    kernel[(work.number,)](*first, owners=work.owners, places=work.places, **others, CHUNK=CHUNK, num_warps=8)


@functools.lru_cache(maxsize=64)
def _shapes(fields: tuple[tuple[int, ...], ...], device: torch.device) -> Tensor:
    """int32 [parts, 8], as `selecting.FIELDS` names them."""
    firsts = [0, *itertools.accumulate(f[0] for f in fields)]
    return sent([(*f, at) for f, at in zip(fields, firsts[:-1], strict=True)], device, torch.int32)


def _fields(part: Part) -> tuple[int, ...]:
    value = part.value
    _, channels, height, width = value.shape
    by_tap = channels if _last(value) else 1
    by_output = channels * height * width
    return (
        value.numel() // part.grain,
        part.grain,
        channels,
        height * width,
        by_output,
        by_output // channels if by_tap == 1 else 1,
        by_tap,
    )


def lost_outputs(keeps: Sequence[Tensor]) -> Tensor | None:
    """How many outputs of each contiguous mask [K, C, R, S] no weight reaches, int32 [masks]."""
    if not keeps or not serves(keeps[0].device) or any(x.numel() >= MOST for x in keeps):
        return None
    return _lost_outputs(keeps)


@or_none
def _lost_outputs(keeps: Sequence[Tensor]) -> Tensor:
    from campfire.native.gpu import selecting

    count_lost: Any = selecting.count_lost
    device = keeps[0].device
    rows = chunks(tuple(len(x) for x in keeps), 1, device)
    lengths = sent([x[0].numel() for x in keeps], device, torch.int32)
    lost = torch.zeros(len(keeps), dtype=torch.int32, device=device)
    count_lost[(rows.number,)](sent(addresses(keeps), device), lengths, rows.owners, rows.places, lost, BLOCK=1024)
    return lost


def servable(value: Tensor) -> bool:
    """Whether a weight can be read where it lies."""
    return value.dim() == 4 and _fits(value) and (value.is_contiguous() or _last(value))


def _last(value: Tensor) -> bool:
    return not value.is_contiguous() and value.is_contiguous(memory_format=torch.channels_last)


def _fits(score: Tensor) -> bool:
    plain = type(score) in (Tensor, torch.nn.Parameter)
    return plain and score.dtype == torch.float32 and 0 < score.numel() < MOST


# --- short rows ---------------------------------------------------------------------------------------------------------


def keep_best_rows(score: Tensor, count: int, alive: Tensor | None) -> Tensor | None:
    """The ``count`` best living entries of every row of [n, t], of equal ones the last, as bool [n, t]."""
    keep = _rows(score, None if alive is None else alive.contiguous(), count)
    return None if keep is None else keep.view(torch.bool)


def ranks(score: Tensor) -> Tensor | None:
    """The rank of every entry in its row of [n, t], 0 for the best, as uint8 [t, n]."""
    rank = _rows(score, None, None)
    return None if rank is None else rank.t()


def _rows(score: Tensor, alive: Tensor | None, count: int | None) -> Tensor | None:
    if score.shape[1] > LONGEST or not _fits(score) or not serves(score.device):
        return None
    return _rank(score.detach().contiguous(), alive, count)


@or_none
def _rank(score: Tensor, alive: Tensor | None, count: int | None) -> Tensor:
    from campfire.native.gpu import ranking

    rank_rows: Any = ranking.rank_rows
    rows, t = score.shape
    wide = max(2, 1 << (t - 1).bit_length())
    at_once = max(1, 16384 // wide**2)
    out = torch.empty(score.shape, dtype=torch.uint8, device=score.device)
    living = out if alive is None else alive.view(torch.uint8)
    rank_rows[(-(-rows // at_once),)](
        score, living, out, rows, t, 0 if count is None else max(0, min(count, LONGEST)),
        LIVES=alive is not None, RANKS=count is None, P=wide, ROWS=at_once,
    )  # fmt: skip
    return out


# --- re-application -------------------------------------------------------------------------------------------------------


def multiplication(work: Sequence[tuple[Tensor, Sequence[Tensor]]]) -> Callable[[], None] | None:
    """A function that multiplies tensors in place by masks, in one launch; it reads each mask once.

    Args:
        work: contiguous bool masks [K, C, ...] and the tensors that belong to them, all of one dtype and on one GPU, all of a
            mask in one memory order. The function holds them, and reads and writes their memory as it is now.
    """
    tensors = [x for _, xs in work for x in xs]
    if not tensors or not serves(tensors[0].device) or any(x.numel() >= MOST for x in tensors):
        return None
    return _multiplication(work)


@or_none
def _multiplication(work: Sequence[tuple[Tensor, Sequence[Tensor]]]) -> Callable[[], None]:
    import triton.language as tl

    from campfire.native.gpu import multiplying

    multiply: Any = multiplying.multiply
    masks, tensors = [keep for keep, _ in work], [x.detach() for _, xs in work for x in xs]
    device = masks[0].device
    last = [_last(xs[0]) for _, xs in work]
    sizes = [keep.numel() for keep in masks]
    pairs = chunks(tuple(sizes), STRIP, device)
    pointers, others = sent([addresses(masks)], device)[0], sent([addresses(tensors)], device)[0]
    firsts = [0, *itertools.accumulate(len(xs) for _, xs in work)]
    channels = [keep.shape[1] if x else 1 for keep, x in zip(masks, last, strict=True)]
    taps = [keep[0, 0].numel() if x else 1 for keep, x in zip(masks, last, strict=True)]
    shape = [sent(x, device, torch.int32) for x in (firsts, sizes, channels, taps)]
    dtype = dict(zip(DTYPES, (tl.float32, tl.bfloat16, tl.float16), strict=True))[tensors[0].dtype]

    def run() -> None:
        multiply[(pairs.number,)](
            pointers, others, *shape, pairs.owners, pairs.places, DTYPE=dtype, CHUNK=STRIP, num_warps=8
        )
        torch.autograd.graph.increment_version(tensors)

    run.owners = masks, tensors  # pyright: ignore[reportFunctionMemberAccess]: whose memory the addresses are
    return run
