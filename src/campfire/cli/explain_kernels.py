"""``campfire explain MODEL_OR_RUN``: which kernel runs each pass of each layer, and why no other does."""

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from campfire import models
from campfire.bench.nets import pruned
from campfire.compress import Plan, compress_, tune_
from campfire.errors import UsageError
from campfire.fusion import FusionReport, fuse
from campfire.pruner import Pruner


def of_model(args: Namespace) -> dict[str, Any]:
    """A model with random weights, pruned at once.

    Raises:
        UsageError: a model, structure or size that cannot be.
    """
    batch = _checked(args)
    torch.manual_seed(0)
    stem = {"small_input": args.size <= 64} if args.name in models.names() else {}  # others have the stem they have
    model = models.create(args.name, num_classes=1000, **stem)
    model = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    pruner, _ = pruned(model, args.structure, args.sparsity)
    pruner.detach()
    dtype = getattr(torch, args.dtype)
    with torch.autocast("cpu", dtype if dtype != torch.float32 else torch.bfloat16, enabled=dtype != torch.float32):
        found = _explained(model, pruner, (batch, 3, args.size, args.size), args.dispatch)
    return {"name": args.name, "kind": "model", "structure": args.structure, **found}


def of_run(args: Namespace) -> dict[str, Any]:
    """The model of a run: as it ran, where the checkpoint has a plan and no other batch is asked for.

    Raises:
        UsageError: it was not pruned, or its masks still change.
        CheckpointError: it is damaged.
    """
    from campfire.training import checkpoint, load_run

    _checked(args)
    path = Path(args.name)
    trained = load_run(path)
    if trained.pruner is None:
        raise UsageError(f"{path} is a dense run: the dense library runs all of it")
    file = path / "last.pt" if path.is_dir() else path.with_name("last.pt") if path.suffix == ".safetensors" else path
    saved = checkpoint.load(file).get("plan")
    size = args.batch or trained.config.data.batch_size, trained.channels, trained.image_size, trained.image_size
    again = saved is None or args.batch or args.dispatch
    found = _explained(trained.model, trained.pruner, size, args.dispatch, None if again else saved)
    return {"name": args.name, "kind": "run", "structure": trained.config.pruning.structure, **found}


def _checked(args: Namespace) -> int:
    """The batch size."""
    for flag in ("batch", "size", "threads"):
        if (given := getattr(args, flag)) is not None and given < 1:
            raise UsageError(f"--{flag} is a number above 0; got {given}")
    if args.threads:
        torch.set_num_threads(args.threads)
    return args.batch or 16


def _explained(
    model: nn.Module, pruner: Pruner, size: tuple[int, ...], by: str | None, saved: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    dense = {row.name: row.reason for row in pruner.report().layers if row.reason}
    report = compress_(model, pruner)
    plan = Plan() if not report.compressed else _tuned(model, size, by) if saved is None else Plan.from_dict(saved)
    return {
        "batch": plan.layers[0].size[0] if plan.layers else size[0],
        "saved": saved is not None,
        **{name: getattr(plan, name) for name in ("threads", "measured", "dense_ms", "ms")},
        "layers": [asdict(layer) for layer in plan.layers],
        "dense": {**dense, **report.dense},
        "orders": _orders(model) if any(layer.layout == "grouped" for layer in plan.layers) else {},
        "summary": plan.summary(),
    }


def _orders(model: nn.Module) -> dict[str, str]:
    """What a fused copy does with the order of outputs that were regrouped, layer by layer."""
    try:
        found: FusionReport = fuse(model).report  # pyright: ignore[reportAssignmentType]
    except UsageError as error:
        return {"(all)": f"put in order: {error}"}
    absorbed = {name: f"as they lie, absorbed by {readers}" for name, readers in found.absorbed.items()}
    return {**absorbed, **{name: f"put in order: {why}" for name, why in found.restored.items()}}


def _tuned(model: nn.Module, size: tuple[int, ...], by: str | None) -> Plan:
    return tune_(model, torch.zeros(size).contiguous(memory_format=torch.channels_last), by=by)


def text(found: dict[str, Any]) -> str:
    """For people."""
    chosen = "as the run chose" if found["saved"] else "measured" if found["measured"] else "by the cost model"
    head = (
        f"{found['name']} ({found['kind']}), {found['structure']}, {found['batch']} images, {found['threads']} threads"
    )
    lines = [f"{head}: kernels {chosen}; ratios are dense time over the kernel's"]
    for layer in found["layers"]:
        sizes = " on ".join("x".join(map(str, layer[name])) for name in ("shape", "size"))
        lines.append(f"{layer['name']}  {sizes}  {layer['layout']}, density {layer['density']:.3f}, {layer['format']}")
        for name, run in layer["passes"].items():
            measured = "" if run["measured"] is None else f", measured {run['measured']:.2f}"
            kernel = "dense" if run["kernel"] == "reference" else run["kernel"]
            lines.append(f"  {name:8}  {kernel:12} predicted {run['predicted']:.2f}{measured}")
            lines += [f"{'':12}not {other}: {reason}" for other, reason in sorted(run["why_not"].items())]
    lines += [f"{name}  regrouped outputs, in a fused copy {how}" for name, how in found["orders"].items()]
    lines += [f"{name}  dense: {reason}" for name, reason in found["dense"].items()]
    return "\n".join([*lines, found["summary"]])
