"""Sparse layers compute what the dense ones do: results, gradients, dtypes, compilation."""

from dataclasses import replace

import pytest
import torch
from nn_cases import LAYOUTS, conv_pair, images, linear_pair, tall_conv
from torch import nn
from torch.testing import assert_close

from campfire.errors import DoesNotFit
from campfire.kernels import KERNELS
from campfire.kernels.choice import Choice
from campfire.kernels.formats import is_format, to_format
from campfire.kernels.ops import conv
from campfire.mask import Mask
from campfire.nn import SparseConv2d

OPTIONS = [{}, {"stride": 2}, {"padding": 0}, {"dilation": 2}, {"groups": 4}, {"bias": False}]


def assert_same_gradients(sparse: nn.Module, dense: nn.Module, x: torch.Tensor) -> None:
    one, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    assert_close(y := sparse(one), expected := dense(other))
    weigh = torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=y.dtype)
    (y * weigh).sum().backward()
    (expected * weigh).sum().backward()
    assert_close(one.grad, other.grad)
    assert_close(sparse.value.grad, sparse.gather(dense.weight.grad))
    assert_close(sparse.bias.grad, dense.bias.grad)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_convolution_is_the_dense_one(layout: str) -> None:
    sparse, dense = conv_pair(layout)
    assert sparse.value.dim() == 2
    assert_same_gradients(sparse, dense, images())


def test_tall_tiles_run_natively_where_they_can() -> None:
    sparse, dense = tall_conv()
    served = not KERNELS["blocks"].why_not(sparse.packed, sparse.conv, torch.float32, torch.device("cpu"))
    assert ("kernel=blocks" in repr(sparse)) == served
    assert "kernel=reference" in repr(sparse.double())
    assert "kernel=reference" in repr(SparseConv2d(sparse.packed, kernel="reference").float())
    assert_same_gradients(sparse.float(), dense, images(dtype=torch.float32))
    with pytest.raises(DoesNotFit, match="16 outputs"):
        SparseConv2d(conv_pair("unit")[0].float().packed, kernel="blocks")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_linear_is_the_dense_one(layout: str) -> None:
    sparse, dense = linear_pair(layout)
    assert_same_gradients(sparse, dense, torch.randn(2, 3, 8, dtype=torch.float64))
    for lead in [(), (1,), (0,), (2, 1, 2)]:
        x = torch.randn(*lead, 8, dtype=torch.float64)
        assert_close(sparse(x), dense(x))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_options_of_convolutions(options: dict[str, int]) -> None:
    torch.manual_seed(0)
    dense = nn.Conv2d(8, 16, 3, **{"padding": 1, **options}).double()
    keep = torch.rand(dense.weight.shape) < 0.4
    dense.weight.data *= keep
    sparse = SparseConv2d.of(dense, Mask(keep))
    x = images()
    assert_close(sparse(x), dense(x))
    assert_close(sparse(x[0]), dense(x[0]))  # without a batch
    again = sparse.dense()
    assert_close(again(x), dense(x), rtol=0, atol=0)
    assert torch.equal(again.weight, dense.weight)
    assert again.bias is dense.bias


@pytest.mark.parametrize("kernel", ["lanes", "codegen", "blocks", "compact"])
def test_what_native_code_must_not_be_handed(kernel: str) -> None:
    keep = torch.zeros(32, 32, 3, 3, dtype=torch.bool)
    keep[:, ::2, :2] = True
    if kernel == "blocks":
        keep[:, ::2] = True
    layout, options = ("unit", {"tile": (32, 1, 3, 3)}) if kernel == "blocks" else ("csr", {})
    conv = nn.Conv2d(32, 32, 3)
    layer = SparseConv2d.of(conv, Mask(keep), layout, **options)
    if reasons := KERNELS[kernel].why_not(layer.packed, layer.conv, torch.float32, torch.device("cpu")):
        pytest.skip(reasons[0])
    layer = SparseConv2d.of(conv, Mask(keep), layout, kernel, **options)
    for size, reason in [
        ((2, 16, 8, 8), r"it reads \[N, 32, H, W\]"),  # beyond its end
        ((2, 48, 8, 8), r"it reads \[N, 32, H, W\]"),
        ((2, 32, 8), r"it reads \[N, 32, H, W\]"),
        ((1, 2, 32, 8, 8), r"it reads \[N, 32, H, W\]"),
        ((2, 32, 2, 8), "give larger images"),
    ]:
        with pytest.raises(DoesNotFit, match=reason):
            layer(torch.zeros(size))
    with pytest.raises(DoesNotFit, match="its weight is on cpu"):
        layer(torch.zeros(2, 32, 8, 8, device="meta"))
    layer.bias = nn.Parameter(torch.zeros(32, dtype=torch.bfloat16))
    with pytest.raises(DoesNotFit, match=r"32 numbers of torch\.bfloat16"):
        layer(torch.zeros(2, 32, 8, 8))


