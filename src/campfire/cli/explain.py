"""``campfire explain``: the page of a structure or method, out of its docstring; or how the layers of a model run."""

import dataclasses
import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from campfire.cli.flags import Parser, zeros
from campfire.errors import UnknownName, UsageError

DTYPES = ("float32", "bfloat16", "float16")
SHAPES = {
    "3x3, 64 to 64 channels": (64, 64, 3, 3),
    "1x1, 64 to 256": (256, 64, 1, 1),
    "linear, 512 to 10": (10, 512, 1, 1),
}


def parser() -> Parser:
    """Everything ``campfire explain`` understands."""
    own = Parser(
        prog="campfire explain",
        description="What a structure or method does, or which kernels run a compressed model and why; without a name, "
        "the list of structures and methods.",
        epilog="A structure or method wins over a model or file of the same name: write ./NAME for a file.",
    )
    own.add_argument(
        "name", nargs="?", metavar="NAME",
        help="as --structure and --method take it: ck, window:mode=campfire; a model: resnet50; a run directory or checkpoint",
    )  # fmt: skip
    own.add_argument("--structure", default="tiles", metavar="S", help="of a model's layers (default: tiles)")
    own.add_argument("--sparsity", type=zeros, default=0.7, metavar="X", help="of a model's layers (default: 0.7)")
    own.add_argument("--batch", type=int, metavar="N", help="images at once (default: 16, or as the run trains)")
    own.add_argument("--size", type=int, default=224, metavar="N", help="height and width of a model's images")
    own.add_argument("--dtype", choices=DTYPES, default=DTYPES[0], help="in which a model computes")
    own.add_argument(
        "--dispatch", choices=["measure", "model", "off"], help="how kernels are chosen (default: measure)"
    )
    own.add_argument("--threads", type=int, metavar="N", help="CPU threads")
    own.add_argument("--json", action="store_true", help="print one JSON object in one line")
    return own


def main(argv: Sequence[str]) -> int:
    """Print a page, or the list of pages."""
    args = parser().parse(argv)
    if args.name and (runs := _runs(args.name)):
        from campfire.cli.explain_kernels import of_model, of_run, text

        found = of_run(args) if runs == "run" else of_model(args)
        print(json.dumps(found) if args.json else text(found))
        return 0
    found = page(args.name) if args.name else index()
    print(json.dumps(found) if args.json else _text(found))
    return 0


def _runs(name: str) -> str:
    """ "run" for a run or checkpoint, "model" for a model; "" for all else, as for names that a plug-in has too."""
    from campfire import methods, models, structures
    from campfire.pruner.rulesets import RULESETS

    if name.partition(":")[0].strip() in {**methods.REGISTRY, **structures.REGISTRY, **RULESETS}:
        return ""
    if Path(name).exists():
        return "run"
    library, factory = name.partition("/")[0], name.partition(":")[2]
    ours = name in models.names() or library in ("torchvision", "timm") or factory.isidentifier()
    return "model" if ours else ""


def index() -> dict[str, Any]:
    """The first sentence of every structure, rule set and method."""
    from campfire import methods, structures
    from campfire.pruner.rulesets import RULESETS

    def first(it: object) -> str:
        return (inspect.getdoc(it) or "").split("\n\n")[0].replace("\n", " ")

    kinds = {"structures": structures.REGISTRY, "rule sets": RULESETS, "methods": methods.REGISTRY}
    return {kind: {name: first(cls) for name, cls in sorted(registry.items())} for kind, registry in kinds.items()}


def page(spec: str) -> dict[str, Any]:
    """Docstring, options, and, for a structure, the least sparsity it can express on common shapes.

    Raises:
        UnknownName: no structure, rule set or method.
    """
    from campfire import methods, structures
    from campfire.pruner import inter_epoch
    from campfire.pruner.rulesets import RULESETS

    name = spec.partition(":")[0].strip()
    if rules := RULESETS.get(spec):
        return {"name": spec, "kind": "rule set", "page": inspect.getdoc(rules) or "", "options": {}}
    if spec == "inter-epoch":
        return {"name": spec, "kind": "structure", "page": inspect.getdoc(inter_epoch) or "", "options": {}}
    _require_known(spec, name)
    if name in methods.REGISTRY:
        plugin, kind = methods.named(spec), "method"
    else:
        plugin, kind = structures.named(spec), "structure"
    options = {f.name: getattr(plugin, f.name) for f in dataclasses.fields(plugin)}
    found = {"name": str(plugin), "kind": kind, "page": inspect.getdoc(type(plugin)) or "", "options": options}
    if Path(name).exists():
        found["note"] = f"{name} is also a file or directory; to explain that, write ./{name}"
    if isinstance(plugin, structures.Structure):
        found["least"] = {
            what: "; ".join(plugin.why_not(shape)) or plugin.least(shape) for what, shape in SHAPES.items()
        }
    if {"rows", "channels"} <= set(options):
        found["blocks"] = blocks(plugin)
    return found


def _require_known(spec: str, name: str) -> None:
    """Raise `UsageError` where nothing at all is called so."""
    from campfire import methods, models
    from campfire.pruner.rulesets import is_structure, known

    if is_structure(name) or name in methods.REGISTRY:
        return
    if "/" in name or name.endswith((".pt", ".safetensors", ".campfire")):
        raise UsageError(f"there is no file or folder {spec}")
    raise UnknownName("structure, method or model", spec, [*known(), *methods.REGISTRY, *models.names()])


def blocks(structure: Any) -> dict[str, Any]:
    """Which kernels run the blocks of a structure, on which device, and what those they run are multiples of."""
    from campfire.kernels import KERNELS

    beside = structure.channels if getattr(structure, "inputs", "neighbours") == "neighbours" else 1
    size = structure.rows, beside
    runs = {
        name: {
            "on": kernel.serves,
            "least": list(kernel.least),
            "runs": all(n % m == 0 for n, m in zip(size, kernel.least, strict=True)),
        }
        for name, kernel in KERNELS.items()
        if kernel.least is not None
    }
    return {"outputs": structure.rows, "inputs_side_by_side": beside, "kernels": runs}


def _text(found: dict[str, Any]) -> str:
    if "page" not in found:
        return "\n".join(_listed(kind, pages) for kind, pages in found.items())
    lines = [f"{found['name']} ({found['kind']})", "", found["page"]]
    if found["options"]:
        lines += ["", "Options: " + ", ".join(f"{k} = {v}" for k, v in found["options"].items())]
    if "least" in found:
        lines += ["", "Least sparsity above 0:"]
        lines += [f"  {what}: {x if isinstance(x, str) else f'{x:.4g}'}" for what, x in found["least"].items()]
    lines += _blocks_text(found["blocks"]) if "blocks" in found else []
    return "\n".join([*lines, *(["", f"Note: {found['note']}."] if "note" in found else [])])


def _blocks_text(found: dict[str, Any]) -> list[str]:
    size = f"{found['outputs']} outputs x {found['inputs_side_by_side']} inputs side by side"
    lines = ["", f"Its blocks, {size}, run by the kernels:"]
    for name, kernel in found["kernels"].items():
        least = "{} x {}".format(*kernel["least"])
        lines.append(f"  {name:12} {kernel['on']:36} {'yes' if kernel['runs'] else f'no: multiples of {least}'}")
    return lines


def _listed(kind: str, pages: dict[str, str]) -> str:
    wide = max(map(len, pages))
    return f"{kind}:\n" + "".join(f"  {name:{wide}}  {first}\n" for name, first in pages.items())
