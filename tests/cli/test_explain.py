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
