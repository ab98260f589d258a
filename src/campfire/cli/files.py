"""``campfire compress``, ``decompress``, ``import`` and ``inspect``: packed files, and what else holds weights."""

import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from campfire.cli.flags import Parser
from campfire.cli.targets import require_free
from campfire.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from campfire.files.saving import Claim
    from campfire.files.sizes import Sizes

    Source = tuple[dict[str, Tensor], dict[str, Claim], Sizes | None]

DENSE = (".pt", ".pth", ".safetensors")


def compress(argv: Sequence[str]) -> int:
    """Pack the weights of a run, or of a file."""
    own = _parser(
        "compress",
        "Write the survivors of a run, or of a checkpoint with zeros, as one packed file; print the bytes of every part.",
        "RUN|FILE",
        "a run directory or checkpoint, or a state dict (.pt, .safetensors)",
    )
    own.add_argument("--values", metavar="HOW", help="int8 or codebook:BITS; as they are by default")
    args = own.parse(argv)
    require_free(Path(args.output), args.path)
    sizes = _packed(args, *source(args.path)[:2])
    _print(args, sizes.to_dict(), str(sizes))
    return 0


def import_(argv: Sequence[str]) -> int:
    """Pack a checkpoint of another program."""
    own = _parser(
        "import",
        "Read masks of torch.nn.utils.prune, or plain zeros, out of a checkpoint; say which structure each weight has, "
        "and write a packed file.",
        "FILE",
        "a state dict, or a dictionary that holds one (.pt, .safetensors); nothing in it is run",
    )
    args = own.parse(argv)
    from campfire.files.inspecting import inspect, text, to_dict

    require_free(Path(args.output), args.path)
    state, claims = foreign(Path(args.path))
    sizes = _packed(args, state, claims)
    rows = inspect(state, claims, sizes)
    _print(args, to_dict(rows, sizes), text(rows, sizes))
    return 0


def decompress(argv: Sequence[str]) -> int:
    """Write an ordinary dense state dict."""
    own = _parser("decompress", "Write the dense state dict of a packed file.", "FILE", "what compress wrote")
    args = own.parse(argv)
    output = Path(args.output)
    if output.suffix not in DENSE:
        raise UsageError(f"--output ends in {', '.join(DENSE)}; got {output.name!r}")
    from campfire.files import load
    from campfire.files.dense import write_dense

    _require_packed(Path(args.path))
    require_free(output, args.path)
    state = load(args.path)
    size = write_dense(output, state)
    found = {"tensors": len(state), "bytes": size, "output": str(output)}
    _print(args, found, f"{len(state)} tensors, {size:,} bytes: {output}")
    return 0


def inspect(argv: Sequence[str]) -> int:
    """Say what the weights of a file are."""
    own = Parser(
        prog="campfire inspect",
        description="Of every weight in a file: how sparse it is, the tightest structure that fits its zeros, and the bytes it "
        "takes in a packed file, as this one or as `campfire compress` would write it. A packed file is verified.",
    )
    own.add_argument("path", metavar="RUN|FILE", help="a packed file, a run, or any state dict (.pt, .safetensors)")
    own.add_argument("--json", action="store_true", help="print one JSON object in one line")
    args = own.parse(argv)
    from campfire.files.inspecting import inspect, text, to_dict
    from campfire.files.saving import to_bytes

    state, claims, sizes = source(args.path)
    if sizes is None:
        sizes = to_bytes(state, claims)[1]
    rows = inspect(state, claims, sizes)
    _print(args, {"path": args.path, **to_dict(rows, sizes)}, text(rows, sizes))
    return 0


def source(name: str) -> "Source":
    """A dense state dict, what is known of its weights, and the bytes of their parts if the file is a packed one.

    Raises:
        UsageError: there is no such file.
        CheckpointError: it is damaged, or holds no weights.
    """
    from campfire.files.foreign import is_packed
    from campfire.files.loading import read
    from campfire.files.saving import Claim, claims_of

    path = Path(name)
    if _is_run(path):
        from campfire.training import load_run

        run = load_run(path)
        state = dict(run.model.state_dict())
        return state, claims_of(run.model, state, run.pruner), None
    if path.is_file() and is_packed(path):
        loaded = read(path)
        claims = {name: Claim(mask, loaded.structures.get(name)) for name, mask in loaded.masks.items()}
        return loaded.state, claims, loaded.sizes
    return *foreign(path), None


def foreign(path: Path) -> "tuple[dict[str, Tensor], dict[str, Claim]]":
    """A dense state dict of any program, and its masks."""
    from campfire.files.foreign import is_packed, unmasked, weights
    from campfire.files.saving import Claim, by_zeros

    if path.is_dir():
        raise UsageError(f"{path} is a folder; a run is packed by `campfire compress`")
    if path.is_file() and is_packed(path):
        raise UsageError(f"{path} is packed already; `campfire inspect` shows it, `campfire decompress` unpacks it")
    state, masks = unmasked(weights(path))
    return state, {name: Claim(mask) for name, mask in masks.items()} or by_zeros(state)


def _require_packed(path: Path) -> None:
    """Raise `UsageError` where there is something else."""
    from campfire.files.foreign import is_packed

    if path.is_dir():
        raise UsageError(f"{path} is a folder; a run's dense weights are its model.safetensors")
    if path.is_file() and not is_packed(path):
        raise UsageError(f"{path} is not packed; `campfire compress` packs it, `campfire inspect` shows it")


def _is_run(path: Path) -> bool:
    from campfire.training import checkpoint

    if path.is_dir():
        return True
    if path.suffix == ".safetensors" or not path.is_file():
        return False
    from campfire.files.foreign import is_packed, read_any

    state = None if is_packed(path) else read_any(path)
    return isinstance(state, dict) and state.get("format") == checkpoint.FORMAT


def _packed(args: Namespace, state: "dict[str, Tensor]", claims: "dict[str, Claim]") -> "Sizes":
    from campfire.files.saving import save_state
    from campfire.quantise import named

    how = getattr(args, "values", None)
    return save_state(Path(args.output), state, claims, None if how is None else named(how))


def _parser(name: str, description: str, what: str, help: str) -> Parser:
    own = Parser(prog=f"campfire {name}", description=description)
    own.add_argument("path", metavar=what, help=help)
    own.add_argument(
        "-o", "--output", metavar="FILE", required=True, help="the file to write; replaced whole, or not at all"
    )
    own.add_argument("--json", action="store_true", help="print one JSON object in one line")
    return own


def _print(args: Namespace, found: dict[str, Any], text: str) -> None:
    print(json.dumps(found) if args.json else text)
