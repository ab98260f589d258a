"""save: a model as one file of its survivors."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from campfire.errors import CampfireError, UsageError
from campfire.files.about import KEY, VERSION
from campfire.files.checksum import checksum
from campfire.files.claims import why_not_held
from campfire.files.container import NAMES, Bits, to_bits, write
from campfire.files.encoding import encode
from campfire.files.sizes import LayerSize, Sizes
from campfire.files.survivors import FLOATS, Floats, Survivors, of_codes
from campfire.files.writing import write_whole
from campfire.mask import Mask, view4
from campfire.naming import bare, named_layers, unwrapped
from campfire.nn.base import SparseLayer
from campfire.pruner import Pruner
from campfire.quantise import Codes, Values
from campfire.quantise.base import encode as quantise


@dataclass(frozen=True)
class Claim:
    """What is said of a weight: which of it lives, in which structure (by its spelling), and how its values are stored."""

    mask: Mask
    structure: str | None = None
    values: Survivors | None = None  # None: as they are


@dataclass(frozen=True)
class Dense:
    """A weight as `load` will make it, of which the checksum is: not in the state dict's dtype where values are int8."""

    dtype: str
    bits: Bits


def save(
    path: str | Path,
    model: nn.Module | Mapping[str, Tensor],
    pruner: Pruner | None = None,
    values: Values | Mapping[str, Codes] | None = None,
) -> Sizes:
    """Write a model's state dict, its pruned weights without their zeros, as one file (``docs/format.md``).

    Masks are the pruner's, and those of compressed layers; where there are neither, every weight of 2 or 4 axes is stored
    without its zeros if that is smaller. Survivors come back bit for bit, dead weights as +0, in the dtype that they have;
    but of weights written in ``int8`` the file holds float32 scales, and they come back as float32. The file is replaced
    whole, or stays as it was.

    Args:
        path: by custom ``.campfire``.
        model: a model, or its dense state dict.
        pruner: the one that pruned it.
        values: in how few bits the survivors are written, as ``campfire.quantise.named("codebook:4")``; or, by the weights'
            names in the state dict, codes that were made before. By default they are stored as they are.

    Returns:
        the bytes of every part; ``print`` shows a table.

    Raises:
        UsageError: the pruner is of another model, a dead weight is not zero, the path cannot be a file, or a tensor is of
            a type, or a name, that a file cannot hold.
        CampfireError: a mask is not of the structure that its pruner claims.
        OSError: the file cannot be written.

    >>> import tempfile
    >>> model = nn.Sequential(nn.Linear(64, 32))
    >>> with torch.no_grad():
    ...     model[0].weight[:, ::2] = 0
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sizes = save(f"{folder}/model.campfire", model)
    >>> sizes.layers[0].parts  # 1,024 floats, and that of every two inputs the second lives
    {'value': 4096, 'book': 1}
    """
    path = Path(path)
    plain = bare(model).state_dict() if isinstance(model, nn.Module) else model
    state = {unwrapped(name): tensor for name, tensor in plain.items()}
    _require_tensors(state)
    return save_state(path, state, claims_of(model, state, pruner), values)


def save_state(
    path: Path,
    state: Mapping[str, Tensor],
    claims: Mapping[str, Claim],
    values: Values | Mapping[str, Codes] | None = None,
) -> Sizes:
    """As `save`, of a dense state dict and what is known of its weights."""
    data, sizes = to_bytes(state, claims if values is None else _written(claims, state, values))
    write_whole(path, data)
    return sizes


def to_bytes(state: Mapping[str, Tensor], claims: Mapping[str, Claim]) -> tuple[bytes, Sizes]:
    """The file of a dense state dict, and the bytes of its parts.

    Raises:
        UsageError: a claim is not of a weight in the state dict, or is not true of it; or a tensor's type has no name.
    """
    _require_tensors(state)
    tensors: dict[str, Tensor] = {}
    layers, rows, dense = {}, [], []
    for name, tensor in state.items():
        if name not in claims:
            tensors[name] = tensor.detach().cpu().contiguous().clone()
            dense.append((name, NAMES[tensor.dtype], tuple(tensor.shape), to_bits(tensor)))
            continue
        parts, layers[name], row, weight = _layer(name, tensor, claims[name])
        tensors |= parts
        rows.append(row)
        dense.append((name, weight.dtype, tuple(tensor.shape), weight.bits))
    if clash := [name for name in state if name not in layers and name.rpartition(":")[0] in layers]:
        raise UsageError(f"the state dict's name {clash[0]!r} is what a part of a packed weight is called; rename it")
    about = {"version": VERSION, "checksum": checksum(dense), "layers": layers}
    data = write(tensors, {KEY: json.dumps(about, separators=(",", ":"))})
    others = sum(bits.nbytes for name, _, _, bits in dense if name not in layers)
    return data, Sizes(rows, others, len(data))


