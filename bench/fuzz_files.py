"""Damaged files: mutates valid ones at random, and counts what became of them. `python bench/fuzz_files.py --count 200000`

Every mutant must be refused by `CheckpointError`, or load; anything else is a crash. Nothing may take more than a second, or
more than ten times the file in memory (at the limit of five times the file for what tensors may take).
"""

import argparse
import copy
import dataclasses
import json
import random
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable

import torch

from campfire.errors import CheckpointError
from campfire.files.loading import from_bytes
from campfire.files.saving import Claim, to_bytes
from campfire.files.survivors import of_codes
from campfire.mask import Mask
from campfire.quantise import named
from campfire.quantise.base import encode
from campfire.testing import masks

SECONDS, TIMES, ROOM = 1.0, 10, 5  # of CPU; the file, in memory; the file, in tensors
SMALL = 2**16  # bytes that Python itself may need for a file of any size
SHAPES = ((32, 8, 3, 3), (48, 16, 1, 1), (64, 64, 3, 3))
NUMBERS = [
    0,
    1,
    2,
    3,
    7,
    8,
    9,
    31,
    32,
    64,
    255,
    256,
    65535,
    2**16,
    2**31 - 1,
    2**31,
    2**32,
    2**62,
    2**63,
    2**64,
    -1,
    10**30,
]
ODD = [None, True, "", "x", [], {}, 1.5, [1], [[]], "F32", "U8", "BF16", "I8", [0, 0], [2**31] * 4, [1] * 40]


def valid() -> list[bytes]:
    """Files of every coding of masks and of values, with other tensors of every kind."""
    others = {
        "bn.running_mean": torch.randn(64), "steps": torch.tensor(7), "empty": torch.zeros(0, 3),
        "half": torch.randn(9).half(), "brain": torch.randn(9).bfloat16(), "truth": torch.tensor([True, False]),
        "wide": torch.randn(3, 5).double(), "ids": torch.arange(5, dtype=torch.int32),
    }  # fmt: skip
    drawn = [(f"{kind} {shape[2]}.weight", mask) for shape in SHAPES for kind, mask in masks(shape, 0.5)]
    files = []
    for i, (name, mask) in enumerate(drawn):
        dtype = (torch.float32, torch.float16, torch.bfloat16)[i % 3]
        weight = torch.randn(mask.keep.shape).to(dtype).masked_fill(~mask.keep, 0)
        weight = weight if mask.keep.shape[2] > 1 else weight[:, :, 0, 0]
        files.append(to_bytes({name: weight, **(others if i % 4 == 0 else {})}, {name: Claim(mask)})[0])
    few = list(masks(SHAPES[0], 0.1))[:2]
    files += [_quantised(values, mask) for values in ("int8", "codebook:8", "codebook:5") for _, mask in few]
    keep = torch.rand(16, 16, 1, 1).lt(0.6).expand(16, 16, 3, 3).clone()
    return [*files, to_bytes({"w": torch.randn(16, 16, 3, 3) * keep, **others}, {"w": Claim(Mask(keep), "ck")})[0]]


def _quantised(values: str, mask: Mask) -> bytes:
    weight = torch.randn(mask.keep.shape).masked_fill(~mask.keep, 0)
    codes = encode(named(values), weight, mask.keep)
    if values == "codebook:5":
        codes = dataclasses.replace(codes, table=codes.table.bfloat16())
    return to_bytes({"w": weight}, {"w": Claim(mask, values=of_codes(codes))})[0]


# --- mutations -------------------------------------------------------------------------------------------------------


