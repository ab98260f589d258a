"""Mao et al.'s experiment: accuracy against sparsity for grains of 0 to 3 dimensions, and which grain stores least.

    python bench/mao.py CIFAR10 --dense runs/dense --output runs/mao

Every grain starts from the same dense run, and is pruned and retrained level by level: at each sparsity one pruning, then the
same number of epochs with a learning rate of its own that falls to zero, so that every level is a finished network. Each
level is a run directory (``OUTPUT/kernel/0.70``); called again, it goes on where it was stopped, in the middle of a level too.
Writes ``OUTPUT/mao.json`` and ``OUTPUT/mao.svg`` after every level, and prints the JSON at the end.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
import yaml

from campfire.costs import cost
from campfire.costs.equal import Point, common_level, crossing
from campfire.files.encoding import encode
from campfire.report.drawing.svg import SERIES
from campfire.training import load_run, train

GRAINS = ("fine", "vector", "kernel", "filter")
COSTS = ("mao_ratio", "file_ratio", "sparse_macs")


def levels(grain: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """All levels of one grain, trained where they are not yet."""
    rows, start = [], args.dense / "model.safetensors"
    for sparsity in args.sparsities:
        folder = args.output / grain / f"{sparsity:.2f}"
        if not (folder / "summary.json").exists():
            options = {"structure": grain, "sparsity": sparsity, "schedule": "oneshot", "era_start": 0.0}
            schedule = {"epochs": args.epochs, "lr": args.lr, "warmup_epochs": 0.0}
            train(
                args.data, output=folder, resume="auto", pretrained=str(start), model=args.model,
                model_kwargs=args.model_kwargs, batch_size=args.batch_size, amp=args.amp, seed=args.seed,
                **options, **schedule,
            )  # fmt: skip
        start = folder / "model.safetensors"
        rows.append(row(grain, folder, args.epochs))
        print(rows[-1], file=sys.stderr)
    return rows


def row(grain: str, folder: Path, epochs: int) -> dict[str, Any]:
    """Accuracy and costs of a level, over its convolutions."""
    summary, trained = json.loads((folder / "summary.json").read_text()), load_run(folder)
    assert trained.pruner is not None
    keep = {name: mask.keep for name, mask in trained.pruner.masks.items()}
    size = (trained.channels, trained.image_size, trained.image_size)
    known = cost(trained.model, size, keep, mask_bytes=lambda mask: encode(mask.numpy()).nbytes).to_dict()[
        "convolutions"
    ]
    living = known["living"] / known["weights"]
    about = {"grain": grain, "sparsity_requested": summary["sparsity_requested"], "epochs": epochs}
    return {**about, "sparsity_convs": 1 - living, "top1": summary["top1"], **{name: known[name] for name in COSTS}}


def at_equal_accuracy(rows: list[dict[str, Any]], dense: float) -> list[dict[str, Any]]:
    """Storage of every grain where it loses so much accuracy, and where all reach the same; the grain that stores least."""
    curves: dict[str, list[Point]] = {}
    for x in rows:
        point = Point(x["top1"], 1 - x["sparsity_convs"], {name: x[name] for name in COSTS})
        curves.setdefault(x["grain"], []).append(point)
    found = []
    for level in sorted({common_level(curves), *(dense - lost for lost in (0.25, 0.5, 1.0, 2.0))}, reverse=True):
        at = {grain: crossing(points, level) for grain, points in curves.items()}
        stored = {grain: x.costs["mao_ratio"] for grain, x in at.items() if x is not None}
        least = min(stored, key=stored.__getitem__) if stored else None
        plain = {grain: None if x is None else vars(x) for grain, x in at.items()}
        found.append({"top1": level, "least": least, "grains": plain})
    return found


def draw(rows: list[dict[str, Any]], dense: float, path: Path) -> None:
    """Accuracy against sparsity, and against storage."""
    from matplotlib import pyplot  # only this figure needs it

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 3.6), sharey=True, layout="constrained")
    for grain, colour in zip(GRAINS, SERIES, strict=False):
        own = [x for x in rows if x["grain"] == grain]
        for axis, name in zip(axes, ("sparsity_convs", "mao_ratio"), strict=True):
            axis.plot(
                [100 * x[name] for x in own], [x["top1"] for x in own], "o-", color=colour, markersize=4, label=grain
            )
    for axis, label in zip(
        axes, ("zeros in the convolutions, %", "storage by Mao et al.'s model, % of dense"), strict=True
    ):
        axis.axhline(dense, color="grey", linestyle=":", label="dense")
        axis.set(xlabel=label)
    axes[0].set(ylabel="top-1, %")
    axes[0].legend()
    figure.savefig(path, metadata={"Date": None})  # equal numbers, equal file


def main() -> None:
    """Train what is missing, then print."""
    own = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    own.add_argument("data")
    own.add_argument("--dense", type=Path, required=True, metavar="RUN", help="the run all start from")
    own.add_argument("--output", type=Path, required=True, metavar="DIR")
    own.add_argument("--grains", default=",".join(GRAINS))
    own.add_argument("--sparsities", default="0.5,0.6,0.7,0.8,0.9", help="rising, by commas")
    own.add_argument("--epochs", type=int, default=3, help="of every level")
    own.add_argument("--lr", type=float, default=0.02)
    own.add_argument("-b", "--batch-size", type=int, default=128)
    own.add_argument("--amp", action="store_true")
    own.add_argument("--seed", type=int, default=42)
    own.add_argument("--threads", type=int)
    args = own.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    args.sparsities = sorted(float(x) for x in args.sparsities.split(","))
    known = yaml.safe_load((args.dense / "config.yaml").read_text())["model"]
    args.model, args.model_kwargs = known["name"], known["kwargs"]
    dense = json.loads((args.dense / "summary.json").read_text())["top1"]
    rows: list[dict[str, Any]] = []
    for grain in args.grains.split(","):
        rows += levels(grain, args)
        found = {"dense_top1": dense, "levels": rows, "equal_accuracy": at_equal_accuracy(rows, dense)}
        (args.output / "mao.json").write_text(json.dumps(found, indent=1))
        draw(rows, dense, args.output / "mao.svg")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