def test_same_and_valid_padding_are_numbers() -> None:
    for mode, size, side in (("same", 3, 1), ("valid", 3, 0), ("same", 5, 2)):
        dense = nn.Conv2d(4, 4, size, padding=mode)
        assert SparseConv2d.of(dense, ones(dense)).padding == side


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"padding_mode": "reflect", "padding": 1}, "padding_mode"),
        ({"stride": (1, 2)}, "stride"),
        ({"padding": (0, 1)}, "padding"),
        ({"dilation": (1, 2)}, "dilation"),
        ({"padding": "same", "kernel_size": 2}, "padding"),
    ],
)
def test_what_has_no_sparse_form_says_why(options: dict, reason: str) -> None:
    dense = nn.Conv2d(4, 4, **{"kernel_size": 3, **options})
    with pytest.raises(DoesNotFit, match=reason):
        SparseConv2d.of(dense, ones(dense))


def ones(dense: nn.Conv2d) -> Mask:
    return Mask(torch.ones_like(dense.weight, dtype=torch.bool))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradcheck(layout: str) -> None:
    sparse, _ = conv_pair(layout, stride=2)
    x = images(1)[:, :, :4, :3].clone().requires_grad_()
    passes = sparse._passes[torch.float64]
    value = sparse.packed.parts["value"].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda *a: conv(*a, passes), (x, value, sparse.bias), fast_mode=True)


def test_gradients_accumulate() -> None:
    sparse, _ = conv_pair("unit")
    a, b = images(4).chunk(2)
    torch.cat([sparse(a), sparse(b)]).square().sum().backward()
    together, sparse.value.grad = sparse.value.grad, None
    for part in (a, b):
        sparse(part).square().sum().backward()
    assert_close(sparse.value.grad, together)


@pytest.mark.parametrize("pair", [conv_pair, tall_conv])
def test_operators_pass_opcheck(pair) -> None:
    sparse, _ = pair()
    value, bias = sparse.packed.parts["value"], sparse.bias.detach()
    number, x = sparse._passes[value.dtype].number, images(dtype=value.dtype)
    dy, ops = torch.randn_like(sparse(x)), torch.ops.campfire
    tests = ("test_schema", "test_faketensor", "test_aot_dispatch_static", "test_aot_dispatch_dynamic")
    for operator, arguments in (
        (ops.conv, (x, value, bias, number)),
        (ops.conv, (x, value, None, number)),
        (ops.conv_d_input, (dy, value, list(x.shape), number)),
        (ops.conv_d_values, (dy, x, number)),
    ):
        torch.library.opcheck(operator.default, arguments, test_utils=tests)


def test_operators_of_the_dense_library_pass_opcheck() -> None:
    sparse, _ = conv_pair("csr")
    sparse.assign(Choice())
    passes, value = sparse._passes[torch.float64], sparse.value.detach()
    tests = ("test_schema", "test_faketensor", "test_aot_dispatch_static")
    for dtype in (torch.float64, torch.bfloat16):
        torch.library.opcheck(torch.ops.campfire.unpack.default, (value, dtype, passes.number), test_utils=tests)
        weight = sparse.weight.to(dtype)
        torch.library.opcheck(torch.ops.campfire.pick.default, (weight, torch.float32, passes.number), test_utils=tests)


def test_compiles_without_a_break() -> None:
    sparse, _ = conv_pair("unit")
    linear, _ = linear_pair("csr")
    model = nn.Sequential(sparse, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 8).double(), linear)
    x = images()
    model(x).sum().backward()
    eager = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for batch in (2, 3):  # the second size compiles anew, with symbols for shapes
        assert_close(compiled(images(batch)), model(images(batch)))
    compiled(x).sum().backward()
    for parameter, grad in zip(model.parameters(), eager, strict=True):
        assert_close(parameter.grad, grad)


@pytest.mark.parametrize("pair", [conv_pair, linear_pair, tall_conv])
def test_autocast_runs_in_bfloat16(pair) -> None:
    sparse, dense = (m.float() for m in pair())
    x = torch.randn(3, 8) if pair is linear_pair else images(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y, expected = sparse(x), dense(x)
    assert y.dtype == expected.dtype == torch.bfloat16
    assert_close(y, expected)
    y.float().square().sum().backward()
    expected.float().square().sum().backward()
    assert sparse.value.grad.dtype == torch.float32
    assert_close(sparse.value.grad, sparse.gather(dense.weight.grad), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("form", ["nhwc", "chwn"])
@pytest.mark.parametrize("pair", [conv_pair, tall_conv])
def test_a_relu_may_work_in_place(pair, form: str) -> None:
    sparse, dense = pair()
    sparse.assign(replace(sparse.choice(), format=form))
    x = images(dtype=sparse.value.dtype)
    y = nn.ReLU(inplace=True)(sparse(x))
    y.sum().backward()
    dense(x).relu().sum().backward()
    assert is_format(sparse(x), form)
    assert_close(sparse.value.grad, sparse.gather(dense.weight.grad))


@pytest.mark.parametrize("form", ["nhwc", "chwn"])
def test_gradients_come_back_in_the_format_of_what_they_are_of(form: str) -> None:
    sparse, dense = conv_pair()
    sparse.assign(replace(sparse.choice(), format=form))
    x = to_format(images(dtype=sparse.value.dtype), "nhwc").requires_grad_()
    (made := x * 2).register_hook(lambda grad: found.append(is_format(grad, "nhwc")))
    found: list[bool] = []
    sparse(made).sum().backward()
    assert found == [True]
    expected = torch.autograd.grad(dense(other := x.detach().requires_grad_()).sum(), other)[0]
    assert_close(x.grad, 2 * expected)
