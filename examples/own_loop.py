"""Your model, your loop, two lines of campfire.

python examples/own_loop.py
"""

import torch
from torch.nn import functional as F

from campfire import Era, Pruner
from campfire.data import batches, load, num_batches
from campfire.models import create

EPOCHS, BATCH = 6, 64


def main(epochs: int = EPOCHS) -> float:
    torch.manual_seed(0)
    data = load("digits")
    model = create("resnet8", num_classes=len(data.classes), in_channels=data.channels)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True)
    steps = num_batches(data, "train", BATCH, train=True)

    pruner = Pruner(model, "ck", Era(start=epochs // 3, length=epochs // 3, target=0.7))  # 1
    pruner.attach(optimizer, steps_per_epoch=steps)  # 2

    for epoch in range(epochs):  # from here on, the loop as it was
        model.train()
        for images, labels in batches(data, "train", BATCH, epoch=epoch, seed=0, train=True):
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            right = sum(
                int((model(x).argmax(1) == y).sum())
                for x, y in batches(data, "test", 256, epoch=0, seed=0, train=False)
            )
        print(f"epoch {epoch}: top-1 {100 * right / len(data.test):.2f} %, zeros {pruner.sparsity:.3f}")

    print(pruner.report())
    return pruner.sparsity


if __name__ == "__main__":
    main()
