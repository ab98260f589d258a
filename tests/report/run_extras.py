"""What a run directory may hold beside its training, as the commands write it."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from campfire.attack.record import FORMAT, accuracy


def write_costs(run: Path, left: float = 0.31) -> None:
    """``costs.json`` of two layers."""

    def cost(size: float) -> dict:
        refs = {"products": 9e6 * size, "row_merge": 3e6 * size, "kernel_merge": 1e6 * size}
        live = {
            "references": {k: left * v for k, v in refs.items()},
            "dense_references": refs,
            "moved_bytes": 5e5 * size,
        }
        stored = {"file_bytes": 1e5 * size * left, "dense_bytes": 1e5 * size, "mao_ratio": left + 0.01}
        return {"macs": 4e7 * size, "sparse_macs": 4e7 * size * left, **stored, "activity": live}

    layers = [{"name": name, **cost(0.5)} for name in ("layer1.0.conv1", "layer1.0.conv2")]
    (run / "costs.json").write_text(json.dumps({"layers": layers, "convolutions": cost(1), "images": 4}))


def write_kernels(run: Path, *, measured: bool = True) -> None:
    """``kernels.json`` of two layers: a pass gains, one is left to the dense library."""

    def one(kernel: str, times: float) -> dict:
        return {"kernel": kernel, "predicted": 1.5, "measured": times if measured else None, "why_not": {}}

    passes = {"forward": one("blocks", 2.25), "d_input": one("reference", 0.4), "d_values": one("blocks", 1.75)}
    layers = [{"name": f"layer1.0.conv{i}", "density": 0.3, "dtype": "float32", "passes": passes} for i in (1, 2)]
    (run / "kernels.json").write_text(json.dumps({"layers": layers, "measured": measured, "threads": 2, "whole": 1.4}))


def write_attack(
    run: Path, correct: int = 880, sample: str = "same", attack: str = "fgsm", space: str = "pixel", last: int = 8
) -> None:
    """``attack.json`` at two strengths, 2 and ``last`` of 255."""
    about = {"attack": attack, "norm": "linf", "space": space, "steps": 1, "restarts": 1, "start": None}
    hits = [{**about, "eps": e / 255, **accuracy(correct // (1 + e), 1000)} for e in (2, last)]
    record = {"format": FORMAT, "sample": sample, "clean": accuracy(correct, 1000), "results": hits}
    (run / "attack.json").write_text(json.dumps(record))


def write_weights(run: Path, zeros: float = 0.0) -> None:
    """``model.safetensors`` with the layers of the record; whole kernels are zero."""
    generator, tensors = np.random.default_rng(0), {}
    for layer in json.loads((run / "sparsity.json").read_text())["layers"]:
        weight = generator.normal(size=(12, 12, *layer["shape"][2:])).astype(np.float32)
        weight *= generator.random((12, 12, 1, 1)) >= zeros
        tensors[f"{layer['name']}.weight"] = weight
    save_file(tensors, run / "model.safetensors")
