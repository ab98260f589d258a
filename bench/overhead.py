"""What the pruner costs a training step: the same network with and without it, blocks of steps taking turns.

    python bench/overhead.py --model resnet20 --width 2 --batch 128 --structure ck --by step
    python bench/overhead.py --model resnet50 --size 224 --classes 1000 --batch 32 --fp32 --steps 1 --rounds 9

``--by step`` moves the target, and so the masks of every layer, with every step; with ``--era 20 --steps-per-epoch
40036`` as slowly as on ImageNet. ``--by epoch`` is the paper's era, in which the masks of a step inside an epoch
cannot change. Prints one JSON object: median milliseconds of a step in each state, and the median over rounds of with
/ without.
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


def make(args: argparse.Namespace) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    kwargs = {} if args.width is None else {"width": args.width}
    model = models.create(args.model, num_classes=args.classes, **kwargs).to(memory_format=torch.channels_last)
    return model, torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4, nesterov=True)


def block(model: nn.Module, optimizer: torch.optim.Optimizer, args: argparse.Namespace) -> Callable[[], float]:
    x = torch.randn(args.batch, 3, args.size, args.size).contiguous(memory_format=torch.channels_last)
    y = torch.randint(0, args.classes, (args.batch,))

    def run() -> float:
        start = time.perf_counter()
        for _ in range(args.steps):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=not args.fp32):
                loss = F.cross_entropy(model(x).float(), y)
            loss.backward()
            optimizer.step()
        return 1e3 * (time.perf_counter() - start) / args.steps

    return run


class Clock:
    """Sums up the time between hooks that were registered before the pruner's and hooks registered after them."""

    def __init__(self) -> None:
        self.total = self.begun = 0.0

    def start(self, *_: object) -> None:
        self.begun = time.perf_counter()

    def stop(self, *_: object) -> None:
        self.total += time.perf_counter() - self.begun

    def around(self, pruner: Pruner, optimizer: torch.optim.Optimizer, steps_per_epoch: int) -> None:
        """Attach the pruner, each of its hooks between two of these."""
        weights = [layer.weight for layer in pruner.layers.values()]
        registers = [*(w.register_hook for w in weights)]
        registers += [optimizer.register_step_pre_hook, optimizer.register_step_post_hook]
        for register in registers:
            register(self.start)
        pruner.attach(optimizer, steps_per_epoch)
        for register in registers:
            register(self.stop)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--width", type=float, help="of the nets for CIFAR")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--size", type=int, default=32, help="height and width of the images")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--structure", default="ck")
    parser.add_argument("--by", choices=["step", "epoch"], default="step")
    parser.add_argument("--era", type=float, default=4, help="epochs; at least as long as the run")
    parser.add_argument("--steps-per-epoch", type=int, help="default: the run is four epochs long; of ImageNet 40,036")
    parser.add_argument("--steps", type=int, default=5, help="steps in a block")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--fp32", action="store_true")
    args = parser.parse_args()

    plain, sparse = make(args), make(args)
    total = (args.rounds + 1) * args.steps
    spe = args.steps_per_epoch or max(1, total // 4)
    era = Era(
        0, max(args.era, total / spe + 1), 0.7, by=args.by
    )  # its end, where all masks are verified, is not reached
    clock = Clock()
    clock.around(Pruner(sparse[0], args.structure, era), sparse[1], spe)
    runs = {"without": block(*plain, args), "with": block(*sparse, args)}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    own: list[float] = []
    for _ in range(args.rounds):
        clock.total = 0.0
        for name, run in runs.items():
            times[name].append(run())
        own.append(1e3 * clock.total / args.steps)
    ratios = [a / b for a, b in zip(times["with"], times["without"], strict=True)]
    figures = {f"{name}_ms": statistics.median(values) for name, values in times.items()}
    figures["own_ms"] = statistics.median(own)
    figures |= {"own_share": figures["own_ms"] / figures["without_ms"], "ratio": statistics.median(ratios)}
    print(json.dumps({**vars(args), **figures, "machine": machine()}))


if __name__ == "__main__":
    main()
