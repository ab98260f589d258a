"""The command line: names of commands to functions, imported when called, so that ``--help`` never imports torch."""

import importlib
import sys
from collections.abc import Sequence
from importlib import metadata

from campfire.errors import CampfireError, UnknownName

COMMANDS = {
    "train": ("campfire.cli.train:main", "train a CNN, dense or sparse, and write a run directory"),
    "recipes": ("campfire.cli.recipes:main", "published experiments to train, with the papers' numbers and ours"),
    "sweep": ("campfire.cli.sweep:main", "train every combination that a grid asks for, on one machine or many"),
    "eval": ("campfire.cli.eval:main", "measure a trained model and check its masks"),
    "attack": ("campfire.cli.attack:main", "how much accuracy networks keep when images are moved to mislead them"),
    "report": ("campfire.cli.report:main", "compare runs: HTML with plots, Markdown, CSV, LaTeX"),
    "cost": ("campfire.cli.cost:main", "what a network costs: zeros, MACs, storage, memory references, energy"),
    "export": ("campfire.cli.export:main", "a network as ONNX, torch.export, C, dense or packed weights"),
    "compress": ("campfire.cli.files:compress", "the survivors of a run, or of any checkpoint, as one packed file"),
    "decompress": ("campfire.cli.files:decompress", "a packed file as an ordinary dense state dict"),
    "import": ("campfire.cli.files:import_", "another program's checkpoint, with its masks or zeros, as a packed file"),
    "inspect": ("campfire.cli.files:inspect", "which structure the weights of a file have, and their bytes"),
    "regroup": ("campfire.cli.regroup:main", "what blocks would keep of a network's weights"),
    "explain": ("campfire.cli.explain:main", "what a structure keeps, drawn"),
    "kernels": (
        "campfire.cli.kernels:main",
        "the native libraries: what they are compiled with, and compiling them now",
    ),
    "compile": ("campfire.cli.compile:main", "the code generated for patterned layers, compiled or written out"),
    "bench": ("campfire.cli.bench:main", "time the parts on this machine"),
}

CODES = (
    "exit codes: 0 done; 1 failed; 2 wrong usage; 3 diverged; 4 a check failed; 75 stopped by a signal after a checkpoint; "
    "130 Ctrl-C"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``campfire COMMAND ...`` and return its exit code, one of `CODES`."""
    name, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        print(_help())
        return 0
    if name == "--version":
        print(metadata.version("campfire-sparse"))
        return 0
    debug = "--debug" in rest
    try:
        if name not in COMMANDS:
            raise UnknownName("command", name, COMMANDS)
        module, function = COMMANDS[name][0].split(":")
        return getattr(importlib.import_module(module), function)([a for a in rest if a != "--debug"])
    except (CampfireError, OSError) as error:
        if debug:
            raise
        if not getattr(error, "told", False):
            print(f"campfire {name}: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 1)
    except KeyboardInterrupt:
        return 130


def _help() -> str:
    wide = max(map(len, COMMANDS))
    lines = [f"  {name:{wide}}  {summary}" for name, (_, summary) in COMMANDS.items()]
    usage = "usage: campfire COMMAND [options]\n\nCNNs sparse in structures that hardware can use.\n\ncommands:\n"
    last = "\n\ncampfire COMMAND --help tells more; --debug shows where an error was raised; --version.\n" + CODES
    return usage + "\n".join(lines) + last
