"""What sparse layers share: values as the Parameter, indices beside it, the dense state dict, and the choice of kernels."""

import math
from typing import Any, Self

import torch
from torch import Tensor, nn

from campfire.errors import DoesNotFit, UsageError
from campfire.kernels import Conv
from campfire.kernels.choice import Choice
from campfire.kernels.ops import autocast_dtype, conv
from campfire.mask import Mask
from campfire.nn.choosing import choices_of, passes_of, require_choice, require_kernel
from campfire.packed import LAYOUTS, Layout, Packed


class SparseLayer(nn.Module):
    """A layer on packed values.

    ``value`` is [n, m] with at least two axes, so that rules that spare vectors from weight decay do not take it for
    one. ``index`` is where the values belong. It is no buffer, for it never changes: averages of models would average it,
    and DDP would send it around in every step. The state dict is that of the dense layer.
    """

    bias: nn.Parameter | None

    def __init__(self, packed: Packed, bias: Tensor | None, conv: Conv, kernel: str):
        super().__init__()
        _require(packed, bias, type(self).__name__)
        require_kernel(packed, conv, kernel)
        self.layout, self.shape, self.conv, self.kernel = packed.layout, packed.shape, conv, kernel
        self._assigned: dict[torch.dtype, Choice] = {}
        self._value_shape = tuple(packed.parts["value"].shape)
        self.index = {name: packed.parts[name] for name in LAYOUTS[packed.layout].parts}
        value = packed.parts["value"]
        self.value = nn.Parameter(value.view(-1, 1) if value.dim() < 2 else value)
        self.register_parameter("bias", bias if bias is None or isinstance(bias, nn.Parameter) else nn.Parameter(bias))
        self._prepare()

    def _prepare(self) -> None:
        packed = self.packed
        self._choices = choices_of(packed, self.conv, self.kernel, self._assigned)
        self._passes = passes_of(packed, self.conv, self._value_shape, self._choices)

    def _run(self, x: Tensor, residual: Tensor | None = None, relu: bool = False) -> Tensor:
        """[N, C, H, W] -> [N, K, H', W'], plus a residual, then ReLU."""
        dtype = autocast_dtype(x) or self.value.dtype
        return conv(x, self.value, self.bias, self._passes[dtype], residual, relu)

    # --- what it holds -----------------------------------------------------------------------------------------------

    @property
    def packed(self) -> Packed:
        """The weight without its zeros; its values are the Parameter's memory."""
        return Packed(self.layout, self.shape, {**self.index, "value": self.value.detach().view(self._value_shape)})

    @property
    def weight(self) -> Tensor:
        """The dense weight with its zeros, made of the values, which get its gradient: [K, C, R, S], or [K, C] of a linear layer."""
        return self.scatter(self.value)

    @property
    def mask(self) -> Mask:
        """Which weights live: bool [K, C, R, S]."""
        keep = torch.zeros(self.shape, dtype=torch.bool, device=self.value.device)
        keep.view(-1)[self._layout.positions(self.packed)] = True
        order = self.index.get("order")
        return Mask(keep, {} if order is None else {"order": order.long()})

    @property
    def density(self) -> float:
        """The fraction of weights that live."""
        return self.value.numel() / math.prod(self.shape)

    def gather(self, dense: Tensor) -> Tensor:
        """Of a tensor of the weight's shape (a gradient, a momentum) what belongs to the values, in their shape."""
        return self._layout.gather(self.packed, dense).view(self.value.shape)

    def scatter(self, value: Tensor) -> Tensor:
        """The inverse of `gather`: zero where nothing lives."""
        return self._layout.scatter(self.packed, value.view(self._value_shape)).view(self._weight_shape)

    @property
    def _layout(self) -> Layout:
        return LAYOUTS[self.layout]

    @property
    def _weight_shape(self) -> tuple[int, ...]:
        return self.shape

    def extra_repr(self) -> str:
        return f"density={self.density:.4g}, layout={self.layout}, kernel={self.choice()}"

    # --- the kernels that run it -------------------------------------------------------------------------------------

    def assign(self, choice: Choice, dtype: torch.dtype | None = None) -> None:
        """Let these kernels run it from now on, in ``dtype`` (that of its values, or one that autocast asks for).

        Copies and pickles keep the choice; where it cannot serve, after ``.to`` another device, the dense library does.

        Raises:
            UnknownName: no such kernel or format.
            DoesNotFit: a kernel cannot serve this layer, with every reason.
        """
        dtype = dtype or self.value.dtype
        require_choice(self.packed, self.conv, choice, dtype)
        self._assigned[dtype] = choice
        self._prepare()

    def choice(self, dtype: torch.dtype | None = None) -> Choice:
        """The kernels that run it in a dtype."""
        return self._choices[dtype or self.value.dtype]

    def unassign(self) -> None:
        """Back to the kernel it was made with."""
        self._assigned.clear()
        self._prepare()

    # --- moving, copying ---------------------------------------------------------------------------------------------

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self.index = {name: self._moved(part, fn) for name, part in self.index.items()}
        self._prepare()  # another dtype or device may want another kernel
        return self

    @staticmethod
    def _moved(part: Tensor, fn: Any) -> Tensor:
        """Indices where ``fn`` puts its tensors, and with their numbers, which ``to_empty`` would lose."""
        device = fn(part.new_empty(0)).device
        if part.device.type == "meta" != device.type:
            raise UsageError(
                "a compressed model that was on the meta device has lost its indices, which are in no state dict; copy it "
                "before (copy.deepcopy), or load a file into the dense model (campfire.load_)"
            )
        return part.to(device)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_passes": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._prepare()

    # --- the dense state dict ----------------------------------------------------------------------------------------

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        destination[prefix + "weight"] = self.scatter(self.value if keep_vars else self.value.detach())
        if self.bias is not None:
            destination[prefix + "bias"] = self.bias if keep_vars else self.bias.detach()

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        key, value_key = prefix + "weight", prefix + "value"
        own = {k: v for k, v in state_dict.items() if k not in (key, value_key)}
        if (weight := state_dict.get(key)) is not None:
            if reason := self.why_not_load(weight):
                error_msgs.append(f"{key}: {reason}")
                return
            own[value_key] = self.gather(weight.detach().to(self.value.device)).to(weight.device)
        missing: list[str] = []
        super()._load_from_state_dict(own, prefix, local_metadata, strict, missing, unexpected_keys, error_msgs)
        missing_keys += [key if name == value_key else name for name in missing]
        if local_metadata.get("assign_to_params_buffers"):
            self._follow()

    def why_not_load(self, weight: Tensor) -> str:
        """Why a dense weight cannot be taken; "" when it can."""
        if tuple(weight.shape) != self._weight_shape:
            return f"a weight of this layer is {self._weight_shape}; got {tuple(weight.shape)}"
        living = self.gather(weight.detach().to(self.value.device)).count_nonzero()
        if stray := int(weight.count_nonzero()) - int(living):
            return (
                f"{stray} of {weight.numel()} weights are not zero where this layer has none; zero them by the "
                "masks of this model first, or load into the dense model (decompress_)"
            )
        return ""

    def _follow(self) -> None:
        """To the device and dtype of values that another tensor was assigned to."""
        self.index = {name: part.to(self.value.device) for name, part in self.index.items()}
        self._prepare()


def _require(packed: Packed, bias: Tensor | None, what: str) -> None:
    layout = LAYOUTS.get(packed.layout)
    reasons = [f"no layout is called {packed.layout!r}"] if layout is None else layout.why_invalid(packed)
    if bias is not None and tuple(bias.shape) != packed.shape[:1]:
        reasons = [*reasons, f"a bias has shape {packed.shape[:1]}; got {tuple(bias.shape)}"]
    if reasons:
        raise DoesNotFit(f"a {packed.layout!r} weight of shape {packed.shape}", what, reasons)
