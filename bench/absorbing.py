"""What the order of regrouped outputs costs inference: restored by every layer, or taken over by its readers (`campfire.fuse`).

    python bench/absorbing.py --model resnet50 --structure hrbp --sparsity 0.7

Dense, `tiles` and the structure take turns, all fused, in float32 and channels_last; kernels are chosen by the cost model. Prints
one JSON object: median milliseconds, the median over rounds of dense over each, and what fusion says.
"""

import argparse
import json
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from torch import fx, nn

from campfire import fusion
from campfire.bench.kernels import keep_memory
from campfire.bench.nets import Inference, compressed, dense_net, images
from campfire.bench.timing import interleaved, machine, ratio
from campfire.compress import tune_
from campfire.fusion.absorbing import Absorption


@contextmanager
def nothing_absorbed() -> Iterator[None]:
    with mock.patch.object(fusion, "Absorption", lambda graph, modules, *rest: Absorption(fx.Graph(), modules, *rest)):
        yield


def sparse_net(dense: nn.Module, x: torch.Tensor, structure: str, sparsity: float) -> nn.Module:
    net = compressed(dense, structure, sparsity).net
    tune_(net, x, training=False, by="model")
    return net


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--structure", default="hrbp")
    parser.add_argument("--sparsity", type=float, default=0.7)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()

    keep_memory()
    dense, x = dense_net(args.model), images(args.batch, args.size, 3)
    tiles, blocks = (sparse_net(dense, x, s, args.sparsity) for s in ("tiles", args.structure))
    runs = {"dense": Inference(dense, x), "tiles": Inference(tiles, x), "absorbed": Inference(blocks, x)}
    with nothing_absorbed():
        runs["restored"] = Inference(blocks, x)
    with torch.inference_mode():
        times = interleaved(runs, args.rounds)
    found = {
        name: {"ms": statistics.median(taken), "gain": ratio(times, "dense", name)} for name, taken in times.items()
    }
    print(json.dumps({**vars(args), **found, "fusion": str(fusion.fuse(blocks).report), "machine": machine()}))


if __name__ == "__main__":
    main()
