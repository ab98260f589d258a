"""Bytes of packed files, beside the storage formula, csr, and a general compressor on the dense weights."""

import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from campfire.bench.nets import dense_net, pruned
from campfire.files.coded import Keep
from campfire.files.encoding import alike, unit_of
from campfire.files.loading import read
from campfire.files.saving import save
from campfire.mask import view4


def bench_sizes(model: str = "resnet50", structures: Sequence[str] = ("ck",), sparsity: float = 0.7) -> dict[str, Any]:
    """Of a network with random float32 weights, pruned at once in each structure: bytes over those of its pruned layers.

    ``formula`` is Mao's: values as they are, and for every living unit of the structure a relative index, here with the best
    fixed width and what its overflows take. Every file is read again and compared.
    """
    return {"model": model, "sparsity": sparsity, "rows": [_row(model, spec, sparsity) for spec in structures]}


def _row(model: str, structure: str, sparsity: float) -> dict[str, Any]:
    net = dense_net(model)
    pruner, _ = pruned(net, structure, sparsity)
    keeps = {f"{name}.weight": mask for name, mask in pruner.masks.items()}
    state = net.state_dict()
    with tempfile.TemporaryDirectory() as folder:
        sizes = save(path := Path(folder) / "x.campfire", net, pruner)
        loaded = read(path).state
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
    weights = [state[name] for name in keeps]
    how, squeezed = _squeezed(weights)
    orders = {name: mask.plan.get("order") for name, mask in keeps.items()}
    formula = sum(
        storage_formula(mask.keep.numpy(), 4, None if order is None else order.numpy())
        for mask, order in zip(keeps.values(), orders.values(), strict=True)
    )
    found = {
        "packed": sizes.packed,
        "formula": formula,
        "csr": sum(row.csr for row in sizes.layers),
        "squeezed": squeezed,
    }
    return {
        "structure": structure,
        "sparsity_true": pruner.sparsity,
        "layers": len(keeps),
        "dense": sizes.dense,
        **found,
        "share": {name: size / sizes.dense for name, size in found.items()},
        "squeezed_by": how,
        "file": sizes.total,
        "dense_file": sum(tensor.numel() * tensor.element_size() for tensor in state.values()),
    }


def storage_formula(keep: Keep, itemsize: int, order: np.ndarray | None = None) -> int:
    """Bytes of the values and of a relative index for each living unit, of the width that takes the fewest.

    An index of w bits tells a gap below 2^w - 1; its largest number stands for so many units without a living one. Where
    outputs are regrouped, with their order in one or two bytes each.

    >>> storage_formula(np.eye(8, dtype=bool).reshape(8, 8, 1, 1), 4)  # 8 floats, 8 gaps of 8 or 0 in 4 bits
    36
    """
    order = alike(keep) if order is None else order
    plain = _formula(keep, itemsize)
    if order is None:
        return plain
    return min(plain, _formula(keep[order], itemsize) + len(order) * (1 if len(order) <= 256 else 2))


def _formula(keep: Keep, itemsize: int) -> int:
    units = keep[tuple(slice(None, None, u) for u in unit_of(keep))].reshape(-1)
    gaps = np.diff(np.flatnonzero(units), prepend=-1) - 1
    bits = min((w * (len(gaps) + int((gaps // ((1 << w) - 1)).sum())) for w in range(1, 17)), default=0)
    return int(np.count_nonzero(keep)) * itemsize + -(-min(bits, units.size) // 8)


def _squeezed(weights: Sequence[Tensor]) -> tuple[str, int]:
    """Bytes of dense weights after zstd where it is installed, else zlib; and which."""
    data = b"".join(view4(weight).contiguous().numpy().tobytes() for weight in weights)
    if program := shutil.which("zstd"):
        done = subprocess.run([program, "-q", "-c", "-3"], input=data, capture_output=True, check=True)
        return "zstd -3", len(done.stdout)
    return "zlib -6", len(zlib.compress(data, 6))


def text(found: dict[str, Any]) -> str:
    """A table."""
    rows = found["rows"]
    wide = max(len(row["structure"]) for row in rows)
    columns = ("packed", "formula", "csr", "squeezed")
    head = f"{'structure':{wide}}  {'zeros':>7}" + "".join(
        f"{name:>12}" for name in (*columns[:-1], rows[0]["squeezed_by"])
    )
    lines = [
        f"{found['model']}, {found['sparsity']:.0%} asked, float32; per cent of the dense bytes of the pruned layers",
        head,
    ]
    for row in rows:
        shares = "".join(f"{100 * row['share'][name]:12.2f}" for name in columns)
        files = f"{row['file'] / 1e6:.1f} MB, dense {row['dense_file'] / 1e6:.1f}"
        lines.append(f"{row['structure']:{wide}}  {row['sparsity_true']:7.4f}{shares}   the file: {files}")
    return "\n".join(lines)
