"""``campfire regroup``: from any mask or checkpoint to blocks, and what they keep."""

import itertools
import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from campfire.cli.flags import KeyValues, Parser
from campfire.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

COLUMNS = ("blocks", "unregrouped", "kernel", "vector")
SUPPORTS = {"blocks": "blocks", "elementwise": "single weights, regrouped"}
IMAGES = 4  # most channels of images
PASSES = ("forward", "d_input", "d_values")


def parser() -> Parser:
    """Everything ``campfire regroup`` understands."""
    own = Parser(
        prog="campfire regroup",
        description="What blocks over regrouped outputs keep of a network's weights, beside other structures of the same "
        "number of weights. Several structures, blocks or sparsities, by commas, make a table. With --output the network "
        "in one kind of blocks is written, with the masks that training goes on with; its source stays as it is.",
    )
    own.add_argument(
        "path", metavar="RUN|CHECKPOINT", help="a run directory, a checkpoint, or a state dict (.pt, .safetensors)"
    )
    own.add_argument("--structure", default="hrbp", metavar="NAME", help="hrbp, hrbp++ or both (default: hrbp)")
    own.add_argument("--block", metavar="KxC", help="outputs x inputs of a block, as 32x1 (default: the structure's)")
    own.add_argument("--sparsity", metavar="S", help="fraction of zeros of every layer (default: each layer's own)")
    own.add_argument(
        "--model",
        metavar="NAME",
        help="whose weights a state dict holds (default: all its convolutions; the file does not say which are grouped, "
        "and blocks would join their groups: a model does)",
    )
    own.add_argument(
        "--model-kwargs", nargs="+", action=KeyValues, default={}, metavar="KEY=VALUE", help="options of the model"
    )
    own.add_argument(
        "--elementwise", action="store_true", help="regroup single weights as well, and tell how both lie backward"
    )
    own.add_argument(
        "-o",
        "--output",
        metavar="PATH",
        help="a file such as blocks.pt; or, for a run, the directory of one that goes on",
    )
    own.add_argument("--overwrite", action="store_true", help="replace what is in the output")
    own.add_argument("--json", action="store_true", help="print one JSON object in one line")
    return own


def main(argv: Sequence[str]) -> int:
    """Regroup as the flags say."""
    args = parser().parse(argv)
    wanted = list(itertools.product(_structures(args), _sparsities(args.sparsity)))
    output = None if args.output is None else Path(args.output)
    if output is not None and len(wanted) > 1:
        raise UsageError(f"--output takes one kind of blocks and one sparsity; got {len(wanted)} of them")
    from campfire.report.regrouping import as_blocks, regrouped, told
    from campfire.training.regrouped import check_output, save

    if output is not None:
        check_output(_file(args.path), output, args.overwrite)
    weights, rows = weights_of(args), []
    for structure, sparsity in wanted:
        blocks = as_blocks(structure)
        layers = regrouped(weights, blocks, sparsity, args.elementwise)
        rows.append(told(layers, blocks, sparsity))
        if output is not None:
            save(_file(args.path), output, layers, str(blocks), args.overwrite)
    found = {"path": args.path, "rows": rows, "output": args.output}
    print(json.dumps(found) if args.json else "\n".join([_text(rows), *_next(output)]))
    return 0


def _next(output: Path | None) -> list[str]:
    """What was written, and what goes on from it."""
    if output is None:
        return []
    if output.is_file():
        return [f"wrote {output}: state_dict, and the pruner's state with the masks"]
    again = f"campfire train --config {output}/config.yaml --resume {output}"
    return [f"wrote {output}; {again} trains on, with --epochs N --allow-config-change beyond the last epoch"]


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
    from campfire.files.foreign import unmasked
    from campfire.training import checkpoint
    from campfire.training.regrouped import model_of

    path = _file(args.path)
    state, _ = unmasked(checkpoint.weights(path))
    if args.model is not None:
        return _of_model(args, state)
    if (model := model_of(path)) is not None:
        return _by_targets(model, state, str(path))
    found = {name.removesuffix(".weight"): x for name, x in state.items() if x.dim() == 4 and name.endswith(".weight")}
    if len(found) < 2:
        raise CheckpointError(f"{path} holds {len(found)} convolutions; the first one stays dense, so nothing is left")
    first, producers = _first(found), found
    found = {name: x for name, x in found.items() if name != first and (x.shape[1] > 1 or x.shape[0] == 1)}
    if not found:
        raise CheckpointError(f"{path} holds no convolution but the first and depthwise ones, which no block fits")
    if grouped := _perhaps_grouped(found, producers):
        print(
            f"campfire regroup: {', '.join(grouped[:3])}{f' and {len(grouped) - 3} more' * (len(grouped) > 3)} may be grouped: "
            f"nothing in {path} has as few outputs as they have inputs. Their blocks would join outputs of different groups; "
            "--model NAME leaves grouped layers out",
            file=sys.stderr,
        )
    return found


