"""A fused copy computes what the model does in eval mode, for every order of layers; the model stays as it was."""

import copy
import pickle

import pytest
import torch
from fusion_nets import CHANNELS, RUNS, Net, assert_same, images, sparse_, sparse_layer, stir_
from torch import Tensor, nn

from campfire import fuse, models
from campfire.errors import DoesNotFit, UsageError
from campfire.kernels.choice import Choice
from campfire.mask import Mask
from campfire.models.resnet import Bottleneck, ResNet
from campfire.nn import SparseConv2d, keep_formats_
from campfire.nn.base import SparseLayer


@pytest.mark.parametrize("kind", ["dense", "sparse"])
@pytest.mark.parametrize("name", RUNS)
def test_every_order_of_layers(name: str, kind: str) -> None:
    torch.manual_seed(0)
    run, (folded, sums, relus) = RUNS[name]
    model = stir_(Net(run)) if kind == "dense" else sparse_(stir_(Net(run)))
    report = assert_same(model, images()).report
    assert len(report.folded) == folded
    assert (len(report.sums), len(report.relus)) == ((sums, relus) if kind == "sparse" else (0, 0))


@pytest.mark.parametrize("name", ["resnet8", "resnet20"])
@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_whole_networks(name: str, kind: str) -> None:
    torch.manual_seed(0)
    net = stir_(models.create(name, num_classes=5))
    net = sparse_(net) if kind == "sparse" else net
    fused = assert_same(net, images(3, 3, 32))
    assert not fused.report.kept
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fused.modules())
    shortcuts = {"resnet8": 3, "resnet20": 9}[name]
    assert len(fused.report.sums) == (shortcuts if kind == "sparse" else 0)
    assert len(str(fused.report).splitlines()) == 1


def test_plain_networks() -> None:
    torch.manual_seed(0)
    body = [
        nn.Conv2d(3, 16, 3),
        nn.BatchNorm2d(16),
        nn.ReLU(True),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3),
        nn.BatchNorm2d(32),
    ]
    head = [nn.Flatten(), nn.Linear(128, 16), nn.BatchNorm1d(16), nn.ReLU(True), nn.Dropout(), nn.Linear(16, 5)]
    report = assert_same(
        sparse_(stir_(nn.Sequential(*body, nn.ReLU(True), nn.MaxPool2d(2), *head))), images(3, 3, 14)
    ).report
    assert len(report.folded) == 3
    assert report.relus == ["4"]


def test_bottlenecks_in_channels_last() -> None:
    torch.manual_seed(0)
    net = ResNet(Bottleneck, (2, 1), num_classes=5, planes=(16, 32))
    net = sparse_(stir_(net)).to(memory_format=torch.channels_last)
    fused = assert_same(net, images(2, 3, 64).contiguous(memory_format=torch.channels_last))
    assert len(fused.report.sums) == 3
    assert len(fused.report.relus) == 9
    assert fused.conv1.weight.is_contiguous(memory_format=torch.channels_last)


def test_normalisation_without_scales_folds_and_without_statistics_stays() -> None:
    run = RUNS["post-activation"][0]
    assert len(assert_same(sparse_(stir_(Net(run, affine=False))), images()).report.folded) == 2
    report = assert_same(sparse_(Net(run, track_running_stats=False)), images()).report
    assert not report.folded
    assert report.kept == dict.fromkeys(["na", "nb"], "it has no running statistics")


def test_linear_layers_fold_for_rows_alone() -> None:
    net = sparse_(
        stir_(nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Identity(), nn.ReLU(), nn.Linear(16, 4)))
    )
    fused = assert_same(net, torch.randn(5, 8))
    assert fused.report.folded == {"1": "0"}
    with pytest.raises(DoesNotFit, match="BatchNorm1d"):
        fused(torch.randn(5, 16, 8))


def test_hooks_and_subclasses_stay() -> None:
    class Scaled(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    seen: list[Tensor] = []
    net = stir_(nn.Sequential(Scaled(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)))
    net[2].register_forward_hook(lambda m, i, o: seen.append(o))
    report = assert_same(net, images(2, 3)).report
    assert report.kept == {"1": "it follows mul", "3": "there are hooks"}
    assert seen


def test_computed_weights_stay() -> None:
    net = stir_(nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4)))
    assert list(assert_same(net, images(2, 3)).report.kept) == ["1"]


def test_weights_that_are_read_elsewhere_stay() -> None:
    net = stir_(Net(lambda n, x: n.na(n.a(x)) + n.a.weight.mean()))
    assert assert_same(net, images()).report.kept == {"na": "the weights of a are read by others too"}


