"""examples/read_campfire.py reads what campfire reads, with safetensors and numpy alone."""

import ast
import pathlib
import runpy
import sys

import numpy as np
import pytest
import torch
from file_models import pruned

import campfire
from campfire.files.saving import Claim, to_bytes
from campfire.files.survivors import of_codes
from campfire.quantise import named
from campfire.quantise.base import encode
from campfire.testing import masks

SCRIPT = pathlib.Path(__file__).parents[2] / "examples" / "read_campfire.py"
read = runpy.run_path(str(SCRIPT))["read"]


def same(found: np.ndarray, wanted: torch.Tensor) -> bool:
    wanted = wanted.float() if wanted.dtype == torch.bfloat16 else wanted
    return found.dtype == wanted.numpy().dtype and found.tobytes() == wanted.contiguous().numpy().tobytes()


def test_it_needs_nothing_else() -> None:
    tree = ast.parse(SCRIPT.read_text())
    names = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    assert {name for name in names if name not in sys.stdlib_module_names} == {"numpy", "safetensors"}
    assert not any(isinstance(node, ast.ImportFrom) for node in ast.walk(tree))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_every_kind_of_mask(dtype: torch.dtype, tmp_path: pathlib.Path) -> None:
    state, claims = {"steps": torch.tensor(3), "bias": torch.randn(5), "truth": torch.tensor([True, False])}, {}
    for shape in ((33, 8, 3, 3), (48, 16, 1, 1)):
        for kind, mask in masks(shape, 0.7):
            name = f"{kind} {shape[2]}"
            state[name] = torch.randn(shape).to(dtype).masked_fill(~mask.keep, 0)
            claims[name] = Claim(mask)
    (tmp_path / "x.campfire").write_bytes(to_bytes(state, claims)[0])
    found = read(tmp_path / "x.campfire")
    assert found.keys() == state.keys()
    assert all(same(found[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("values", ["int8", "codebook:2", "codebook:5", "codebook:8"])
def test_values_in_few_bits(values: str, tmp_path: pathlib.Path) -> None:
    weight, mask = torch.randn(16, 8, 3, 3), dict(masks((16, 8, 3, 3), 0.5))["windows"]
    codes = of_codes(encode(named(values), weight, mask.keep))
    (tmp_path / "x.campfire").write_bytes(to_bytes({"w": weight}, {"w": Claim(mask, values=codes)})[0])
    assert same(read(tmp_path / "x.campfire")["w"], campfire.load(tmp_path / "x.campfire")["w"])


def test_a_damaged_file(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.campfire"
    campfire.save(path, *pruned())
    sys.argv[1:], before = [str(path)], sys.argv[1:]
    runpy.run_path(str(SCRIPT), run_name="__main__")
    sys.argv[1:] = before
    assert "3.weight" in capsys.readouterr().out
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    path.write_bytes(data)
    with pytest.raises(AssertionError, match="damaged"):
        read(path)
