"""What other programs wrote: masks of torch.nn.utils.prune, plain zeros, wrapped state dicts; nothing in them is run."""

import pathlib
import pickle
from collections.abc import Callable

import pytest
import torch
from file_models import net, same_bits
from torch import nn
from torch.nn.utils import prune

import campfire
from campfire import cli
from campfire.errors import CheckpointError, UsageError
from campfire.files import weights
from campfire.files.foreign import is_packed, read_any, unmasked
from campfire.files.forms import forms
from campfire.files.saving import by_zeros
from campfire.mask import view4

Capture = pytest.CaptureFixture[str]


def test_masks_of_torch_prune() -> None:
    model = net()
    wanted = {name: x.clone() for name, x in model.state_dict().items()}
    prune.l1_unstructured(model[3], "weight", 0.7)
    prune.random_unstructured(model[3], "bias", 0.5)
    prune.ln_structured(model[4], "weight", 0.25, n=2, dim=0)
    state, masks = unmasked(model.state_dict())
    assert state.keys() == wanted.keys()
    assert set(masks) == {"3.weight", "4.weight"}
    assert torch.equal(masks["3.weight"].keep, model[3].weight_mask.bool())
    prune.remove(model[3], "weight")
    assert torch.equal(state["3.weight"], model[3].weight)
    assert torch.equal(state["3.bias"], model[3].bias)


def test_a_living_zero_stays_alive() -> None:
    state, masks = unmasked({"w_orig": torch.tensor([[0.0, 2.0]]), "w_mask": torch.tensor([[1.0, 0.0]])})
    assert masks["w"].keep.flatten().tolist() == [True, False]
    assert state["w"].tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({"w_orig": torch.ones(2, 2), "w_mask": torch.ones(2, 3)}, r"w_mask is \[2, 3\], and w_orig \[2, 2\]"),
        ({"w_orig": torch.ones(2, 2), "w_mask": torch.full((2, 2), 0.5)}, "other numbers than 0 and 1"),
        ({"w_orig": torch.ones(2, 2), "w_mask": torch.ones(2, 2), "w": torch.ones(2, 2)}, "w is there beside w_orig"),
    ],
)
def test_masks_that_are_none(state: dict[str, torch.Tensor], says: str) -> None:
    with pytest.raises(CheckpointError, match=says):
        unmasked(state)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model"])
def test_names_under_ddp_and_wrapped_state_dicts(prefix: str, wrapper: str, tmp_path: pathlib.Path) -> None:
    state = {f"{prefix}{name}": x for name, x in net().state_dict().items()}
    torch.save({"epoch": 3, "optimizer": {}, wrapper: state}, tmp_path / "x.pth")
    assert unmasked(weights(tmp_path / "x.pth"))[0].keys() == net().state_dict().keys()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"ema": {"decay": 0.9, "state_dict": state}, "model": {}},
        lambda state: {"model": {"state_dict": state, "epoch": 3}},
        lambda state: {"n_averaged": torch.tensor(3), **{f"module.{name}": x for name, x in state.items()}},
    ],
    ids=["ema", "nested", "AveragedModel"],
)
def test_averages_and_state_dicts_two_levels_down(
    wrap: Callable[[dict[str, torch.Tensor]], object], tmp_path: pathlib.Path
) -> None:
    torch.save(wrap(net().state_dict()), tmp_path / "x.pt")
    assert unmasked(weights(tmp_path / "x.pt"))[0].keys() == net().state_dict().keys()


@pytest.mark.parametrize(
    ("held", "says"),
    [
        (
            {"w": torch.ones(2, 2), "updates": 3},
            r"no state dict of tensors, but 'updates' \(int\); wanted: one, alone or",
        ),
        ({"weights": {"w": torch.ones(2)}}, r"but 'weights' \(dict\)"),
        ({0: torch.ones(2)}, "but 0, which is no name"),
        ({}, "an empty dictionary"),
        ([torch.ones(2)], "an object of type list"),
        ({"w": torch.eye(4).to_sparse()}, r"'w' is no ordinary tensor, but sparse_coo on cpu; .*to_dense\(\)"),
        ({"w": torch.ones(2, device="meta")}, "strided on meta"),
        ({"w": torch.ones(1).expand(10**6, 10**6)}, "would take 4,000,000,000,000: they are views"),
    ],
)
def test_what_is_no_state_dict(held: object, says: str, tmp_path: pathlib.Path) -> None:
    torch.save(held, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=says):
        weights(tmp_path / "x.pt")


@pytest.mark.parametrize("command", ["inspect", "import"])
def test_types_that_have_no_name_in_a_file(command: str, tmp_path: pathlib.Path, capsys: Capture) -> None:
    torch.save({"w": torch.ones(4, 4, dtype=torch.float8_e4m3fn)}, tmp_path / "x.pt")
    output = ["-o", str(tmp_path / "y")] if command == "import" else []
    assert cli.main([command, str(tmp_path / "x.pt"), *output]) == 2
    assert "'w' is torch.float8_e4m3fn; convert it, or leave it out" in capsys.readouterr().err


def test_weights_that_lie_transposed(tmp_path: pathlib.Path) -> None:
    weight = torch.eye(64)[:, ::2].t()
    assert not weight.is_contiguous()
    campfire.save(tmp_path / "x.campfire", {"w": weight})
    assert torch.equal(campfire.load(tmp_path / "x.campfire")["w"], weight)
    assert forms((view4(weight) != 0).numpy())[-1].name == "fine"


def test_only_what_gains_is_packed() -> None:
    few = torch.ones(64, 64)
    few[0, :2] = 0
    many = torch.rand(64, 64) * (torch.rand(64, 64) < 0.3)
    state = {"few": few, "many": many, "bias": torch.zeros(64), "whole": torch.zeros(64, 64, dtype=torch.int32)}
    assert set(by_zeros(state)) == {"many"}


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return pathlib.Path.touch, (pathlib.Path("was-run"),)


def test_nothing_is_run(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"w": Evil()}, "evil.pt")
    pathlib.Path("evil.pkl").write_bytes(pickle.dumps(Evil()))
    pathlib.Path("text.pt").write_text("import torch")
    for name, says in (
        ("evil.pt", "holds an object of getattr"),
        ("evil.pkl", "."),
        ("text.pt", "no pickle of tensors"),
    ):
        with pytest.raises(CheckpointError, match=f"cannot read {name}: .*{says}") as caught:
            read_any(pathlib.Path(name))
        assert "weights_only" not in str(caught.value)
    assert not pathlib.Path("was-run").exists()


def test_packed_files_are_weights_too(tmp_path: pathlib.Path) -> None:
    model = nn.Sequential(nn.Linear(32, 32))
    with torch.no_grad():
        model[0].weight[::2] = 0
    for name in ("x.campfire", "x.safetensors", "x"):
        campfire.save(tmp_path / name, model)
        assert is_packed(tmp_path / name)
    assert same_bits(weights(tmp_path / "x.safetensors"), dict(model.state_dict()))
    with pytest.raises(UsageError, match="there is no file"):
        weights(tmp_path / "y")