class Branching(nn.Module):
    def __init__(self, inner: nn.Module | None = None):
        super().__init__()
        self.conv, self.norm = inner or nn.Conv2d(CHANNELS, CHANNELS, 1), nn.BatchNorm2d(CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))
        return y if y.sum() > 0 else -y


def test_parts_that_branch_run_as_they_are() -> None:
    shared = nn.Conv2d(CHANNELS, CHANNELS, 1)
    net = stir_(nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 1), nn.BatchNorm2d(CHANNELS), Branching(shared), shared,
                              nn.BatchNorm2d(CHANNELS)))  # fmt: skip
    report = assert_same(net, images()).report
    assert report.folded == {"1": "0"}
    assert list(report.opaque) == ["2"]
    assert report.kept == {"4": "2.conv is called more than once"}
    with pytest.raises(UsageError, match="fuse the parts that do"):
        fuse(net[2])


def test_optional_arguments_are_fixed() -> None:
    class Optional(nn.Module):
        def forward(self, x: Tensor, other: Tensor | None = None, *, scale: float = 2.0) -> Tensor:
            return (x if other is None else x + other) * scale

    fused, x = fuse(Optional()), torch.ones(2)
    assert torch.equal(fused(x), 2 * x)
    with pytest.raises(TypeError):
        fused(x, x)


def test_copies_pickles_and_wrappers() -> None:
    net = sparse_(stir_(Net(RUNS["post-activation"][0]))).eval()
    fused, x = fuse(torch.optim.swa_utils.AveragedModel(net)), images()
    for again in (copy.deepcopy(fused), pickle.loads(pickle.dumps(fused))):
        assert torch.equal(again(x), fused(x))
        assert again.report == fused.report
    assert not any(p.requires_grad for p in fused.parameters())
    assert fused.double()(x.double()).dtype == torch.float64


def test_kernels_are_those_of_the_original() -> None:
    net = sparse_(Net(RUNS["post-activation"][0]))
    fused = fuse(net)
    pairs = [(m, fused.get_submodule(n)) for n, m in net.named_modules() if isinstance(m, SparseLayer)]
    assert len(pairs) == 2
    assert all(twin._passes == layer._passes for layer, twin in pairs)


def test_layers_left_to_the_dense_library_become_dense() -> None:
    net = nn.Sequential(*[sparse_layer(nn.Conv2d(CHANNELS, CHANNELS, 1)) for _ in range(2)], nn.BatchNorm2d(CHANNELS))
    net[1].kernel = "auto"
    net[1].assign(Choice())
    fused = assert_same(stir_(net), images())
    assert fused.report.dense == ["1"]
    assert type(fused.get_submodule("1")) is nn.Conv2d
    assert isinstance(fused.get_submodule("0"), SparseConv2d)


def test_layers_that_keep_the_format_fold_too() -> None:
    net = keep_formats_(sparse_(stir_(Net(RUNS["post-activation"][0]))))
    assert len(assert_same(net, images()).report.folded) == 2


def test_autocast() -> None:
    net = sparse_(stir_(Net(RUNS["two convolutions"][0]))).eval()
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        assert torch.allclose(fuse(net)(images()).float(), net(images()).float(), atol=0.1, rtol=0.05)


def test_the_copy_compiles_and_exports() -> None:
    net = sparse_(stir_(Net(RUNS["post-activation"][0])))
    fused, x = fuse(net), images()
    with torch.no_grad():
        compiled = torch.compile(fused, fullgraph=True, backend="aot_eager")
        assert torch.allclose(compiled(x), fused(x), atol=1e-6)


def test_any_layout_scales_its_values() -> None:
    torch.manual_seed(0)
    dense = nn.Conv2d(8, 16, 3, padding=1)
    for layout in ("csr", "tap"):
        net = nn.Sequential(
            SparseConv2d.of(dense, Mask(torch.rand(dense.weight.shape) < 0.5), layout), nn.BatchNorm2d(16)
        )
        assert_same(stir_(net), images(2, 8))


def test_the_dtype_of_the_copy_decides_what_is_left_to_the_library() -> None:
    layer = sparse_layer(nn.Conv2d(CHANNELS, CHANNELS, 1))
    layer.kernel = "auto"
    model, x = nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 1), layer, nn.ReLU()), images()
    layer.assign(Choice(), torch.bfloat16)
    layer.assign(Choice(format="chwn"))
    assert fuse(model).report.dense == []
    fused = fuse(model, torch.bfloat16)
    assert fused.report.dense == ["1"]
    assert {p.dtype for p in fused.parameters()} == {torch.bfloat16}
    torch.testing.assert_close(fused(x.bfloat16()).float(), model(x), rtol=0.05, atol=0.05)
