"""Accuracy against bits: trained networks with their surviving weights in few values; prints one JSON object.

    python bench/quantised.py runs/dense runs/fine runs/vector runs/kernel

Every convolution and linear layer is quantised, the first and the last one too: int8 with a scale for each output, or a
k-means codebook a layer (Deep Compression). ``loss`` is the accuracy that this takes, in points; ``spread`` how far the
losses of the runs lie apart. With ``--finetune N`` the shared values are trained for N steps under the masks before they are
measured. Finished runs stay in ``--output``, which a second call reads, so that it may be interrupted.
"""

import argparse
import copy
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from campfire import data
from campfire.data import ImageData
from campfire.quantise import named
from campfire.quantise.codebook import Codebook
from campfire.quantise.network import bake_, quantise_, share_
from campfire.training import Trained, load_run
from campfire.training.build import load_data
from campfire.training.evaluation import measure

WAYS = ("int8", *(f"codebook:{bits}" for bits in range(8, 1, -1)))
CPU = torch.device("cpu")


def of_run(path: str, ways: list[str], steps: int) -> dict[str, Any]:
    """Accuracy of a run as it is, and with its weights written in each way."""
    trained = load_run(path)
    same = {name: getattr(trained, name) for name in ("channels", "image_size", "mean", "std")}
    images = load_data(trained.config.data, **same)
    keep = {} if trained.pruner is None else {name: mask.keep for name, mask in trained.pruner.masks.items()}
    plain = measure(trained.model, images, trained.config, CPU)
    rows = []
    for way in ways:
        model, values = copy.deepcopy(trained.model), named(way)
        if steps and isinstance(values, Codebook):
            finetune(model, values, keep, trained, images, steps)
        layers = quantise_(model, values, keep)
        top1 = measure(model, images, trained.config, CPU).top1
        nbytes, weights = sum(x.nbytes for x in layers), sum(x.weights for x in layers)
        rows.append({"values": way, "top1": top1, "loss": plain.top1 - top1, "bits_a_weight": 8 * nbytes / weights})
        print(f"{path} {way}: {top1:.2f} %, {plain.top1:.2f} % before", file=sys.stderr)
    structure = trained.config.pruning.structure if trained.pruner else "dense"
    sparsity = trained.pruner.sparsity if trained.pruner else 0.0
    about = {"run": path, "structure": structure, "sparsity_true": sparsity, "top1": plain.top1}
    return {**about, "images": plain.images, "finetune_steps": steps, "rows": rows}


def finetune(
    model: nn.Module, values: Codebook, keep: dict[str, Tensor], trained: Trained, images: ImageData, steps: int
) -> None:
    """Train the shared values, under the mask; Adam, since their gradients are sums over thousands of weights."""
    share_(model, values.bits, keep)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    size = trained.config.data.batch_size
    stream = data.batches(images, "train", size, epoch=0, seed=0, train=True)
    model.train()
    for x, y in itertools.islice(stream, steps):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    bake_(model.eval())


def spread(runs: list[dict[str, Any]]) -> dict[str, float]:
    """By way: the largest loss of a run less the smallest one, in points."""
    losses = [{row["values"]: row["loss"] for row in run["rows"]} for run in runs]
    return {way: max(x[way] for x in losses) - min(x[way] for x in losses) for way in losses[0]}


def main() -> None:
    """Measure, and print."""
    own = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    own.add_argument("runs", nargs="+")
    own.add_argument("--ways", default=",".join(WAYS), help="int8, codebook:BITS, by commas")
    own.add_argument("--finetune", type=int, default=0, metavar="STEPS")
    own.add_argument("--output", type=Path, metavar="FILE", help="JSON that keeps what is done")
    args = own.parse_args()
    ways = args.ways.split(",")
    kept = json.loads(args.output.read_text())["runs"] if args.output and args.output.exists() else []
    done = {(x["run"], x["finetune_steps"], tuple(row["values"] for row in x["rows"])): x for x in kept}
    found: dict[str, Any] = {"runs": []}
    for path in args.runs:
        key = (path, args.finetune, tuple(ways))
        found["runs"].append(done.get(key) or of_run(path, ways, args.finetune))
        found["spread"] = spread(found["runs"])
        if args.output:
            args.output.write_text(json.dumps(found, indent=1))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
