"""Networks named on a command line: checkpoints as other programs write them, into a model that is named."""

from argparse import Namespace
from pathlib import Path

import pytest
import torch

from campfire import models
from campfire.cli.networks import network
from campfire.errors import CheckpointError

OPTIONS = {"size": 16, "model": "resnet8", "model_kwargs": {}, "structure": "dense", "sparsity": 0.5}


@pytest.mark.parametrize("holder", ["", "model.", "module.", "net.module."])
def test_weights_under_the_name_of_their_holder(holder: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = models.create("resnet8", num_classes=5).eval()
    state = {f"{holder}{name}": x.half() if x.is_floating_point() else x for name, x in model.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3, "callbacks": {}}, tmp_path / "x.ckpt")
    if holder == "net.module.":  # two deep: named as they are
        with pytest.raises(CheckpointError, match=r"conv1\.weight: missing"):
            network(str(tmp_path / "x.ckpt"), Namespace(**OPTIONS))
        return
    found = network(str(tmp_path / "x.ckpt"), Namespace(**OPTIONS))
    assert torch.equal(found.model.fc.weight, model.fc.weight.half().float())
    assert found.images(2).shape == (2, 3, 16, 16)
