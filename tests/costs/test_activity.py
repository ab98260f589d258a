"""What layers see of their inputs in real networks: any input they take, grouped, and layers that do more than they tell."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from campfire.costs import cost
from campfire.costs.layer import LayerCost
from campfire.mask import Mask
from campfire.nn import SparseLinear


class Calling(nn.Module):
    """Calls its layer by keyword, images [N, H, W, C] where ``last``."""

    def __init__(self, layer: nn.Module, last: bool = False, name: str = "input"):
        super().__init__()
        self.layer, self.last, self.name = layer, last, name

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(**{self.name: x.permute(0, 2, 3, 1) if self.last else x})


class Alone(Calling):
    """Calls its layer without the axis of images."""

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x[0])[None]


class Same(nn.Conv2d):
    """Pads by itself, as timm's Conv2dSame."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(F.pad(input, (0, 1, 0, 1)))


def first_channel(channels: int, size: int) -> Tensor:
    x = torch.zeros(1, channels, size, size)
    x[:, 0] = 1
    return x


def row(net: nn.Module, images: Tensor, array: int = 16) -> LayerCost:
    (found,) = cost(net, tuple(images.shape[1:]), images=images, array=array).layers
    return found


def test_a_linear_layer_on_four_axes_reads_its_last() -> None:
    dense = nn.Linear(8, 5)
    sparse = SparseLinear.of(dense, Mask(torch.ones(5, 8, 1, 1, dtype=torch.bool)), kernel="reference")
    for net in (Calling(dense, last=True), Calling(sparse, last=True, name="x")):
        for size in (8, 3):  # also where another axis is as long as the channels are
            activity = row(net, first_channel(8, size)).activity
            assert activity is not None
            assert activity.references.products == 5 * size * size
            assert activity.by_input.tolist() == [5 * size * size, 0, 0, 0, 0, 0, 0, 0]


def test_a_1x1_convolution_reads_one_image_without_its_axis() -> None:
    activity = row(Alone(nn.Conv2d(8, 5, 1)), first_channel(8, 6)).activity
    assert activity is not None
    assert activity.references.products == 5 * 36


def test_layers_called_by_keyword_are_counted() -> None:
    activity = row(Calling(nn.Conv2d(2, 4, 3)), first_channel(2, 5)).activity
    assert activity is not None
    assert activity.references.products == 4 * 9 * 9
    transposed = row(Calling(nn.ConvTranspose2d(2, 4, 2)), first_channel(2, 5))
    assert transposed.macs == 2 * 4 * 4 * 25


def test_a_layer_that_pads_by_itself_is_not_watched() -> None:
    for stride in (1, 2):
        net = nn.Sequential(nn.Conv2d(2, 2, 1), Same(2, 4, 2, stride=stride))
        plain, own = cost(net, (2, 6, 6), images=torch.ones(1, 2, 6, 6)).layers
        assert plain.activity is not None
        assert (own.activity is None) == (stride == 1)  # by 2, what it pads is never read
        assert own.macs == 32 * (6 // stride) ** 2


def test_a_layer_is_watched_at_all_its_calls_or_not_at_all() -> None:
    class Twice(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input if input.shape[-1] < 6 else F.pad(input, (1, 0)))

    layer = Twice(2, 2, 1)
    assert row(nn.Sequential(layer, nn.AvgPool2d(3), layer), torch.ones(2, 2, 6, 6)).activity is None


def test_depthwise_and_grouped_layers_are_as_balanced_as_their_inputs() -> None:
    images = torch.ones(1, 64, 5, 5)
    for groups in (64, 16, 1):
        net = nn.Conv2d(64, 64, 3, groups=groups)
        for found in (row(net, images), cost(net, (64, 5, 5)).layers[0]):
            assert found.imbalance == {"outputs": 1, "inputs": 1}


def test_a_transposed_layer_has_inputs_first() -> None:
    net = nn.ConvTranspose2d(4, 6, 2, groups=2)
    net.weight.data[1:] = 0  # one input of four, three outputs of six
    assert cost(net, (4, 5, 5), array=4).layers[0].imbalance["inputs"] == 4
    assert cost(net, (4, 5, 5), array=6).layers[0].imbalance["outputs"] == 2
