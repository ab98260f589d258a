"""MACs against PyTorch's own FLOP counter, published numbers and brute force; and that counting leaves no trace."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.optim.swa_utils import AveragedModel
from torch.utils.flop_counter import FlopCounterMode

from campfire import Mask, OneShot, Pruner, SparseConv2d, compress_, decompress_, fuse, models
from campfire.costs import cost, flops, layer_macs, macs, sparse_macs
from campfire.errors import CampfireError, DoesNotFit, UnknownName

PUBLISHED = {  # MACs of one image of 224 x 224, 1000 classes
    "resnet18": 1_814_073_344,
    "resnet34": 3_663_761_408,
    "resnet50": 4_089_184_256,
    "resnet50_v1": 3_857_973_248,
    "resnet101": 7_801_405_440,
    "vgg11_bn": 7_609_090_048,
    "vgg13_bn": 11_308_466_176,
    "vgg16_bn": 15_470_264_320,
}
UNUSUAL = {
    "grouped": (nn.Conv2d(8, 16, 3, groups=4), (8, 9, 7)),
    "depthwise": (nn.Conv2d(8, 8, 5, groups=8, padding=2, stride=2), (8, 9, 9)),
    "dilated": (nn.Conv2d(4, 6, (3, 1), dilation=(2, 1), stride=(1, 3)), (4, 11, 10)),
    "transposed": (nn.ConvTranspose2d(6, 4, 3, stride=2), (6, 5, 5)),
    "1-d": (nn.Conv1d(4, 8, 3), (4, 20)),
    "3-d": (nn.Conv3d(2, 3, 3), (2, 5, 6, 7)),
    "linear per position": (nn.Linear(12, 5), (7, 12)),
}


def on_meta(name: str, **options: int) -> nn.Module:
    with torch.device("meta"):
        return models.create(name, **{"num_classes": 1000, **options})


def counted_by_torch(model: nn.Module, shape: tuple[int, ...]) -> int:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        copy.deepcopy(model).to("meta").eval()(torch.empty(1, *shape))
    return counter.get_total_flops()


class TestDense:
    @pytest.mark.parametrize("name", PUBLISHED)
    def test_equals_pytorch_and_the_published_number(self, name: str) -> None:
        model = on_meta(name)
        assert macs(model, (3, 224, 224)) == PUBLISHED[name]
        assert flops(model, (3, 224, 224)) == 2 * PUBLISHED[name] == counted_by_torch(model, (3, 224, 224))

    def test_resnet50_v15(self) -> None:
        assert flops(on_meta("resnet50"), (3, 224, 224)) == 8_178_368_512

    @pytest.mark.parametrize("name", ["resnet8", "resnet20", "resnet32", "resnet56", "resnet50", "vgg11_bn"])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_small_images(self, name: str, channels: int) -> None:
        model = on_meta(name, num_classes=10, in_channels=channels, small_input=True)
        assert flops(model, (channels, 32, 32)) == counted_by_torch(model, (channels, 32, 32))

    @pytest.mark.parametrize("case", UNUSUAL)
    def test_unusual_layers(self, case: str) -> None:
        layer, shape = UNUSUAL[case]
        assert flops(layer, shape) == counted_by_torch(layer, shape)

    def test_by_layer(self) -> None:
        counts = layer_macs(models.create("resnet8", num_classes=10), (3, 32, 32))
        assert counts["conv1"] == 16 * 3 * 9 * 32 * 32
        assert counts["layer2.0.downsample.0"] == 32 * 16 * 16 * 16
        assert counts["fc"] == 64 * 10
        assert [*counts][:2] == ["conv1", "layer1.0.conv1"]
        assert [*counts][-1] == "fc"

    def test_a_layer_that_runs_twice_counts_twice_and_one_that_never_runs_is_absent(self) -> None:
        class Twice(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv, self.unused = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)

            def forward(self, x: Tensor) -> Tensor:
                return self.conv(self.conv(x))

        assert layer_macs(Twice(), (4, 5, 5)) == {"conv": 2 * 4 * 4 * 9 * 25}


class TestSparse:
    def keep(self, model: nn.Module, sparsity: float) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(0)
        weights = {n: m.weight for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
        return {n: torch.rand(w.shape, generator=generator) >= sparsity for n, w in weights.items()}

    @pytest.mark.parametrize("case", ["grouped", "dilated", "3-d", "linear per position", "transposed"])
    def test_equals_multiplications_by_ones(self, case: str) -> None:
        """On an image of ones, a layer whose weights are its mask sums up its living products."""
        layer, shape = copy.deepcopy(UNUSUAL[case][0]), UNUSUAL[case][1]
        keep = torch.rand(layer.weight.shape, generator=torch.Generator().manual_seed(1)) < 0.3
        nn.init.zeros_(layer.bias)
        layer.weight.data = keep.float()
        assert sparse_macs(layer, {"": keep}, shape) == int(layer(torch.ones(1, *shape)).sum().round())

    def test_dense_masks_cost_the_dense_macs_and_empty_ones_nothing(self) -> None:
        model = models.create("resnet8", num_classes=10)
        assert sparse_macs(model, self.keep(model, 0.0), (3, 32, 32)) == macs(model, (3, 32, 32))
        assert sparse_macs(model, self.keep(model, 1.0), (3, 32, 32)) == 0
        assert sparse_macs(model, {}, (3, 32, 32)) == macs(model, (3, 32, 32))

    def test_each_layer_costs_its_kept_share(self) -> None:
        model = models.create("resnet8", num_classes=10)
        keep = self.keep(model, 0.7)
        del keep["conv1"]
        dense, sparse = layer_macs(model, (3, 32, 32)), layer_macs(model, (3, 32, 32), keep)
        assert sparse["conv1"] == dense["conv1"]
        for name, mask in keep.items():
            assert sparse[name] * mask.numel() == dense[name] * int(mask.sum())
        assert sparse_macs(model, keep, (3, 32, 32)) == sum(sparse.values())

    def test_a_linear_mask_may_be_seen_as_a_1x1_convolution(self) -> None:
        model = models.create("resnet8", num_classes=10)
        mask = torch.rand(10, 64, 1, 1, generator=torch.Generator().manual_seed(0)) < 0.5
        assert layer_macs(model, (3, 32, 32), {"fc": mask})["fc"] == int(mask.sum())

    def test_a_mask_of_no_counted_layer(self) -> None:
        with pytest.raises(UnknownName, match=r"'layer1\.0\.conv3'; did you mean 'layer1\.0\.conv"):
            sparse_macs(on_meta("resnet8"), {"layer1.0.conv3": torch.ones(1)}, (3, 32, 32))

    def test_a_mask_of_another_size(self) -> None:
        with pytest.raises(DoesNotFit, match="432 weights"):
            sparse_macs(on_meta("resnet8"), {"conv1": torch.ones(16, 3)}, (3, 32, 32))


class TestWrapped:
    """Layers of wrapped models have the names that pruners give them."""

    def plain(self) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))

    def part(self) -> nn.Module:
        model = self.plain()
        model[2] = torch.compile(model[2], backend="eager")
        return model

    def whole(self) -> nn.Module:
        return torch.compile(self.plain(), backend="eager")

    def averaged(self) -> nn.Module:
        return AveragedModel(self.part())

    @pytest.mark.parametrize("build", ["part", "whole", "averaged"])
    def test_counts_and_masks(self, build: str) -> None:
        model, keep = getattr(self, build)(), {"2": torch.rand(4, 8, 3, 3) < 0.5}
        counts = layer_macs(self.plain(), (3, 8, 8), keep)
        assert layer_macs(model, (3, 8, 8), keep) == counts
        raw = [name for name, module in model.named_modules() if type(module) is nn.Conv2d]
        assert layer_macs(model, (3, 8, 8), {raw[1]: keep["2"]}) == counts
        with pytest.raises(UnknownName, match=r"Known: 0, 2\."):
            layer_macs(model, (3, 8, 8), {"3": keep["2"]})

    @pytest.mark.parametrize("build", ["part", "whole", "averaged"])
    def test_costs(self, build: str) -> None:
        model, plain, keep = getattr(self, build)(), self.plain(), {"2": torch.rand(4, 8, 3, 3) < 0.5}
        with torch.no_grad():
            for new, old in zip(model.parameters(), plain.parameters(), strict=True):
                new.copy_(old)
        images = torch.randn(2, 3, 8, 8)
        assert cost(model, (3, 8, 8), keep, images).to_dict() == cost(plain, (3, 8, 8), keep, images).to_dict()

    def test_a_compiled_sparse_layer_counts_once(self) -> None:
        keep = torch.rand(16, 8, 3, 3, generator=torch.Generator().manual_seed(0)) < 0.3
        layer = SparseConv2d.of(nn.Conv2d(8, 16, 3), Mask(keep))
        model = nn.Sequential(torch.compile(layer, backend="eager"))
        assert layer_macs(model, (8, 9, 9), {}) == {"0": int(keep.sum()) * 49}


@pytest.mark.parametrize("output", ["pair", "nested", "dict"])
def test_a_layer_that_returns_several_tensors_counts_by_the_first(output: str) -> None:
    class Several(nn.Conv2d):
        def forward(self, input: Tensor) -> object:
            y = super().forward(input)
            mean = y.mean((2, 3))
            return {"pair": (y, mean), "nested": ([y], mean), "dict": {"y": y, "mean": mean}}[output]

    assert layer_macs(Several(3, 4, 3), (3, 8, 8)) == {"": 4 * 3 * 9 * 36}


def test_a_layer_that_returns_no_tensor_is_named() -> None:
    class Silent(nn.Linear):
        def forward(self, input: Tensor) -> None: ...

    with pytest.raises(CampfireError, match="layer '1' takes, or returns, no tensor"):
        macs(nn.Sequential(nn.Linear(3, 3), Silent(3, 3)), (3,))


@pytest.mark.filterwarnings("ignore::campfire.errors.LostOutputs")
class TestCompressed:
    """A compressed model counts as the dense one under its masks."""

    @pytest.mark.parametrize("structure", ["ck", "tiles", "hrbp", "filter"])
    def test_the_same_as_the_masked_model(self, structure: str) -> None:
        model = nn.Sequential(models.create("resnet8", num_classes=10), nn.ReLU(), nn.Linear(10, 32))
        rules = {"re:^0.layer[23].*conv": structure, nn.Linear: "fine"}
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        pruner = Pruner(model, rules, OneShot(0, 0.7)).attach(optimizer, steps_per_epoch=1)
        model(torch.randn(2, 3, 32, 32)).sum().backward()
        optimizer.step()
        keep, shape = {name: mask.keep for name, mask in pruner.masks.items()}, (3, 32, 32)
        dense, masked = layer_macs(model, shape), layer_macs(model, shape, keep)
        assert {"0.layer3.0.conv2", "0.fc", "2"} <= set(compress_(model, pruner, optimizer).compressed)
        assert layer_macs(model, shape) == dense
        assert flops(model, shape) == 2 * sum(dense.values())
        assert layer_macs(model, shape, keep) == layer_macs(model, shape, {}) == masked != dense
        assert macs(fuse(model), shape) == sum(dense.values())
        decompress_(model)
        assert layer_macs(model, shape) == dense

    def test_a_forced_kernel_in_another_format(self) -> None:
        keep = torch.rand(16, 8, 3, 3, generator=torch.Generator().manual_seed(0)) < 0.3
        layer = SparseConv2d.of(nn.Conv2d(8, 16, 3, stride=2), Mask(keep), kernel="reference").bfloat16()
        with torch.autocast("cpu", torch.bfloat16):
            assert sparse_macs(nn.Sequential(layer), {}, (8, 9, 9)) == int(keep.sum()) * 16
        assert macs(layer, (8, 9, 9)) == keep.numel() * 16


class TestLeavesNoTrace:
    def test_of_weights_statistics_gradients_modes_hooks_and_randomness(self) -> None:
        torch.manual_seed(0)
        model = models.create("vgg11_bn", num_classes=4, small_input=True).train()
        model.features[1].eval()
        model(torch.randn(2, 3, 32, 32)).sum().backward()
        calls: list[str] = []
        model.features[0].register_forward_hook(lambda *_: calls.append("forward"))
        model.features[0].register_forward_pre_hook(lambda *_: calls.append("before"))
        model.register_state_dict_post_hook(lambda *_: calls.append("state"))

        def trace() -> list[object]:
            modes = [m.training for m in model.modules()]
            hooks = [len(m._forward_hooks) for m in model.modules()]
            tensors = [t for p in model.parameters() for t in (p, p.grad)] + [*model.buffers()]
            return [modes, hooks, [(id(t), t._version) for t in tensors], torch.get_rng_state().tolist()]

        before = trace()
        assert macs(model, (3, 32, 32)) > 0
        assert trace() == before
        assert calls == []

    def test_of_a_compiled_model(self) -> None:
        def backend(graph: object, inputs: object) -> None:
            pytest.fail("counting compiled the model")

        compiled = torch.compile(models.create("resnet8", num_classes=10), backend=backend)
        assert layer_macs(compiled, (3, 32, 32))["fc"] == 640

    def test_of_tensors_in_lists_tuples_and_dicts(self) -> None:
        class Kept(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv = nn.Conv2d(3, 4, 3)
                self.kept = [torch.ones(4, 1, 1), {"pair": (torch.ones(1), [torch.ones(6)])}]
                self.kept.append(self.kept)  # ends nevertheless

            def forward(self, x: Tensor) -> Tensor:
                return self.conv(x) * self.kept[0] * self.kept[1]["pair"][0] * self.kept[2][1]["pair"][1][0]

        model = Kept()
        assert layer_macs(model, (3, 8, 8)) == {"conv": 4 * 3 * 9 * 36}
        assert model.kept[0].device.type == "cpu"

    def test_of_weights_that_are_computed(self) -> None:
        """Pruned and weight-normalised layers: the weight is a result, with a graph, not a parameter."""
        model = models.create("resnet8", num_classes=10)
        prune.random_unstructured(model.conv1, "weight", amount=0.5)
        parametrizations.weight_norm(model.layer1[0].conv1)
        assert macs(model, (3, 32, 32)) == macs(on_meta("resnet8", num_classes=10), (3, 32, 32))

    def test_in_half_precision(self) -> None:
        model = models.create("resnet8", num_classes=10).bfloat16()
        assert macs(model, (3, 32, 32)) == 12_501_632


def test_the_wrong_image_is_an_error_that_names_it() -> None:
    with pytest.raises(CampfireError, match=r"one image of shape \[1, 32, 32\].*\n.*channels, height, width"):
        macs(models.create("resnet8", num_classes=10), (1, 32, 32))


def test_whatever_a_forward_pass_raises_is_told() -> None:
    class Picky(nn.Module):
        def __init__(self, *told: str) -> None:
            super().__init__()
            self.told = told

        def forward(self, x: Tensor) -> Tensor:
            raise AssertionError(*self.told)  # as ``assert`` does, whose words pytest would rewrite

    for told, says in ((["7 pixels"], "7 pixels"), ([], "AssertionError")):
        with pytest.raises(CampfireError, match=rf"Picky does not run on one image of shape \[3, 8, 8\]: {says}"):
            macs(Picky(*told), (3, 8, 8))
