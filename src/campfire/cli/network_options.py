"""The flags that say which network is meant."""

from argparse import Namespace

from campfire.cli.flags import KeyValues, Parser, zeros
from campfire.errors import UsageError

SPARSITY = 0.7  # of structures, where none is given


def add_network_options(parser: Parser) -> None:
    """What a run knows of itself, and a model's name or a file does not."""
    parser.add_argument("--model", metavar="NAME", help="whose weights a file holds")
    parser.add_argument(
        "--model-kwargs", nargs="+", action=KeyValues, default={}, metavar="KEY=VALUE", help="of the model"
    )
    parser.add_argument(
        "--size",
        type=int,
        default=224,
        metavar="N",
        help="height and width of images, where no run says (default: 224)",
    )
    parser.add_argument(
        "--structure",
        default="dense",
        metavar="S",
        help="prune it first: a model by name, a dense run or file (default: as it is)",
    )
    parser.add_argument("--sparsity", type=zeros, metavar="X", help=f"of structures (default: {SPARSITY})")


def settle_sparsity(args: Namespace, *, prunes: bool) -> None:
    """The default where ``--sparsity`` is not given, for a command that ``prunes`` something.

    Raises:
        UsageError: it is given, and nothing is pruned.
    """
    if args.sparsity is not None and not prunes:
        raise UsageError(
            f"--sparsity {args.sparsity:g} prunes nothing without a structure; give --structure NAME as well, or leave it out"
        )
    if args.sparsity is None:
        args.sparsity = SPARSITY
