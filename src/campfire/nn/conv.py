"""SparseConv2d: a convolution on packed values."""

from typing import Any

from torch import Tensor, nn

from campfire.errors import DoesNotFit
from campfire.kernels import Conv
from campfire.kernels.ops import finish
from campfire.mask import Mask
from campfire.nn.base import SparseLayer
from campfire.packed import Packed, pack


class SparseConv2d(SparseLayer):
    """A convolution whose Parameter ``value`` [n, m] is the survivors; gradients and optimizer state exist for them only.

    Its state dict is that of the dense layer (``weight`` [K, C / groups, R, S], ``bias`` [K]); one with a non-zero weight
    where none lives here is refused, and then nothing of this layer is loaded. Differentiable once.

    Args:
        packed: the weight in any layout.
        bias: [K].
        stride, padding, dilation: in pixels, the same for both axes.
        groups: as of the dense layer.
        kernel: a name in `campfire.kernels.KERNELS`, or ``"auto"``: what the cost model says (`campfire.tune_` then measures).

    Raises:
        DoesNotFit: the packed weight is not valid, or the kernel cannot serve it; with every reason.
        UnknownName: no such kernel.

    >>> import torch
    >>> dense = nn.Conv2d(8, 16, 3, padding=1)
    >>> keep = torch.zeros(16, 8, 3, 3, dtype=torch.bool)
    >>> keep[:, ::2] = True
    >>> sparse = SparseConv2d.of(dense, Mask(keep), kernel="reference")
    >>> sparse
    SparseConv2d(8, 16, kernel_size=(3, 3), stride=1, padding=1, density=0.5, layout=csr, kernel=reference)
    >>> sparse(torch.randn(2, 8, 5, 5)).shape, sparse.value.shape, list(sparse.state_dict())
    (torch.Size([2, 16, 5, 5]), torch.Size([576, 1]), ['weight', 'bias'])
    >>> torch.equal(sparse.weight, dense.weight * keep)
    True
    """

    def __init__(
        self,
        packed: Packed,
        bias: Tensor | None = None,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        kernel: str = "auto",
    ):
        super().__init__(packed, bias, Conv(stride, padding, dilation, groups), kernel)
        self.out_channels, self.in_channels = packed.shape[0], packed.shape[1] * groups
        self.kernel_size = tuple(packed.shape[2:])
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups

    @classmethod
    def of(
        cls, module: nn.Conv2d, mask: Mask, layout: str = "csr", kernel: str = "auto", **options: Any
    ) -> "SparseConv2d":
        """The sparse layer of a dense one; it takes over the bias itself and copies the living weights.

        Raises:
            DoesNotFit: the layer has no sparse form, or the layout cannot hold the mask; with every reason.
        """
        if reasons := why_not_conv(module):
            raise DoesNotFit("SparseConv2d", str(module), reasons)
        packed = pack(module.weight, mask, layout, **options)
        stride, padding, dilation = _side(module.stride), _padding(module), _side(module.dilation)
        assert stride is not None
        assert padding is not None
        assert dilation is not None
        return cls(packed, module.bias, stride, padding, dilation, module.groups, kernel)

    def dense(self) -> nn.Conv2d:
        """The ordinary layer, its weight equal bit for bit; it takes over the bias itself."""
        sizes = (self.in_channels, self.out_channels, (self.kernel_size[0], self.kernel_size[1]))
        options = (self.stride, self.padding, self.dilation, self.groups)
        module = nn.Conv2d(*sizes, *options, bias=False, device="meta")  # draws no random numbers
        module.weight, module.bias = nn.Parameter(self.weight, self.value.requires_grad), self.bias
        return module.train(self.training)

    def forward(self, x: Tensor, residual: Tensor | None = None, relu: bool = False) -> Tensor:
        """[N, C, H, W] -> [N, K, H', W'], plus ``residual``, then ReLU; without N as well.

        Sum and ReLU are part of the kernel where no gradient is asked for; `campfire.fuse` puts them here.
        """
        return self._run(x, residual, relu) if x.dim() != 3 else finish(self._run(x[None])[0], residual, relu)

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"
        odd = [f"{name}={n}" for name in ("dilation", "groups") if (n := getattr(self, name)) != 1]
        return ", ".join([text, *odd, *["bias=False"] * (self.bias is None), super().extra_repr()])


def why_not_conv(module: nn.Conv2d) -> list[str]:
    """Reasons why a convolution has no sparse form; [] when it has.

    >>> why_not_conv(nn.Conv2d(4, 4, 3, stride=(1, 2), padding=1, padding_mode="reflect"))
    ["padding_mode is 'reflect'; only 'zeros' is served", 'stride is (1, 2); only square ones are served']
    """
    mode = module.padding_mode
    reasons = [] if mode == "zeros" else [f"padding_mode is {mode!r}; only 'zeros' is served"]
    sides = {"stride": _side(module.stride), "padding": _padding(module), "dilation": _side(module.dilation)}
    odd = [name for name, side in sides.items() if side is None]
    return reasons + [f"{name} is {getattr(module, name)!r}; only square ones are served" for name in odd]


def _side(pair: tuple[int, ...]) -> int | None:
    """The number that both are."""
    return pair[0] if pair[0] == pair[1] else None


def _padding(module: nn.Conv2d) -> int | None:
    """In pixels, if it is the same on all four sides."""
    if module.padding == "valid":
        return 0
    if module.padding != "same":
        return _side(module.padding)  # pyright: ignore[reportArgumentType]
    spread = {d * (size - 1) for d, size in zip(module.dilation, module.kernel_size, strict=True)}
    total = spread.pop()
    return None if spread or total % 2 else total // 2
