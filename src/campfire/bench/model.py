"""What a whole compressed model gains: inference and training steps beside dense float32 and dense bfloat16, in turns."""

import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from campfire import models
from campfire.bench.cuda import device_of, turns, uncaptured
from campfire.bench.kernels import keep_memory
from campfire.bench.memory import peak_memory
from campfire.bench.nets import Compiled, Inference, Pair, Step, compressed, dense_net, of_run
from campfire.bench.timing import machine, ratio
from campfire.compress import tune_
from campfire.nn.base import SparseLayer

BEST = "torch.compile, frozen weights"
RATIOS = {  # the time of the first over that of the second
    "ratio": ("dense", "sparse"),
    "bf16_ratio": ("dense_bf16", "sparse"),
    "both_bf16_ratio": ("dense_bf16", "sparse_bf16"),
    "best_ratio": ("best", "sparse"),
    "best_bf16_ratio": ("best_bf16", "sparse"),
    "best_both_bf16_ratio": ("best_bf16", "sparse_bf16"),
}


def bench_model(
    model: str = "resnet50",
    structure: str = "tiles",
    sparsity: float = 0.7,
    batches: Sequence[int] = (16, 1),
    rounds: int = 5,
    size: int = 224,
    seed: int = 0,
    best: bool = False,
    memory: bool = True,
    device: str = "cpu",
) -> dict[str, Any]:
    """Milliseconds of inference and of a training step (forward, backward, SGD with momentum), dense and compressed.

    ``model`` is a name, or a run: then its network is timed as it was trained and pruned, on images of its size. All
    in channels_last. Kernels are chosen by `campfire.tune_`, for inference and for training each. In inference both
    sides are `campfire.fuse`d. Ratios are dense over sparse, round by round. Dense is what the library does when it
    is called layer by layer (oneDNN): float32, and bfloat16, which in inference means weights converted once, and in
    training autocast. ``dense_bf16_ratio`` is dense bfloat16 over sparse in float32, below 1 where bfloat16 wins;
    ``both_bf16_ratio`` is dense over sparse, both in bfloat16.

    With ``best`` the strongest dense inference that users have is timed as well, in both dtypes: the fused model
    compiled by inductor with frozen weights. It is the same library behind it, with less between the layers, which counts
    most for single images; ``best_ratio`` and ``best_bf16_ratio`` are its times over ours, which is not compiled.

    ``memory_ratio`` is weights, gradients and optimizer state of the pruned layers (of a run: weights), after over
    before; ``peak_memory_mb`` see `campfire.bench.memory.peak_memory` (not of a run).

    ``device="cuda"``: whole passes and whole training steps are captured as CUDA graphs, on both sides, and timed by
    events; float32 is TF32.

    Raises:
        UsageError: the structure fits none of the layers; or no GPU is there.
    """
    keep_memory()
    where = device_of(device)
    run = model not in models.names() and Path(model).exists()
    pair = of_run(model).to(where) if run else _pair(model, structure, sparsity, size, seed, where)
    dense, sparse = pair.dense, pair.sparse.net
    found: dict[str, Any] = {
        "model": model,
        "structure": pair.structure,
        "sparsity": pair.asked,
        "sparsity_true": pair.sparse.sparsity,
        "rounds": rounds,
        "dense_best": BEST if best else None,
        "memory_ratio": pair.sparse.memory_ratio,
    }
    for batch in batches:
        found[f"inference_{batch}"] = _inference(dense, sparse, pair.images(batch), rounds, best)
    found["train_step"] = _train_step(dense, sparse, pair.images(batches[0]), rounds)
    first = found[f"inference_{batches[0]}"]
    return {
        **found,
        "inference_ratio": first["ratio"],
        "train_step_ratio": found["train_step"]["ratio"],
        "dense_bf16_ratio": {"inference": first["bf16_ratio"], "train_step": found["train_step"]["bf16_ratio"]},
        "both_bf16_ratio": {
            k: x["both_bf16_ratio"] for k, x in (("inference", first), ("train_step", found["train_step"]))
        },
        "peak_memory_mb": peak_memory(model, structure, sparsity, batches[0], size, where)
        if memory and not run
        else None,
        **({"uncaptured": list(uncaptured)} if where.type == "cuda" else {}),
        "machine": machine(where),
    }


def _pair(model: str, structure: str, sparsity: float, size: int, seed: int, device: torch.device) -> Pair:
    dense = dense_net(model, seed, device)
    return Pair(structure, sparsity, dense, compressed(dense, structure, sparsity), size)


def _inference(dense: nn.Module, sparse: nn.Module, x: Tensor, rounds: int, best: bool) -> dict[str, Any]:
    _tune(sparse, x, training=False)
    runs: dict[str, Callable[[], Any]] = {
        "dense": Inference(dense, x),
        "dense_bf16": Inference(dense, x, torch.bfloat16),
        "sparse": Inference(sparse, x),
        "sparse_bf16": Inference(sparse, x, torch.bfloat16),
    }
    if best:
        runs |= {"best": Compiled(dense, x), "best_bf16": Compiled(dense, x, torch.bfloat16)}
    return {
        **_figures(runs, rounds, x.device),
        "kernels": _kernels(sparse),
        "fusion_error": _error(sparse, runs["sparse"], x),
    }


def _train_step(dense: nn.Module, sparse: nn.Module, x: Tensor, rounds: int) -> dict[str, Any]:
    _tune(sparse, x, training=True)
    with torch.no_grad():
        labels = dense.eval()(x).argmax(1)
    both, dtypes = {"dense": dense, "sparse": sparse}, {"": None, "_bf16": torch.bfloat16}
    runs = {
        f"{name}{kind}": Step(net, x, labels, dtype) for kind, dtype in dtypes.items() for name, net in both.items()
    }
    return {**_figures(runs, rounds, x.device), "kernels": _kernels(sparse)}


def _tune(net: nn.Module, x: Tensor, training: bool) -> None:
    """Choose its kernels in both dtypes."""
    tune_(net, x, training)
    with torch.autocast(x.device.type, torch.bfloat16):
        tune_(net, x, training)


def _figures(runs: Mapping[str, Callable[[], Any]], rounds: int, device: torch.device) -> dict[str, float]:
    """Median milliseconds of each, and the ratios between those that were run."""
    times = turns({name: [run] for name, run in runs.items()}, rounds, device)
    ratios = {name: ratio(times, *pair) for name, pair in RATIOS.items() if times.keys() >= set(pair)}
    return {**{f"{name}_ms": statistics.median(values) for name, values in times.items()}, **ratios}


def _kernels(net: nn.Module) -> dict[str, int]:
    """How many layers each choice of kernels serves."""
    return dict(Counter(str(m.choice()) for m in net.modules() if isinstance(m, SparseLayer)))


def _error(net: nn.Module, fused: Callable[[], Tensor], x: Tensor) -> dict[str, float]:
    """The largest difference that fusion makes to a logit, and the largest logit."""
    with torch.inference_mode():
        plain = net.eval()(x)
    return {"max_abs": float((fused() - plain).abs().max()), "largest": float(plain.abs().max())}
