"""What ClickTrain costs: choosing the masks once, and the lasso in every training step between e1 and e2.

    python bench/clicktrain.py --model resnet50 --size 224 --batch 16 --fp32 --steps 1
    python bench/clicktrain.py --model resnet20 --width 2 --batch 128

Prints one JSON object: seconds to choose patterns and kernels of all layers, importance included; median milliseconds of the
lasso and its gradients alone, and of a step with and without it, blocks of steps of the same network taking turns; and the
median over rounds of with / without.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from campfire import Era, Pruner, models
from campfire.bench.timing import machine


def make(args: argparse.Namespace) -> tuple[nn.Module, Pruner]:
    torch.manual_seed(0)
    options = {} if args.width is None else {"width": args.width}
    model = models.create(args.model, num_classes=10, small_input=args.size <= 64, **options)
    model = model.to(memory_format=torch.channels_last)
    method = f"clicktrain:batches={args.batches}"
    return model, Pruner(model, args.structure, Era(0, 1, args.sparsity, by="step"), method=method)


@torch.no_grad()
def choose(args: argparse.Namespace) -> float:
    """Seconds of all that happens at e1 beside training."""
    _, pruner = make(args)
    for weight in pruner.weights(pruner.stages[0]).values():
        weight.grad = torch.randn_like(weight)
    start = time.perf_counter()
    for _ in range(args.batches):
        pruner.method.before_step(pruner, 0.0)
    seconds = time.perf_counter() - start
    assert pruner.method.mode(pruner, 0.0) == "regularise"
    return seconds


def timed(run: Callable[[], None], times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        run()
    return 1e3 * (time.perf_counter() - start) / times


def steps(args: argparse.Namespace) -> tuple[dict[str, Callable[[], None]], Pruner]:
    """A training step without and with the lasso; masks are chosen, and e2 does not come."""
    model, pruner = make(args)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4, nesterov=True)
    pruner.attach(optimizer, 10**9)
    x = torch.randn(args.batch, 3, args.size, args.size).contiguous(memory_format=torch.channels_last)
    y = torch.randint(0, 10, (args.batch,))

    def step(pressed: bool) -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=not args.fp32):
            loss = F.cross_entropy(model(x).float(), y)
        (loss + pruner.penalty() if pressed else loss).backward()
        optimizer.step()

    for _ in range(args.batches):
        step(False)
    assert pruner.method.mode(pruner, 0.0) == "regularise"
    return {"without": lambda: step(False), "with": lambda: step(True)}, pruner


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--width", type=float)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--structure", default="pattern")
    parser.add_argument("--sparsity", type=float, default=0.83)
    parser.add_argument("--batches", type=int, default=1, help="whose importance is averaged")
    parser.add_argument("--steps", type=int, default=5, help="steps in a block")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--fp32", action="store_true")
    args = parser.parse_args()

    seconds = [choose(args) for _ in range(3)]
    runs, pruner = steps(args)
    alone = [timed(lambda: torch.as_tensor(pruner.penalty()).backward(), 1) for _ in range(args.rounds + 2)][2:]
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(args.rounds + 1):
        for name, run in runs.items():
            times[name].append(timed(run, args.steps))
    ratios = [a / b for a, b in zip(times["with"][1:], times["without"][1:], strict=True)]
    figures = {f"{name}_ms": statistics.median(values[1:]) for name, values in times.items()}
    figures |= {"lasso_ms": statistics.median(alone), "ratio": statistics.median(ratios)}
    print(json.dumps({**vars(args), "choosing_s": seconds, **figures, "machine": machine()}))


if __name__ == "__main__":
    main()
