"""Networks in every shape that fusion has to understand; sparse ones have 16-row tiles, served natively where they can."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from campfire import fuse
from campfire.kernels.choice import Choice
from campfire.mask import Mask, view4
from campfire.nn import SparseConv2d, SparseLinear

CHANNELS = 16


def images(batch: int = 2, channels: int = CHANNELS, side: int = 6) -> Tensor:
    return torch.randn(batch, channels, side, side, generator=torch.Generator().manual_seed(1))


def assert_same(model: nn.Module, x: Tensor, error: float = 8) -> nn.Module:
    """Both in eval mode, to a multiple of what rounding does to the model itself."""
    before = {k: v.clone() for k, v in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    fused = fuse(model)
    assert modes == [m.training for m in model.modules()]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    reference = copy.deepcopy(model).eval()
    with torch.inference_mode():
        plain, exact, ours = reference(x.clone()), reference.double()(x.double()), fused(x.clone())
    scale = float(exact.abs().max())
    allowed = error * float((plain - exact).abs().max()) + 1e-6 * scale
    assert float((ours - exact).abs().max()) <= allowed
    assert torch.equal(fused(x.clone()), ours)  # with gradients enabled
    return fused


def sparse_(model: nn.Module) -> nn.Module:
    """Every convolution with groups = 1 and every linear layer, made sparse; those that fit tiles in ``unit``."""
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if type(child) in (nn.Conv2d, nn.Linear) and child.weight.shape[1] > 3:
                setattr(parent, name, sparse_layer(child))
    return model


def sparse_layer(dense: nn.Conv2d | nn.Linear) -> SparseConv2d | SparseLinear:
    shape = tuple(view4(dense.weight).shape)
    whole = shape[0] % 16 == 0
    keep = torch.rand(shape[0] // 16 if whole else shape[0], shape[1], 1, 1) < 0.5
    keep[:, 0] = True
    keep = (keep.repeat_interleave(16, 0) if whole else keep).expand(shape).clone()
    kind = SparseConv2d if isinstance(dense, nn.Conv2d) else SparseLinear
    return by_blocks(kind.of(dense, Mask(keep), "unit" if whole else "csr", kernel="reference"))  # pyright: ignore


def by_blocks(sparse: SparseConv2d | SparseLinear) -> SparseConv2d | SparseLinear:
    """Served natively where it can be."""
    if not Choice.of("blocks").why_not(sparse.packed, sparse.conv, torch.float32, sparse.value.device):
        sparse.kernel = "blocks"
        sparse._prepare()
    return sparse


def stir_(model: nn.Module) -> nn.Module:
    """Running statistics, scales and biases as after training."""
    for m in model.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            if m.running_mean is not None:
                m.running_mean.normal_(0, 0.3)
                m.running_var.uniform_(0.5, 2)
            if m.affine:
                nn.init.uniform_(m.weight, -1.5, 1.5)
                nn.init.normal_(m.bias, 0, 0.3)
    return model


class Net(nn.Module):
    """Two convolutions with normalisations, and a forward pass given as a function of the module and its input."""

    def __init__(self, run: Callable[["Net", Tensor], Tensor], **norm: bool):
        super().__init__()
        self.a = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False)
        self.b = nn.Conv2d(CHANNELS, CHANNELS, 1)
        self.na, self.nb = nn.BatchNorm2d(CHANNELS, **norm), nn.BatchNorm2d(CHANNELS, **norm)
        self.relu, self.relu_ = nn.ReLU(), nn.ReLU(inplace=True)
        self.drop, self.empty = nn.Dropout(), nn.Sequential()
        self.run = [run]

    def forward(self, x: Tensor) -> Tensor:
        return self.run[0](self, x)


def in_place(net: Net, x: Tensor) -> Tensor:
    out = net.na(net.a(x))
    out += x
    return F.relu_(out)


def on_the_input(net: Net, x: Tensor) -> Tensor:
    x = x * 2
    kept = x
    x += net.a(x)
    return x + kept  # the sum, twice


def behind_a_change(net: Net, x: Tensor) -> Tensor:
    x = x * 2
    out = net.a(x)
    x.mul_(3)
    return out + x


def residual_changed_after(net: Net, x: Tensor) -> Tensor:
    y = x * 2
    out = net.a(x)
    late = net.b(x)
    y.neg_()
    return (out + y) * late


def without_assignment(net: Net, x: Tensor) -> Tensor:
    out = net.a(x)
    out.add_(x)
    return net.relu(out)


def late_residual(net: Net, x: Tensor) -> Tensor:
    out = net.na(net.a(x))
    return torch.relu(out + F.avg_pool2d(x, 3, 1, 1))


def alpha(net: Net, x: Tensor) -> Tensor:
    return torch.add(net.a(x), x, alpha=2)


# forward pass -> (normalisations folded, sums, ReLUs) of the sparse net
RUNS: dict[str, tuple[Callable[[Net, Tensor], Tensor], tuple[int, int, int]]] = {
    "post-activation": (lambda n, x: n.relu(n.nb(n.b(n.relu_(n.na(n.a(x))))) + x), (2, 1, 2)),
    "residual first": (lambda n, x: n.relu_(x + n.na(n.a(x))), (1, 1, 1)),
    "torch.add": (lambda n, x: F.relu(torch.add(n.na(n.a(x)), x), inplace=True), (1, 1, 1)),
    "method": (lambda n, x: n.na(n.a(x)).add(x).relu(), (1, 1, 1)),
    "in place": (in_place, (1, 1, 1)),
    "two convolutions": (lambda n, x: n.relu(n.na(n.a(x)) + n.nb(n.b(x))), (2, 1, 1)),
    "pre-activation": (lambda n, x: n.b(n.relu_(n.nb(n.a(n.relu(n.na(x)))))) + x, (1, 1, 1)),
    "shared": (lambda n, x: n.nb(n.a(n.na(n.a(x)))), (0, 0, 0)),
    "shared sum": (lambda n, x: n.a(n.relu(n.a(x) + x)), (0, 1, 1)),
    "read twice": (lambda n, x: n.na(y := n.a(x)) + y, (0, 0, 0)),
    "sum read twice": (lambda n, x: n.relu(y := n.a(x) + x) * y, (0, 1, 0)),
    "twice itself": (lambda n, x: (y := n.na(n.a(x))) + y, (1, 0, 0)),
    "two sums": (lambda n, x: n.relu(n.a(x) + x + n.b(x)), (0, 2, 1)),
    "ReLU before the sum": (lambda n, x: n.relu(n.a(x)) + x, (0, 0, 1)),
    "dropout": (lambda n, x: n.relu(n.drop(n.na(n.drop(n.a(x)))) + n.empty(x)), (1, 1, 1)),
    "late residual": (late_residual, (1, 1, 1)),
    "a number": (lambda n, x: n.na(n.a(x)) + 1, (1, 0, 0)),
    "a size": (lambda n, x: n.na(n.a(x)) + x.size(1), (1, 1, 0)),
    "broadcast": (lambda n, x: n.relu(n.a(x) + x.mean((2, 3), keepdim=True)), (0, 1, 1)),
    "wider residual": (lambda n, x: n.relu(n.a(x.mean((2, 3), keepdim=True)) + x), (0, 1, 1)),
    "alpha": (alpha, (0, 0, 0)),
    "on the input": (on_the_input, (0, 0, 0)),
    "behind a change": (behind_a_change, (0, 0, 0)),
    "residual changed after": (residual_changed_after, (0, 0, 0)),
    "without assignment": (without_assignment, (0, 0, 0)),
}