def _perhaps_grouped(weights: "dict[str, Tensor]", producers: "dict[str, Tensor]") -> list[str]:
    """Layers with a fraction of the inputs that the layer before them in the file makes, where no other makes that few.

    A weight is [K, C / groups, R, S], and nothing in a state dict tells groups.
    """
    outputs = {len(x) for x in producers.values()}
    before = dict(zip([*producers][1:], producers.values(), strict=False))
    fewer = {name: (x.shape[1], len(before[name])) for name, x in weights.items() if name in before}
    return [name for name, (c, k) in fewer.items() if c not in outputs and c < k and k % c == 0]


def _first(weights: "dict[str, Tensor]") -> str:
    """The convolution that reads the images, which have fewer channels than anything else."""
    one = [name for name, x in weights.items() if x.shape[1] == 1 < x.shape[0]]
    others = [name for name in weights if name not in one] or one
    fewest = min(others, key=lambda name: weights[name].shape[1])
    return one[0] if len(one) == 1 and weights[fewest].shape[1] > IMAGES else fewest  # several are depthwise


def _file(given: str) -> Path:
    path = Path(given)
    if path.is_dir():
        names = ("last.pt", "model.safetensors")
        return next((path / name for name in names if (path / name).exists()), path / "last.pt")
    return path


def _of_model(args: Namespace, state: "dict[str, Tensor]") -> "dict[str, Tensor]":
    from campfire.models import create

    classes = [len(x) for x in state.values() if x.dim() == 2]
    model = create(args.model, **{"num_classes": classes[-1] if classes else 1000, **args.model_kwargs})
    return _by_targets(model, state, args.path)


def _by_targets(model: "nn.Module", state: "dict[str, Tensor]", origin: str) -> "dict[str, Tensor]":
    from campfire.pruner import targets
    from campfire.training import checkpoint

    checkpoint.fill(model, state, origin)
    layers = [t for t in targets(model)[0] if t.conv and not t.first and t.groups == 1]
    if not layers:
        raise CheckpointError(f"the model of {origin} has no convolution besides the first")
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
        for x in layers:
            if not x["reason"]:
                lines += [f"  {x['name']}", _line(x), *_backward(x)]
        lines += [f"  {x['name']}: {x['remark']}" for x in row["layers"] if x["remark"]]
        lines += [f"  {x['name']} stays dense: {x['reason']}" for x in row["layers"] if x["reason"]]
        lines += ["  all of these"] * bool(layers) + [_line(row), *_backward(row)]
    return "\n".join(lines)


def _backward(x: dict[str, Any]) -> list[str]:
    """How a group of outputs lies where inputs are rows."""
    lines = []
    for name, words in SUPPORTS.items():
        if found := (x.get("supports") or {}).get(name):
            lines.append(
                f"{'':4}backward, {words}: {found['inputs']:.1f} inputs in {found['sets_of_taps']:.1f} sets of taps, "
                f"{found['density']:.2f} of their box"
            )
    if "elementwise" in x["share"]:
        lines.append(f"{'':4}sum of |w| of single weights, regrouped: {x['share']['elementwise']:.4f}")
    return lines


def _line(x: dict[str, Any]) -> str:
    shares = "".join(f"{x['share'][name]:12.4f}" for name in COLUMNS)
    inside = x["density_inside"] if "density_inside" in x else x["inside"] / x["kept"]
    speed = "".join(f"{x['speed'][name]:11.2f}" for name in PASSES) if x["speed"] else f"{'no block kernel':>33}"
    zeros = x["sparsity_true"] if "sparsity_true" in x else x["sparsity"]
    return f"{zeros:14.4f}{shares}{x['dead_kernels']:>13,} of {x['kernels']:<10,}{inside:8.3f}{speed}"
