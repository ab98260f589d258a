"""What a checkpoint's weights are: the tightest structure each one has, and what it takes in a file."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from campfire.files.container import NAMES
from campfire.files.forms import forms
from campfire.files.saving import Claim
from campfire.files.sizes import LayerSize, Sizes
from campfire.files.survivors import FLOATS
from campfire.mask import view4

NONE = "-"


@dataclass(frozen=True)
class Inspected:
    """A weight: the tightest structure that its mask has, the others, and what is claimed of it, if anything is.

    ``bits`` tell the mask from all others of that structure; ``parts`` are the bytes of what is stored.
    """

    name: str
    shape: tuple[int, ...]
    weights: int
    kept: int
    structure: str
    bits: float
    others: list[str]
    claimed: str | None
    dense: int  # bytes
    parts: dict[str, int]

    @property
    def sparsity(self) -> float:
        """The fraction of zeros."""
        return 1 - self.kept / self.weights


def inspect(state: Mapping[str, Tensor], claims: Mapping[str, Claim], sizes: Sizes) -> list[Inspected]:
    """Every weight of 2 or 4 axes in a state dict."""
    held = {row.name: row for row in sizes.layers}
    return [
        _inspected(name, weight, claims.get(name), held.get(name))
        for name, weight in state.items()
        if weight.dim() in (2, 4) and NAMES.get(weight.dtype) in FLOATS and weight.numel()
    ]


def _inspected(name: str, weight: Tensor, claim: Claim | None, held: LayerSize | None) -> Inspected:
    mask = None if claim is None else claim.mask
    keep = (view4(weight) != 0) if mask is None else mask.keep
    order = None if mask is None else mask.plan.get("order")
    found = forms(keep.cpu().numpy(), None if order is None else order.cpu().numpy())
    dense = weight.numel() * weight.element_size()
    return Inspected(
        name,
        tuple(weight.shape),
        weight.numel(),
        int(keep.count_nonzero()),
        found[0].name,
        found[0].bits,
        [form.name for form in found[1:]],
        None if claim is None else claim.structure,
        dense,
        {"value": dense} if held is None else held.parts,
    )


def to_dict(rows: list[Inspected], sizes: Sizes) -> dict[str, Any]:
    """Plain numbers."""
    layers = [{**asdict(row), "sparsity": row.sparsity} for row in rows]
    total = {name: value for name, value in sizes.to_dict().items() if name != "layers"}
    return {"layers": layers, **total}


def text(rows: list[Inspected], sizes: Sizes) -> str:
    """A table: bytes as they are stored, or would be."""
    wide = max([len(row.name) for row in rows] + [6])
    long = max([len(row.structure) for row in rows] + [9])
    claimed = max([len(row.claimed or NONE) for row in rows] + [7])
    head = f"{'weight':{wide}}  {'shape':>15} {'zeros':>7}  {'structure':{long}}  {'claimed':{claimed}} {'values':>10} {'masks':>9} {'of dense':>9}"
    lines = []
    for row in rows:
        values = sum(size for part, size in row.parts.items() if part in ("value", "scale", "codebook"))
        masks = sum(row.parts.values()) - values
        shape = "x".join(map(str, row.shape))
        lines.append(
            f"{row.name:{wide}}  {shape:>15} {row.sparsity:7.4f}  {row.structure:{long}}  {row.claimed or NONE:{claimed}} "
            f"{values:10,} {masks:9,} {100 * (values + masks) / row.dense:7.2f} %"
        )
    return "\n".join([head, *lines, sizes.total_line()])
