"""A new structure in one file, outside the package: balanced CK, the same number of living kernels in every filter.

Defining the class registers it: `Pruner`, resume, packing, reports and the conformance suite take it from there.

    python examples/add_a_structure.py
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from campfire import Era, Pruner, check_structure
from campfire.data import batches, load, num_batches
from campfire.models import create
from campfire.structures import Grain


@dataclass(frozen=True)
class BalancedCK(Grain):
    """Whole kernels compete inside each filter, by their largest |w|; every filter keeps the same number.

                c=0     c=1     c=2     c=3
        k=0    x x x   . . .   x x x   . . .
        k=1    . . .   . . .   x x x   x x x       (each row of a kernel drawn once)

    Keeps: the best kernels of each output, so that outputs cost equal work.
    Hardware: processing elements that own an output each.
    Source: this example.
    """

    name, grain, budget, reduce = "balanced-ck", "r s", "K k", "max"


def main(epochs: int = 3) -> None:
    print(check_structure(BalancedCK()), "conformance cases pass")
    torch.manual_seed(0)
    data = load("digits")
    model = create("resnet8", num_classes=len(data.classes), in_channels=data.channels)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    steps = num_batches(data, "train", 64, train=True)
    pruner = Pruner(model, "balanced-ck", Era(start=0, length=epochs - 1, target=0.7)).attach(optimizer, steps)
    for epoch in range(epochs):
        for images, labels in batches(data, "train", 64, epoch=epoch, seed=0, train=True):
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
    kernels = next(iter(pruner.masks.values())).keep.any(-1).any(-1).sum(1)
    print(f"true sparsity {pruner.sparsity:.4f}; kernels in each filter of the first layer: {kernels.tolist()}")
    assert kernels.unique().numel() == 1


if __name__ == "__main__":
    main()
