"""Networks named on a command line: checkpoints as other programs write them, into a model that is named."""

from argparse import Namespace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from campfire import cli, models, save
from campfire.cli.networks import network
from campfire.errors import CheckpointError, UsageError

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


@pytest.fixture
def dense(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    torch.save(models.create("resnet8", num_classes=10).state_dict(), tmp_path / "r8.pt")
    return tmp_path / "r8.pt"


def test_a_structure_is_laid_on_a_dense_file(dense: Path, tmp_path: Path) -> None:
    found = network(str(dense), Namespace(**{**OPTIONS, "structure": "ck"}))
    assert (found.structure, len(found.keep)) == ("ck", 8)
    assert all(float(keep.float().mean()) == pytest.approx(0.5, abs=0.01) for keep in found.keep.values())
    out = tmp_path / "s.pt"
    argv = ["export", str(dense), "--model", "resnet8", "--structure", "ck", "--sparsity", "0.7", "--size", "16"]
    assert cli.main([*argv, "--format", "dense", "-o", str(out)]) == 0
    written = torch.load(out)
    assert float((written["layer1.0.conv1.weight"] == 0).float().mean()) == pytest.approx(0.7, abs=0.01)


@pytest.mark.parametrize("kind", ["prune", "packed", "blocks"])
def test_a_file_with_masks_of_its_own_refuses_a_structure(kind: str, dense: Path, tmp_path: Path) -> None:
    model = models.create("resnet8", num_classes=10)
    path = tmp_path / "masked.pt"
    if kind == "blocks":
        argv = ["regroup", str(dense), "--block", "8x1", "--sparsity", "0.5", "-o", str(path)]
        assert cli.main(argv) == 0
    else:
        for conv in [m for m in model.modules() if isinstance(m, nn.Conv2d)]:
            prune.l1_unstructured(conv, "weight", 0.5)
            if kind == "packed":
                prune.remove(conv, "weight")
        path = path if kind == "prune" else tmp_path / "masked.campfire"
        torch.save(model.state_dict(), path) if kind == "prune" else save(path, model)
    assert network(str(path), Namespace(**OPTIONS)).structure == "as it is"
    with pytest.raises(UsageError, match=r"pruned already \(as it is\), and 'ck' is asked for; leave --structure"):
        network(str(path), Namespace(**{**OPTIONS, "structure": "ck"}))
