"""The flags that say which network is meant."""

from campfire.cli.flags import KeyValues, Parser, zeros


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
    parser.add_argument("--sparsity", type=zeros, default=0.7, metavar="X", help="of structures (default: 0.7)")
