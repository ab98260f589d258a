"""What ``campfire regroup --output`` writes: a file for any program, or a run that goes on."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from campfire import OneShot, Pruner
from campfire.cli import main
from campfire.errors import CampfireError
from campfire.mask import Mask
from campfire.models import create
from campfire.pruner.adopting import adopt
from campfire.training import evaluate, train
from campfire.training.checkpoint import load

TRAINED = {"model": "resnet8", "img_size": 16, "batch_size": 256, "threads": 1, "epochs": 2, "seed": 1}
BLOCKS = ["--structure", "hrbp++", "--block", "16x1"]

pytestmark = pytest.mark.filterwarnings("ignore::campfire.errors.LostOutputs")


def network() -> nn.Module:
    torch.manual_seed(0)
    return create("resnet8", num_classes=10)


def thinned(state: dict[str, Tensor], share: float = 0.75) -> dict[str, Tensor]:
    """Single weights of every layer gone, the linear one's too."""
    return {
        n: x * (x.abs() > x.abs().flatten().kthvalue(int(share * x.numel())).values) if x.dim() > 1 else x
        for n, x in state.items()
    }


def saved(path: Path, state: Any) -> str:
    torch.save(state, path)
    return str(path)


def written(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run with single weights gone, and an average."""
    path = tmp_path_factory.mktemp("runs") / "fine"
    train("digits", structure="fine", sparsity=0.75, scope="all", model_ema=True, output=path, **TRAINED)
    return path


def test_a_file_holds_the_blocks_and_masks_to_go_on_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = (
        saved(tmp_path / "own.pt", {"state_dict": (state := thinned(network().state_dict()))}),
        tmp_path / "b.pt",
    )
    before = Path(source).read_bytes()
    assert main(["regroup", source, *BLOCKS, "--output", str(out)]) == 0
    assert f"wrote {out}" in capsys.readouterr().out
    assert Path(source).read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.pt", "own.pt"]
    found = written(out)
    assert {spec for n, spec in found["rules"].items() if n not in ("conv1", "fc")} == {"hrbp++:rows=16"}
    assert found["rules"]["conv1"] == found["rules"]["fc"] == "fine"  # left out of regrouping, they keep their zeros
    model = network()
    model.load_state_dict(found["state_dict"])
    pruner = Pruner(model, found["rules"], OneShot(at=0, target=found["sparsity"]))
    pruner.load_state_dict(found["pruner"])
    for name, mask in pruner.masks.items():
        kept, was = model.get_parameter(f"{name}.weight").detach(), state[f"{name}.weight"]
        assert torch.equal(kept, was * mask.keep.view_as(was))
        assert mask.sparsity == pytest.approx(0.75, abs=0.03)
    assert torch.equal(model.get_parameter("bn1.weight"), state["bn1.weight"])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    pruner.attach(optimizer, steps_per_epoch=2)
    masks = {n: m.checksum() for n, m in pruner.masks.items()}
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(4, 3, 16, 16)).square().mean().backward()
        optimizer.step()
    assert pruner.frozen
    assert {n: m.checksum() for n, m in pruner.masks.items()} == masks
    assert pruner.masks["layer3.0.conv2"].plan.keys() == {"order", "inputs"}
    assert not any(
        model.get_parameter(f"{n}.weight")[~m.keep.view_as(state[f"{n}.weight"])].any() for n, m in pruner.masks.items()
    )


def test_masks_of_torch_prune_and_names_of_ddp(tmp_path: Path) -> None:
    net = network()
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            prune.l1_unstructured(module, "weight", amount=0.75)
    source = saved(tmp_path / "prune.pt", {f"module.{n}": x for n, x in net.state_dict().items()})
    assert main(["regroup", source, *BLOCKS, "--output", str(tmp_path / "b.pt")]) == 0
    found = written(tmp_path / "b.pt")
    network().load_state_dict(found["state_dict"])
    assert "layer3.0.conv2" in found["rules"]
    assert found["sparsity"] == pytest.approx(0.75, abs=0.01)


def test_a_run_goes_on_in_blocks(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {p.name: p.read_bytes() for p in run.iterdir()}
    out = tmp_path / "blocks"
    argv = ["regroup", str(run), *BLOCKS, "--output", str(out)]
    assert main(argv) == 0
    assert {p.name: p.read_bytes() for p in run.iterdir()} == before
    said = capsys.readouterr().out
    assert f"campfire train --config {out}/config.yaml --resume {out}" in said
    found = evaluate(out)
    assert found["violations"] == []
    assert found["sparsity_true"] == pytest.approx(0.75, abs=0.01)
    old, new = load(run / "last.pt"), load(out / "last.pt")
    assert new["step"] == old["step"]
    momentum = [s["momentum_buffer"] for s in new["optimizer"]["state"].values()]
    weights = [x for x in new["model"].values() if x.dim() > 1]
    assert all(not m[w == 0].any() for m, w in zip(momentum[: len(weights)], weights, strict=True))
    assert all(not new["ema"][n][x == 0].any() for n, x in new["model"].items() if x.dim() == 4)
    assert main(argv) == 2
    assert "holds another run" in capsys.readouterr().err
    flags = ["--epochs", "3", "--allow-config-change", "--json"]
    assert main(["train", "--config", f"{out}/config.yaml", "--resume", str(out), *flags]) == 0
    after = load(out / "last.pt")
    assert after["epoch"] == 3
    for name, layer in new["pruner"]["layers"].items():
        assert torch.equal(after["pruner"]["layers"][name]["bits"], layer["bits"])
    rules = {name: layer["structure"] for name, layer in after["pruner"]["layers"].items()}
    assert rules["layer3.0.conv2"] == "hrbp++:rows=16"
    assert rules["conv1"] == "fine"  # the first one is not regrouped, and keeps the masks it had
    assert rules["layer1.0.conv1"] == "hrbp++:rows=16"
    assert evaluate(out)["violations"] == []
    assert main([*argv, "--overwrite"]) == 0  # what was trained gives way
    assert load(out / "last.pt")["epoch"] == 2
    assert not (out / "summary.json").exists()


def test_a_dense_run_to_a_given_sparsity(tmp_path: Path) -> None:
    train("digits", structure="dense", output=tmp_path / "dense", **{**TRAINED, "epochs": 1})
    argv = ["regroup", str(tmp_path / "dense"), "--block", "16x2", "--sparsity", "0.8", "--output", str(tmp_path / "b")]
    assert main(argv) == 0
    assert main(["train", "--config", str(tmp_path / "b" / "config.yaml"), "--resume", str(tmp_path / "b"),
                 "--epochs", "2", "--allow-config-change", "--compress", "--dispatch", "off"]) == 0  # fmt: skip
    found = evaluate(tmp_path / "b")
    assert found["violations"] == []
    assert found["sparsity_true"] == pytest.approx(0.8, abs=0.03)
    assert [p.name for p in tmp_path.glob("**/.*")] == []


def test_what_is_refused_before_anything_is_written(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = saved(tmp_path / "plain.pt", network().state_dict())
    masks = saved(tmp_path / "masks.pt", {n: x > 0 for n, x in network().state_dict().items() if x.dim() == 4})
    taken = tmp_path / "taken.pt"
    taken.write_text("precious")
    cases = [
        ([plain, "--output", plain], "is there already; give another --output"),
        ([plain, "--overwrite", "--output", plain], "is there already; give another --output"),
        ([plain, "--output", str(taken)], "is there already; give --overwrite, or another --output"),
        ([plain, "--output", str(tmp_path / "no" / "b.pt")], "there is no folder"),
        ([plain, "--output", str(tmp_path / "run")], "the output is a file, such as blocks.pt, or"),
        ([str(run), "--output", str(tmp_path / "b.safetensors")], "the output is a file, such as blocks.pt, or"),
        ([str(run), "--overwrite", "--output", str(run)], "is the run itself"),
        ([masks, "--output", str(tmp_path / "b.pt")], "holds masks, such as conv1.weight, and no weights"),
        ([plain, "--block", "16x1,32x1", "--output", str(tmp_path / "b.pt")], "--output takes one kind of blocks"),
    ]
    for argv, says in cases:
        assert main(["regroup", "--sparsity", "0.8", "--block", "16x1", *argv]) == 2
        assert re.search(says, " ".join(capsys.readouterr().err.split())), argv
    assert taken.read_text() == "precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["masks.pt", "plain.pt", "taken.pt"]


def test_masks_alone_are_regrouped_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = {n: x != 0 for n, x in thinned(network().state_dict()).items() if x.dim() == 4}
    assert main(["regroup", saved(tmp_path / "masks.pt", state), *BLOCKS]) == 0
    assert "all of these" in capsys.readouterr().out


def test_masks_from_elsewhere_must_be_the_structures_own() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 32, 3))
    pruner = Pruner(net, {"1": "ck"}, OneShot(0, 0.5))
    keep = torch.zeros(32, 8, 3, 3, dtype=torch.bool)
    keep[:16] = True
    with pytest.raises(CampfireError, match=r"keeps 1152 weights; 'ck' at sparsity 0\.2500 keeps 1728"):
        adopt(pruner, {"1": Mask(keep)}, {"1": 0.25})
    shuffled = keep.flatten()[torch.randperm(keep.numel())].view_as(keep)
    with pytest.raises(CampfireError, match="is no 'ck'"):
        adopt(pruner, {"1": Mask(shuffled)}, {"1": 0.5})