def _layer(name: str, weight: Tensor, claim: Claim) -> tuple[dict[str, Tensor], dict[str, Any], LayerSize, Dense]:
    keep, order = claim.mask.keep.detach().cpu().numpy(), claim.mask.plan.get("order")
    shape = tuple(weight.shape)
    values = claim.values if claim.values is not None else Floats.of(weight, keep)
    if len(values) != np.count_nonzero(keep):
        raise UsageError(f"{name}: {np.count_nonzero(keep)} weights live, and {len(values)} values were given")
    coded = encode(keep, None if order is None else order.cpu().numpy())
    about: dict[str, Any] = {"shape": list(shape), "unit": list(coded.unit)}
    about |= {"cell": list(coded.cell), "patterns": coded.patterns} if coded.cell else {}
    about |= {"low": coded.low} if coded.low else {}
    about |= {"structure": claim.structure} if claim.structure else {}
    parts = {**values.parts(), **{part: torch.from_numpy(array) for part, array in coded.parts.items()}}
    sizes = {part: tensor.numel() * tensor.element_size() for part, tensor in parts.items()}
    row = LayerSize(name, shape, len(values), NAMES[weight.dtype], values.name, sizes)
    loaded = Dense(values.dtype, values.dense(keep))
    return {f"{name}:{part}": t.contiguous() for part, t in parts.items()}, about, row, loaded


# --- what is claimed -------------------------------------------------------------------------------------------------


def claims_of(
    model: nn.Module | Mapping[str, Tensor], state: Mapping[str, Tensor], pruner: Pruner | None = None
) -> dict[str, Claim]:
    """What is known of a model's weights: by its compressed layers and its pruner; if by neither, by their zeros.

    Raises:
        UsageError: the pruner is of another model, or a dead weight is not zero.
        CampfireError: a mask is not of the structure that its pruner claims.
    """
    claims = {}
    if isinstance(model, nn.Module):
        for name, layer in named_layers(bare(model)):
            if isinstance(layer, SparseLayer):
                claims[_key(name)] = Claim(layer.mask)
    if pruner is not None:
        claims |= {_key(name): Claim(mask, str(pruner.layers[name].structure)) for name, mask in pruner.masks.items()}
    for name, claim in claims.items():
        _require_true(name, state.get(name), claim)
    return claims or by_zeros(state)


def _written(
    claims: Mapping[str, Claim], state: Mapping[str, Tensor], values: Values | Mapping[str, Codes]
) -> dict[str, Claim]:
    """With values in few bits."""
    if isinstance(values, Values):
        values = {name: quantise(values, state[name], claim.mask.keep) for name, claim in claims.items()}
    if strangers := sorted(set(values) - set(claims)):
        raise UsageError(f"codes are given for {', '.join(strangers)}, and no mask is known of it")
    held = {name: of_codes(codes, state[name].dtype) for name, codes in values.items()}
    return {name: dataclasses.replace(claim, values=held.get(name)) for name, claim in claims.items()}


def by_zeros(state: Mapping[str, Tensor]) -> dict[str, Claim]:
    """The weights of 2 or 4 axes that take less room without their zeros."""
    found = {}
    for name, tensor in state.items():
        if tensor.dim() not in (2, 4) or NAMES.get(tensor.dtype) not in FLOATS or not tensor.numel():
            continue
        keep = view4(tensor.detach()) != 0
        dead = keep.numel() - int(keep.count_nonzero())
        if dead in (0, keep.numel()):  # all zero: not pruned, but not yet trained
            continue
        if encode(keep.cpu().numpy()).nbytes < dead * tensor.element_size():
            found[name] = Claim(Mask(keep))
    return found


def _key(layer: str) -> str:
    return f"{layer}.weight".lstrip(".")


def _require_tensors(state: Mapping[str, Any]) -> None:
    for name, value in state.items():
        if not isinstance(value, Tensor) or value.dtype not in NAMES:
            kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise UsageError(
                f"a file holds tensors of {', '.join(NAMES.values())}; {name!r} is {kind}; convert it, or leave it out"
            )
        if not name.isprintable():
            raise UsageError(f"a name in a file is printable; got {name!r}")


def _require_true(name: str, weight: Tensor | None, claim: Claim) -> None:
    keep = claim.mask.keep
    if weight is None or tuple(view4(weight).shape) != tuple(keep.shape):
        raise UsageError(f"the pruner is of another model: it masks {name!r} as {list(keep.shape)}")
    if strays := int((view4(weight.detach())[~keep] != 0).sum()):
        raise UsageError(f"{strays} weights of {name!r} are not zero where its mask says so; call pruner.apply() first")
    if claim.structure and (reasons := why_not_held(claim.structure, claim.mask)):
        raise CampfireError(f"the mask of {name!r} is no {claim.structure!r}: {'; '.join(reasons)}")