def flip(data: bytes, other: bytes, r: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(r.choice([1, 1, 1, 2, 8, 64])):
        changed[r.randrange(len(changed))] = r.choice([0, 255, r.randrange(256)])
    return bytes(changed)


def flip_header(data: bytes, other: bytes, r: random.Random) -> bytes:
    changed, size = bytearray(data), int.from_bytes(data[:8], "little") + 8
    for _ in range(r.choice([1, 1, 2, 5])):
        changed[r.randrange(size)] = r.choice(b'0123456789,:[]{}"\\ \x00\xff') if r.random() < 0.9 else r.randrange(256)
    return bytes(changed)


def cut(data: bytes, other: bytes, r: random.Random) -> bytes:
    first = r.randrange(len(data))
    last = r.choice([len(data), min(len(data), first + r.randrange(1, 100))])
    return data[:first] + data[last:]


def grow(data: bytes, other: bytes, r: random.Random) -> bytes:
    at = r.choice([len(data), r.randrange(len(data))])
    return data[:at] + r.choice([r.randbytes(r.randrange(1, 200)), data[:at][-200:]]) + data[at:]


def splice(data: bytes, other: bytes, r: random.Random) -> bytes:
    at = r.randrange(min(len(data), len(other)))
    last = r.randrange(at, min(len(data), len(other)))
    return data[:at] + other[at:last] + data[last:]


def fill(data: bytes, other: bytes, r: random.Random) -> bytes:
    at = r.randrange(len(data))
    size = min(len(data) - at, r.choice([4, 64, 4096]))
    return data[:at] + r.choice([b"\0", b"\xff"]) * size + data[at + size :]


def rename(data: bytes, other: bytes, r: random.Random) -> bytes:
    """Valid JSON, of which something was changed."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    about = json.loads(header["__metadata__"]["campfire"])
    for _ in range(r.choice([1, 1, 1, 2, 3])):
        _change(about if r.random() < 0.6 else header, r)
    try:
        if isinstance(header.get("__metadata__"), dict):
            header["__metadata__"]["campfire"] = json.dumps(about)
        text = json.dumps(header).encode()
    except ValueError:  # it was exchanged with a part of itself
        return flip_header(data, other, r)
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def _change(tree: object, r: random.Random) -> None:
    """One place of a JSON tree becomes another, an odd thing, or nothing; or two places are exchanged."""
    places = list(_places(tree))
    if not places:
        return
    holder, key = r.choice(places)
    value = holder[key]
    if r.random() < 0.1:
        del holder[key]
    elif r.random() < 0.15:
        other, at = r.choice(places)
        holder[key], other[at] = other[at], value
    elif isinstance(value, int) and r.random() < 0.85:
        holder[key] = r.choice([value + 1, value - 1, 2 * value, value // 2, *NUMBERS])
    else:
        holder[key] = copy.deepcopy(r.choice([*NUMBERS, *ODD]))


def _places(tree: object):
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in list(items):
        yield tree, key
        yield from _places(value)


MUTATIONS: list[Callable[[bytes, bytes, random.Random], bytes]] = [
    flip, flip_header, cut, grow, splice, fill, rename, rename, rename,
]  # fmt: skip


# --- counting --------------------------------------------------------------------------------------------------------


def judge(data: bytes) -> tuple[str, float, float]:
    """What became of a file, CPU seconds, and the most memory as a multiple of the file."""
    tracemalloc.reset_peak()
    before, start = tracemalloc.get_traced_memory()[0], time.process_time()
    try:
        from_bytes(data, limit=ROOM * len(data))
        end = "loaded"
    except CheckpointError:
        end = "refused"  # for what, is not asked
    except Exception as error:
        end = f"crashed: {error!r}"
    peak = tracemalloc.get_traced_memory()[1] - before
    return end, time.process_time() - start, max(0, peak - SMALL) / max(1, len(data))


def run(count: int, seed: int = 0) -> dict[str, object]:
    """Mutate ``count`` files; how they ended, the slowest, the hungriest, and what went wrong."""
    torch.manual_seed(seed)
    files, r = valid(), random.Random(seed)
    ends, wrong, slowest, hungriest = Counter(), [], 0.0, 0.0
    tracemalloc.start()
    for file in files:
        assert judge(file)[0] == "loaded", judge(file)
    for i in range(count):
        mutate, data = r.choice(MUTATIONS), r.choice(files)
        mutant = mutate(data, r.choice(files), r)
        end, seconds, times = judge(mutant)
        ends[end.partition(":")[0]] += 1
        slowest, hungriest = max(slowest, seconds), max(hungriest, times)
        if end.startswith("crashed") or seconds > SECONDS or times > TIMES:
            wrong.append(f"mutant {i} ({mutate.__name__}): {end}, {seconds:.2f} s, {times:.1f} times the file")
    tracemalloc.stop()
    return {"count": count, **ends, "slowest_s": slowest, "most_memory_of_file": hungriest, "wrong": wrong}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(json.dumps(run(args.count, args.seed), indent=1))
