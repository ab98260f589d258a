"""Run directories made by writing the files that training writes."""

import json
import math
from pathlib import Path

LAYERS = [f"layer{stage}.{block}.conv{i}" for stage in (1, 2, 3) for block in (0, 1, 2) for i in (1, 2)]


def sparsity_at(epoch: int, target: float, epochs: int) -> float:
    start, length = epochs // 3, max(epochs // 3, 1)
    if epoch < start:
        return 0.0
    return target * (1 - max(1 - (epoch - start) / length, 0.0) ** 3)


def layer(name: str, stage: int, structure: str | None, target: float) -> dict:
    kernels = (16 * 2**stage) ** 2
    kept = round(kernels * (1 - target)) if structure else kernels
    counts = {"kept_kernels": kept, "kernels": kernels, "kept_weights": 9 * kept, "weights": 9 * kernels}
    reason = None if structure else "outside the rules"
    shape = [16 * 2**stage, 16 * 2**stage, 3, 3]
    truth = {"requested": target if structure else None, "true": 1 - kept / kernels}
    return {"name": name, "shape": shape, "structure": structure, "reason": reason, **truth, **counts}


def total(layers: list[dict]) -> dict:
    weights, kept = sum(r["weights"] for r in layers), sum(r["kept_weights"] for r in layers)
    return {"weights": weights, "kept": kept, "sparsity": 1 - kept / weights if weights else None}


def write_run(
    path: Path,
    *,
    structure: str | None = "ck",
    target: float = 0.7,
    epochs: int = 12,
    state: str = "done",
    seen: int | None = None,
    seed: int = 0,
    offset: float = 0.0,
    model: str = "resnet20",
    data: str = "digits",
    layer_names: tuple[str, ...] = tuple(LAYERS),
    kwargs: dict | None = None,
    **summary,
) -> Path:
    """A run directory of ``epochs`` epochs, of which the first ``seen`` were trained."""
    path.mkdir(parents=True)
    target = target if structure else 0.0
    asked = {
        "model": model,
        "data": data,
        "structure": structure or "dense",
        "method": "gradual" if structure else None,
    }
    pruning = {"structure": structure or "dense", "sparsity": target or 0.7, "method": "gradual"}
    config = {"model": {"name": model, "kwargs": kwargs or {}}, "data": {"source": data}, "pruning": pruning}
    config |= {"optim": {"epochs": epochs, "lr": 0.1}, "run": {"seed": seed}}
    (path / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    status = {"state": state, "exit_code": {"done": 0, "diverged": 3, "preempted": 75}.get(state)}
    reason = {"diverged": "loss is nan at step 71", "preempted": "SIGTERM"}.get(state)
    (path / "status.json").write_text(json.dumps({**status, "reason": reason, "epoch": seen or epochs, "step": 1}))
    machine = {"host": {"cpu": "Xeon", "cores": 2}, "threads": 2, "versions": {"torch": "2.13.0"}}
    env = {"argv": ["campfire", "train", "--model", model, "--seed", str(seed)], **machine}
    (path / "env.json").write_text(json.dumps(env))
    records = [metrics(e, target, epochs, offset) for e in range(epochs if seen is None else seen)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    rows = [layer("conv1", 0, None, target)]
    rows += [layer(name, i // 6, structure, target) for i, name in enumerate(layer_names)]
    scopes = {"pruned": total([r for r in rows if r["structure"]]), "convs": total(rows), "model": total(rows)}
    if state == "done":
        final = asked | {
            "seed": seed,
            "top1": records[-1]["eval_top1"],
            "top5": 99.8,
            "epochs": epochs,
            "seconds": 61.5,
        }
        final |= {"sparsity_requested": target, "sparsity_true": scopes["pruned"]["sparsity"], "macs": 41_000_000}
        final |= {"sparse_macs": 13_000_000 if structure else 41_000_000, "output": str(path)}
        (path / "sparsity.json").write_text(json.dumps({"layers": rows, **scopes}))
        (path / "summary.json").write_text(json.dumps(final | summary))
        (path / "model.safetensors").write_bytes(bytes(1_100_000))
    return path


def metrics(epoch: int, target: float, epochs: int, offset: float) -> dict:
    zeros = sparsity_at(epoch, target, epochs)
    dip = 6 * target * math.exp(-abs(epoch - epochs / 2))
    top1 = 98 - offset - 70 * math.exp(-epoch * 6 / epochs) - dip
    loss = 0.05 + 2.2 * math.exp(-epoch * 6 / epochs) + dip / 30
    tops = {"train_top1": min(top1 + 1, 100), "eval_top1": top1, "eval_top5": 99.8}
    losses = {"train_loss": loss, "eval_loss": 1.2 * loss, "lr": 0.1}
    zeros_at = {"sparsity_requested": zeros, "sparsity_true": zeros}
    clock = {"seconds": 5.0 + 0.1 * epoch, "images_per_second": 290.0 + epoch}
    return {"epoch": epoch, "step": 12 * (epoch + 1), **tops, **losses, **zeros_at, **clock}
