"""SparseLinear: a linear layer on packed values."""

from typing import Any

from torch import Tensor, nn

from campfire.errors import DoesNotFit
from campfire.kernels import Conv
from campfire.kernels.ops import finish
from campfire.mask import Mask
from campfire.nn.base import SparseLayer
from campfire.packed import Packed, pack


class SparseLinear(SparseLayer):
    """A linear layer whose Parameter ``value`` [n, m] is the survivors; run as a 1x1 convolution over one pixel.

    Arguments, errors and state dict as for `SparseConv2d`; the packed weight is [K, C, 1, 1], the dense one [K, C].

    >>> import torch
    >>> sparse = SparseLinear.of(nn.Linear(8, 4), Mask(torch.eye(4, 8).bool()[:, :, None, None]), kernel="reference")
    >>> sparse
    SparseLinear(in_features=8, out_features=4, density=0.125, layout=csr, kernel=reference)
    >>> sparse(torch.randn(2, 3, 8)).shape, sparse.value.shape, sparse.state_dict()["weight"].shape
    (torch.Size([2, 3, 4]), torch.Size([4, 1]), torch.Size([4, 8]))
    """

    def __init__(self, packed: Packed, bias: Tensor | None = None, kernel: str = "auto"):
        if tuple(packed.shape[2:]) != (1, 1):
            reasons = [f"a linear weight is [K, C, 1, 1]; got {packed.shape}"]
            raise DoesNotFit(f"a weight of shape {packed.shape}", type(self).__name__, reasons)
        super().__init__(packed, bias, Conv(), kernel)
        self.out_features, self.in_features = packed.shape[:2]

    @classmethod
    def of(
        cls, module: nn.Linear, mask: Mask, layout: str = "csr", kernel: str = "auto", **options: Any
    ) -> "SparseLinear":
        """The sparse layer of a dense one; it takes over the bias itself and copies the living weights.

        Raises:
            DoesNotFit: the layout cannot hold the mask, with every reason.
        """
        return cls(pack(module.weight, mask, layout, **options), module.bias, kernel)

    def dense(self) -> nn.Linear:
        """The ordinary layer, its weight equal bit for bit; it takes over the bias itself."""
        module = nn.Linear(self.in_features, self.out_features, bias=False, device="meta")  # draws no random numbers
        module.weight, module.bias = nn.Parameter(self.weight, self.value.requires_grad), self.bias  # pyright: ignore
        return module.train(self.training)

    def forward(self, x: Tensor, residual: Tensor | None = None, relu: bool = False) -> Tensor:
        """[..., C] -> [..., K], plus ``residual``, then ReLU."""
        one_pixel, shape = x.reshape(-1, self.in_features, 1, 1), (*x.shape[:-1], self.out_features)
        if residual is None or getattr(residual, "shape", None) == shape:
            join = None if residual is None else residual.reshape(-1, self.out_features, 1, 1)
            return self._run(one_pixel, join, relu).reshape(shape)
        return finish(self._run(one_pixel).reshape(shape), residual, relu)

    def extra_repr(self) -> str:
        sizes = [f"in_features={self.in_features}", f"out_features={self.out_features}"]
        return ", ".join([*sizes, *["bias=False"] * (self.bias is None), super().extra_repr()])

    @property
    def _weight_shape(self) -> tuple[int, ...]:
        return self.shape[:2]
