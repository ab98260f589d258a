"""What regrouping costs a run: the first masks, an update of a method that regrows, and the steps between.

    OMP_NUM_THREADS=1 python bench/regrouping.py --structure hrbp --method rigl

The optimizer steps on drawn gradients, so nothing else takes time. Prints one JSON object: seconds of the first update,
median seconds of later ones and of all other steps, with how many times outputs were put into a new order in them.
"""

import argparse
import json
import statistics
import time
from typing import Any

import torch

from campfire import Era, OneShot, Pruner, models
from campfire.bench.timing import machine
from campfire.structures import hrbp

CONSTANT = ("rigl", "set", "dsr", "deepr")


def make(args: argparse.Namespace) -> tuple[torch.nn.Module, torch.optim.Optimizer, Pruner]:
    torch.manual_seed(0)
    model = models.create(args.model, num_classes=1000)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)
    regrows = args.method.partition(":")[0] in CONSTANT
    schedule = Era(0, 100, args.sparsity, initial=args.sparsity, by="step") if regrows else OneShot(0, args.sparsity)
    every = args.every if regrows else 1
    pruner = Pruner(model, args.structure, schedule, method=args.method, every=every)
    return model, optimizer, pruner.attach(optimizer, steps_per_epoch=100)


def counted() -> list[int]:
    """How many layers were put into order so far; grows as it happens."""
    calls, order = [0], hrbp.HRBP._order

    def counting(*given: Any) -> torch.Tensor:
        calls[0] += 1
        return order(*given)

    hrbp.HRBP._order = counting
    return calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--structure", default="hrbp")
    parser.add_argument("--method", default="rigl")
    parser.add_argument("--sparsity", type=float, default=0.8)
    parser.add_argument("--every", type=int, default=4, help="steps between updates")
    parser.add_argument("--steps", type=int, default=21)
    args = parser.parse_args()

    model, optimizer, pruner = make(args)
    calls, first, updates, others, planned = counted(), 0.0, [], [], 0
    for step in range(args.steps):
        optimizer.zero_grad()
        torch.autograd.backward(list(model.parameters()), [1e-2 * torch.randn_like(p) for p in model.parameters()])
        before, masks, start = calls[0], {n: id(m) for n, m in pruner.masks.items()}, time.perf_counter()
        optimizer.step()
        seconds = time.perf_counter() - start
        if step == 0:
            first = seconds
        elif masks != {n: id(m) for n, m in pruner.masks.items()}:
            updates.append(seconds)
        else:
            others.append(seconds)
            planned += calls[0] - before
    found = {"first_update_s": first, "update_s": statistics.median(updates) if updates else None,
             "other_step_s": statistics.median(others), "planned_in_other_steps": planned}  # fmt: skip
    print(json.dumps({**vars(args), **found, "machine": machine()}))


if __name__ == "__main__":
    main()
