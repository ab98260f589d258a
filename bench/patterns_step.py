"""A training step of VGG-16 on CIFAR-sized images once patterns are fixed, beside dense float32 and dense bfloat16.

    python bench/patterns_step.py --sparsity 0.861 --batch 64

All convolutions but the first have patterns, and share the sparsity evenly. A step is forward, backward and SGD with
momentum; bfloat16 is autocast. They take turns; prints JSON. ``--clock cpu``: see bench/patterns.py.
"""

import argparse
import json
import statistics
from collections import Counter

import torch

from campfire import models
from campfire.bench.kernels import keep_memory
from campfire.bench.nets import Step, compressed, images
from campfire.bench.timing import interleaved, machine, ratio
from campfire.compress import tune_
from campfire.nn.base import SparseLayer
from patterns import CLOCKS


def main() -> None:
    """Time the three."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="vgg16_bn")
    parser.add_argument("--sparsity", type=float, default=0.861)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: of one thread, with OMP_NUM_THREADS=1")
    given = parser.parse_args()
    if given.clock == "cpu" and torch.get_num_threads() > 1:
        parser.error("--clock cpu sees one thread; set OMP_NUM_THREADS=1")
    keep_memory()
    torch.manual_seed(0)
    dense = models.create(given.model, num_classes=10, small_input=True).to(memory_format=torch.channels_last)
    sparse, x = compressed(dense, "pattern", given.sparsity), images(given.batch, 32)
    tune_(sparse.net, x, True)
    labels = torch.randint(10, (given.batch,))
    steps = {
        "dense": Step(dense, x, labels),
        "dense_bf16": Step(dense, x, labels, torch.bfloat16),
        "sparse": Step(sparse.net, x, labels),
    }
    times = interleaved(steps, given.rounds, CLOCKS[given.clock])
    told = {
        "given": vars(given),
        "sparsity": sparse.sparsity,
        "kernels": Counter(str(m.choice()) for m in sparse.net.modules() if isinstance(m, SparseLayer)),
        **{f"{name}_ms": round(statistics.median(found), 1) for name, found in times.items()},
        **{name: round(ratio(times, name, "sparse"), 2) for name in ("dense", "dense_bf16")},
    }
    print(json.dumps({**told, "machine": machine()}))


if __name__ == "__main__":
    main()
