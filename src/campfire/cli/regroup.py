"""``campfire regroup``: from any mask or checkpoint to blocks, and what they keep."""

import itertools
import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from campfire.cli.flags import KeyValues, Parser
from campfire.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

COLUMNS = ("blocks", "unregrouped", "kernel", "vector")
PASSES = ("forward", "d_input", "d_values")


def parser() -> Parser:
    """Everything ``campfire regroup`` understands."""
    own = Parser(
        prog="campfire regroup",
        description="What blocks over regrouped outputs keep of a network's weights, beside other structures of the same "
        "number of weights. Nothing is written. Several structures, blocks or sparsities, by commas, make a table.",
    )
    own.add_argument(
        "path", metavar="RUN|CHECKPOINT", help="a run directory, a checkpoint, or a state dict (.pt, .safetensors)"
    )
    own.add_argument("--structure", default="hrbp", metavar="NAME", help="hrbp, hrbp++ or both (default: hrbp)")
    own.add_argument("--block", metavar="KxC", help="outputs x inputs of a block, as 32x1 (default: the structure's)")
    own.add_argument("--sparsity", metavar="S", help="fraction of zeros of every layer (default: each layer's own)")
    own.add_argument("--model", metavar="NAME", help="whose weights a state dict holds (default: all its convolutions)")
    own.add_argument(
        "--model-kwargs", nargs="+", action=KeyValues, default={}, metavar="KEY=VALUE", help="options of the model"
    )
    own.add_argument("--json", action="store_true", help="print one JSON object in one line")
    return own


def main(argv: Sequence[str]) -> int:
    """Regroup as the flags say."""
    args = parser().parse(argv)
    wanted = list(itertools.product(_structures(args), _sparsities(args.sparsity)))
    from campfire.report.regrouping import regroup

    weights = weights_of(args)
    rows = [regroup(weights, structure, sparsity) for structure, sparsity in wanted]
    print(json.dumps({"path": args.path, "rows": rows}) if args.json else _text(rows))
    return 0


def _structures(args: Namespace) -> list[str]:
    """Spellings: options of a structure hold commas, so several names come without options."""
    names = [args.structure] if ":" in args.structure else args.structure.split(",")
    if args.block is None:
        return names
    sizes = [_block(x) for x in args.block.split(",")]
    return [f"{name}{',' if ':' in name else ':'}rows={k},channels={c}" for name in names for k, c in sizes]


def _block(given: str) -> tuple[str, str]:
    rows, _, channels = given.strip().lower().partition("x")
    if not (rows.isdigit() and channels.isdigit()):
        raise UsageError(f"--block is outputs x inputs, such as 32x1; got {given!r}")
    return rows, channels


def _sparsities(given: str | None) -> list[float | None]:
    try:
        return [None] if given is None else [float(x) for x in given.split(",")]
    except ValueError:
        raise UsageError(f"--sparsity is a fraction of zeros, or several by commas; got {given!r}") from None


def weights_of(args: Namespace) -> "dict[str, Tensor]":
    """The weights of all convolutions but the first, by layer name.

    Raises:
        UsageError: there is no such file.
        CheckpointError: it is damaged, of another model, or holds no convolution.
    """
    from campfire.training import checkpoint

    path = Path(args.path)
    if path.is_dir():
        path = next(
            (path / name for name in ("last.pt", "model.safetensors") if (path / name).exists()), path / "last.pt"
        )
    state = checkpoint.weights(path)
    if args.model is not None:
        return _of_model(args, state)
    found = {name.removesuffix(".weight"): x for name, x in state.items() if x.dim() == 4 and name.endswith("weight")}
    found = {name: x for name, x in found.items() if x.shape[1] > 1 or x.shape[0] == 1}  # depthwise: no block fits
    if len(found) < 2:
        raise CheckpointError(f"{path} holds {len(found)} convolutions; the first one stays dense, so nothing is left")
    first = min(found, key=lambda name: found[name].shape[1])  # the one that reads the images
    return {name: x for name, x in found.items() if name != first}


def _of_model(args: Namespace, state: "dict[str, Tensor]") -> "dict[str, Tensor]":
    from campfire.models import create
    from campfire.pruner import targets
    from campfire.training import checkpoint

    classes = [len(x) for x in state.values() if x.dim() == 2]
    model = create(args.model, **{"num_classes": classes[-1] if classes else 1000, **args.model_kwargs})
    checkpoint.fill(model, state, args.path)
    layers = [t for t in targets(model)[0] if t.conv and not t.first and t.groups == 1]
    if not layers:
        raise CheckpointError(f"model {args.model!r} has no convolution besides the first")
    return {t.name: t.module.weight.detach() for t in layers}


def _text(rows: list[dict[str, Any]]) -> str:
    head = f"{'sum of |w|, of that of the largest weights':>62}{'kernels':>20}{'weights':>14}{'times faster, by rho / density':>33}"
    names = (
        "".join(f"{x:>12}" for x in COLUMNS) + f"{'all zero':>20}{'inside':>14}" + "".join(f"{x:>11}" for x in PASSES)
    )
    lines = [head, f"{'zeros':>14}{names}"]
    for row in rows:
        outputs, inputs = row["block"]
        share = f"{row['share']['unstructured_of_all']:.1%} of all |w| is in the largest weights"
        lines.append(
            f"{row['structure']}, blocks of {outputs} x {inputs}, planned in {row['plan_seconds']:.1f} s ({share})"
        )
        layers = row["layers"] if len(rows) == 1 else []
        lines += [f"  {x['name']}\n{_line(x)}" for x in layers if not x["reason"]]
        lines += [f"  {x['name']} stays dense: {x['reason']}" for x in row["layers"] if x["reason"]]
        lines += ["  all of these"] * bool(layers) + [_line(row)]
    return "\n".join(lines)


def _line(x: dict[str, Any]) -> str:
    shares = "".join(f"{x['share'][name]:12.4f}" for name in COLUMNS)
    inside = x["density_inside"] if "density_inside" in x else x["inside"] / x["kept"]
    speed = "".join(f"{x['speed'][name]:11.2f}" for name in PASSES) if x["speed"] else f"{'no block kernel':>33}"
    zeros = x["sparsity_true"] if "sparsity_true" in x else x["sparsity"]
    return f"{zeros:14.4f}{shares}{x['dead_kernels']:>13,} of {x['kernels']:<10,}{inside:8.3f}{speed}"
