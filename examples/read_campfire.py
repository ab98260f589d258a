"""Read a packed file with safetensors and numpy alone: python examples/read_campfire.py FILE (docs/format.md explains it).

It trusts its input; campfire itself checks every number before it is used.
"""

import hashlib
import json
import pathlib
import sys

import numpy as np
import safetensors

KINDS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "BOOL": "?", "U8": "u1", "U16": "<u2", "U32": "<u4"}
KINDS |= {"U64": "<u8", "I8": "i1", "I16": "<i2", "I32": "<i4", "I64": "<i8"}


def numbers(data, width, count):  # of so many bits each, the highest first
    return np.unpackbits(data, count=count * width).reshape(count, width) @ (1 << np.arange(width)[::-1])


def mask(part, about):  # which weights live, [K, C, R, S]
    shape, unit = np.array([*about["shape"], 1, 1][:4]), np.array(about["unit"])
    grid, cell, none = -(-shape // unit), np.array(about.get("cell", [1, 1, 1, 1])), np.empty(0, np.uint8)
    cells = np.ones((grid.prod() // cell.prod(), cell.prod()), bool)
    if "index" in part:  # gaps between what lives: high bits in unary, low bits apart
        ends, low = np.flatnonzero(np.unpackbits(part["index"])), about.get("low", 0)
        gaps = (np.diff(ends, prepend=-1) - 1 << low) + numbers(part.get("low", none), low, len(ends))
        cells[np.setdiff1d(np.arange(len(cells)), np.cumsum(gaps + 1) - 1)] = False
    if "cell" in about:  # every living cell has a pattern of units
        living, count = np.flatnonzero(cells[:, 0]), about["patterns"]
        book = np.unpackbits(part["book"], count=count * cell.prod()).reshape(count, -1).astype(bool)
        cells[living] = book[numbers(part.get("pattern", none), (count - 1).bit_length(), len(living))]
    keep = cells.reshape(*(grid // cell), *cell).transpose(0, 4, 1, 5, 2, 6, 3, 7).reshape(grid)
    for axis in range(4):
        keep = keep.repeat(unit[axis], axis).take(range(shape[axis]), axis)
    return keep[np.argsort(part["order"])] if "order" in part else keep


def survivors(part, kinds, keep):  # in row-major order, and of which kind
    if "scale" in part:
        return part["value"] * part["scale"][np.nonzero(keep)[0]], "F32"
    if "codebook" in part:
        width = max(1, (len(part["codebook"]) - 1).bit_length())
        return part["codebook"][numbers(part["value"], width, keep.sum())], kinds["codebook"]
    return part["value"], kinds["value"]


def read(path):
    data = pathlib.Path(path).read_bytes()
    about = json.loads(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["campfire"])
    assert about["version"] == 1, "a later format"
    tensors = {n: (np.frombuffer(x["data"], KINDS[x["dtype"]]).reshape(x["shape"]), x["dtype"]) for n, x in safetensors.deserialize(data)}  # fmt: skip
    dense = {name: found for name, found in tensors.items() if name.rpartition(":")[0] not in about["layers"]}
    for layer, said in about["layers"].items():
        own = {name.rpartition(":")[2]: x for name, x in tensors.items() if name.rpartition(":")[0] == layer}
        part, kinds = {name: x[0] for name, x in own.items()}, {name: x[1] for name, x in own.items()}
        keep = mask(part, said)
        found, kind = survivors(part, kinds, keep)
        weight = np.zeros(keep.shape, KINDS[kind])
        weight[keep] = found
        dense[layer] = weight.reshape(said["shape"]), kind
    digest = hashlib.sha256()
    for name, (array, kind) in sorted(dense.items()):
        digest.update(f"{name}\0{kind}\0{'x'.join(map(str, array.shape))}\0".encode() + array.tobytes())
    assert digest.hexdigest() == about["checksum"], "damaged"
    return {n: (x.astype("<u4") << 16).view("<f4") if kind == "BF16" else x for n, (x, kind) in dense.items()}


if __name__ == "__main__":
    for name, array in read(sys.argv[1]).items():
        print(f"{name:40} {array.dtype!s:8} {array.shape}  {np.count_nonzero(array):,} of {array.size:,} are not zero")
