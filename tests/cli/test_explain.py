import json

import pytest

from campfire import methods, structures
from campfire.cli import main


@pytest.mark.parametrize("name", sorted(structures.REGISTRY))
def test_every_structure_has_a_page(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", name]) == 0
    page = capsys.readouterr().out
    for part in ("Keeps:", "Hardware:", "Source:", "Least sparsity", " . "):
        assert part in page, f"the page of {name} has no {part!r}"


def test_the_list_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert set(listed["structures"]) == set(structures.REGISTRY)
    assert set(listed["methods"]) == set(methods.REGISTRY)


def test_a_rule_set_has_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "cpu"]) == 0
    assert "Tiles of outputs in 1x1 layers" in capsys.readouterr().out
    assert main(["explain"]) == 0
    assert "rule sets:" in capsys.readouterr().out


def test_options_change_the_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    least = []
    for spec in ("window", "window:mode=campfire"):
        assert main(["explain", spec, "--json"]) == 0
        least.append(json.loads(capsys.readouterr().out)["least"]["3x3, 64 to 64 channels"])
    assert least == [pytest.approx(1 / 9), pytest.approx(7 / 9)]


def test_an_unknown_name_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "windwo"]) == 2
    assert "did you mean 'window'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rigll", "no structure, method or model is called 'rigll'; did you mean 'rigl'?"),
        ("resnet_20", "did you mean 'resnet20'?"),
        ("inter-epoc", "did you mean 'inter-epoch'?"),
        ("./foo", "there is no file or folder ./foo"),
        ("foo.pt", "there is no file or folder foo.pt"),
        ("tiles:rows=-4", "a box has one row and one channel or more; got -4 x 4"),
    ],
)
def test_what_is_not_there(name: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", name]) == 2
    assert message in capsys.readouterr().err


def test_inter_epoch_has_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "inter-epoch"]) == 0
    assert "first an era of `ck`, then an era of `window`" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["bench", "masks"], ["bench", "kernels"], ["explain", "resnet20"]])
@pytest.mark.parametrize("given", ["70", "-0.1", "1", "nan", "much"])
def test_zeros_are_a_fraction(command: list[str], given: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--sparsity", given]) == 2
    assert f"a fraction of zeros is 0 or more and below 1, such as 0.7; got {given}" in capsys.readouterr().err


def test_blocks_tell_which_devices_run_them(capsys: pytest.CaptureFixture[str]) -> None:
    def runs(spec: str) -> list[str]:
        assert main(["explain", spec, "--json"]) == 0
        kernels = json.loads(capsys.readouterr().out)["blocks"]["kernels"]
        return [name for name, kernel in kernels.items() if kernel["runs"]]

    assert runs("hrbp") == ["blocks"]
    assert runs("tiles") == ["blocks", "blocks-bf16"]
    assert runs("hrbp++:rows=64,channels=64,inputs=neighbours") == ["blocks", "blocks-bf16", "blocks-amx", "blocks-gpu"]
    assert main(["explain", "hrbp"]) == 0
    assert "blocks-gpu   bfloat16, float16, TF32 on a GPU     no: multiples of 16 x 16" in capsys.readouterr().out
