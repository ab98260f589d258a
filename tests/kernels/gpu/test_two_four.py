"""2:4 linear layers: who is served, and that the weight handed to PyTorch is the right one."""

import pytest
import torch
from torch.nn.functional import conv2d

from campfire.kernels import KERNELS, Conv
from campfire.kernels.gpu import two_four
from campfire.mask import Mask
from campfire.packed import Packed, pack
from campfire.structures import named

GPU, HALF = torch.device("cuda"), torch.float16


def packed(shape: tuple[int, ...] = (32, 64, 1, 1), structure: str = "nm:n=2,m=4", sparsity: float = 0.5) -> Packed:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    made, score = named(structure), weight.abs()
    plan = made.plan(score, sparsity)
    keep = made.project(score, made.count(shape, sparsity), plan, torch.ones_like(score, dtype=torch.bool))
    return pack(weight, Mask(keep, plan))


def test_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = KERNELS["two-four"]
    assert kernel.why_not(packed(), Conv(), HALF, torch.device("cpu")) == ["it runs on a GPU; got cpu"]
    monkeypatch.setattr(two_four, "_why_not_here", lambda device: [])
    assert kernel.why_not(packed(), Conv(), HALF, GPU) == []
    assert kernel.why_not(packed(sparsity=0.75), Conv(), torch.bfloat16, GPU) == []
    assert "got float32" in kernel.why_not(packed(), Conv(), torch.float32, GPU)[0]
    assert "linear layers" in kernel.why_not(packed(), Conv(2), HALF, GPU)[0]
    assert "linear layers" in kernel.why_not(packed((32, 64, 3, 3)), Conv(1, 1), HALF, GPU)[0]
    assert "got 16 and 32" in kernel.why_not(packed((16, 32, 1, 1)), Conv(), HALF, GPU)[0]
    assert "here up to 4" in kernel.why_not(packed(structure="fine"), Conv(), HALF, GPU)[0]


def test_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, x, bias = packed(), torch.randn(2, 64, 3, 4), torch.randn(32)
    groups = []

    def compressed(dense: torch.Tensor) -> torch.Tensor:
        groups.append(dense.view(-1, 4).count_nonzero(1).max().item())
        return dense

    monkeypatch.setattr(two_four, "to_sparse_semi_structured", compressed)
    passes, value = KERNELS["two-four"].prepare(weight, Conv()), weight.parts["value"]
    residual = torch.randn(2, 32, 3, 4)
    wanted = (conv2d(x, weight.dense(), bias) + residual).relu()
    assert torch.allclose(passes.forward(x, value, bias, residual, relu=True), wanted, atol=1e-5)
    assert groups == [2]
    assert passes.d_values(wanted, x).shape == value.shape
    assert passes.d_input(wanted, value, tuple(x.shape)).shape == x.shape


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, HALF])
def test_on_a_gpu(dtype: torch.dtype) -> None:
    weight = packed((64, 128, 1, 1))
    weight = Packed(weight.layout, weight.shape, {k: v.cuda() for k, v in weight.parts.items()})
    weight = Packed(weight.layout, weight.shape, {**weight.parts, "value": weight.parts["value"].to(dtype)})
    x = torch.randn(37, 128, 1, 1, device="cuda", dtype=dtype)
    assert KERNELS["two-four"].why_not(weight, Conv(), dtype, GPU) == []
    got = KERNELS["two-four"].prepare(weight, Conv()).forward(x, weight.parts["value"], None)
    wanted = conv2d(x.double(), weight.dense().double())
    assert float((got.double() - wanted).abs().max()) <= 4 * torch.finfo(dtype).eps * float(wanted.abs().max())
