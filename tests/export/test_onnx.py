"""ONNX: the same logits in ONNX Runtime, zeros left out of the file, and nothing of this machine in it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from campfire import extras, models
from campfire.errors import CampfireError
from campfire.export import Subject, base, export
from campfire.export import onnx as ours

pytestmark = pytest.mark.xdist_group("onnx")  # one process exports for all

onnx = pytest.importorskip("onnx", reason="the onnx extra is not installed")
pytest.importorskip("onnxscript", reason="the onnx extra is not installed")
pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")


@pytest.fixture(scope="module")
def subject() -> Subject:
    torch.manual_seed(0)
    model = models.create("resnet8", num_classes=10).eval()
    with torch.no_grad():
        model.layer3[0].conv2.weight[8:] = 0  # an eighth lives
        model.layer1[0].conv1.weight[8:] = 0  # half of it
        for m in model.modules():
            if isinstance(m, torch.nn.BatchNorm2d):
                m.running_mean.uniform_(-1, 1)
                m.running_var.uniform_(0.5, 2)
    return Subject(model, torch.randn(2, 3, 16, 16), None, (0.5,) * 3, (0.2,) * 3, ("cat", "dog"), "filter")


@pytest.fixture(scope="module")
def files(subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("onnx")
    options = {"plain": {}, "sparse": {"sparse": True}, "pixels": {"pixels": True}}
    return {n: (folder / f"{n}.onnx", export(subject, folder / f"{n}.onnx", "onnx", **o)) for n, o in options.items()}


@pytest.mark.parametrize("kind", ["plain", "sparse"])
def test_the_same_logits_for_any_batch(kind: str, files: Any, subject: Subject) -> None:
    path, found = files[kind]
    assert found["checked_by"] == "onnxruntime"
    assert found["max_abs_difference"] <= 1e-4 * found["largest_logit"]
    x = torch.randn(7, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(ours.runtime(path.read_bytes())(x), subject.model(x), rtol=1e-3, atol=1e-4)


def test_zeros_are_left_out_where_that_is_smaller(files: Any) -> None:
    path, found = files["sparse"]
    assert found["sparse_initializers"] == ["layer3.0.conv2.weight"]
    saved = files["plain"][1]["bytes"] - found["bytes"]
    weights = 64 * 64 * 9
    assert saved == pytest.approx(4 * weights - 12 * weights / 8, rel=0.01)
    assert [list(t.dims) for t in onnx.load(path).graph.sparse_initializer] == [[64, 64, 3, 3]]


def test_it_tells_what_it_takes_and_nothing_of_the_machine(files: Any) -> None:
    known = {p.key: p.value for p in onnx.load(files["plain"][0]).metadata_props}
    assert known["classes"] == '["cat", "dog"]'
    assert known["images"].startswith("normalised")
    assert known["structure"] == "filter"
    for path, _ in files.values():
        assert str(Path(models.__file__).parents[2]).encode() not in path.read_bytes()


def test_pixels(files: Any, subject: Subject) -> None:
    x = torch.rand(3, 3, 16, 16)
    with torch.no_grad():
        expected = subject.model((x - 0.5) / 0.2)
    torch.testing.assert_close(ours.runtime(files["pixels"][0].read_bytes())(x), expected, rtol=1e-3, atol=1e-3)


def test_a_wrong_model_is_not_kept(
    files: Any, subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ours, "traced", lambda model, x: onnx.load(files["plain"][0]))
    monkeypatch.setattr(ours, "runtime", lambda data: lambda x: subject.model(x).detach() + 1e-2)
    with pytest.raises(base.CheckFailed, match=r"a logit is off by 0\.01"):
        export(subject, tmp_path / "x.onnx", "onnx")
    assert list(tmp_path.iterdir()) == []


def test_without_onnx(subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(extras, "import_module", missing)
    with pytest.raises(CampfireError, match=r"campfire-sparse\[onnx\]"):
        export(subject, tmp_path / "x.onnx", "onnx")


class Fixes(torch.nn.Module):
    """The batch becomes a number while it is traced."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.conv(one[None])[0].mean((1, 2)) for one in x])


def test_a_batch_that_torch_fixed(tmp_path: Path) -> None:
    with pytest.raises(base.CheckFailed, match=r"takes batches of 2 alone.* torch fixed the batch while tracing Fixes"):
        export(Subject(Fixes().eval(), torch.randn(2, 3, 8, 8)), tmp_path / "x.onnx", "onnx")
    assert list(tmp_path.iterdir()) == []


def test_what_onnx_runtime_refuses(
    files: Any, subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = onnx.load(files["plain"][0])
    wrong.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 17
    monkeypatch.setattr(ours, "traced", lambda model, x: wrong)
    with pytest.raises(base.CheckFailed, match=r"the exported ONNX model cannot be run on images of shape \[3, 3"):
        export(subject, tmp_path / "x.onnx", "onnx")
    assert list(tmp_path.iterdir()) == []
