"""How the Triton kernels of blocks are called: sizes, results, grids; no call waits for the GPU, but the search of a first one."""

# pyright: reportIndexIssue=false, reportArgumentType=false, reportCallIssue=false
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
import triton
from torch import Tensor

from campfire.kernels.formats import empty
from campfire.kernels.gpu import configs, interpreter, toolchain
from campfire.kernels.gpu.configs import Config
from campfire.kernels.gpu.conv import block_conv
from campfire.kernels.gpu.index import Reads
from campfire.kernels.gpu.values import add_parts, block_values

if TYPE_CHECKING:
    from campfire.kernels.gpu.kernel import GpuPasses

BAND = 16  # tiles of pixels whose input stays in the second cache while all groups of results pass
PIXELS = {4: 32, 2: 64}  # that a step of d_values sums over, by bytes of the dtype
PROGRAMS = 2048  # of d_values, at least, as far as parts of PART pixels allow: several for each of a GPU's processors
PART = 1024
MEMORY = 1 << 28  # bytes, at most, of the parts' sums
REACH = 2**31  # entries that 32 bits tell apart
SUMS = 1024  # values that a program of the second pass adds up

if toolchain.interpreted():
    interpreter.mend()


def forward(
    layer: "GpuPasses", x: Tensor, value: Tensor, bias: Tensor | None, residual: Tensor | None, relu: bool
) -> Tensor:
    """[N, K, H', W'] from x [N, C, H, W], both in NHWC."""
    y = empty(layer.conv.output(tuple(x.shape), layer.shape), x, "nhwc")
    lattice, strides = (y.shape[2], y.shape[3]), (layer.conv.stride, 1)
    _conv(layer, "forward", layer.ahead, (x, value, y), lattice, strides, (bias, residual, relu))
    return y


def d_input(layer: "GpuPasses", dy: Tensor, value: Tensor, size: Sequence[int]) -> Tensor:
    """The gradient of an input [N, C, H, W] from dy, whose channels are in the order of the rows."""
    dx, stride = empty(size, dy, "nhwc"), layer.conv.stride
    lattice = -(-size[2] // stride), -(-size[3] // stride)
    _conv(layer, "d_input", layer.back, (dy, value, dx), lattice, (1, stride))
    return dx


def d_values(layer: "GpuPasses", dy: Tensor, x: Tensor) -> Tensor:
    """The gradient of the values, in their shape and the dtype of x."""
    out, reads, tile = x.new_empty(layer.value_shape), layer.ahead, layer.blocks.tile
    (n, channels, high, wide), (rows, columns) = x.shape, dy.shape[2:]
    pixels, step = n * rows * columns, PIXELS[x.itemsize]
    share, parts = _shares(pixels, len(reads.entry) - 1, out.numel(), step)
    sums = out if parts == 1 else torch.empty((parts, out.numel()), dtype=torch.float32, device=x.device)

    def run(config: Config) -> None:
        team = layer.teams[config.tile]
        if len(team):
            block_values[(len(team), parts)](
                dy, x, sums, team, reads.entry,
                pixels, share, out.numel(), rows, columns, high, wide, channels, dy.shape[1],
                IN=layer.conv.stride, BORDERED=layer.bordered, LONG=_long(x, dy), PRECISION=_precision(x),
                K0=tile[0], C0=tile[1], BN=reads.side, BK=reads.chunk, BP=step, TEAM=config.tile, TALL=reads.side >= reads.chunk,
                num_warps=config.warps, num_stages=config.stages,
            )  # fmt: skip

    with torch.cuda.device_of(x):
        run(_choice(layer, "d_values", run, configs.VALUES, (x, dy)))
        if parts > 1:
            add_parts[(triton.cdiv(out.numel(), SUMS),)](sums, out, out.numel(), PARTS=parts, BLOCK=SUMS)
    return out


def _conv(
    layer: "GpuPasses",
    name: str,
    reads: Reads,
    tensors: tuple[Tensor, Tensor, Tensor],
    lattice: tuple[int, int],
    strides: tuple[int, int],
    epilogue: tuple[Tensor | None, Tensor | None, bool] = (None, None, False),
) -> None:
    """``tensors``: source, values, result; ``strides``: of what is read, and of what is made in one phase."""
    (x, value, y), (bias, residual, relu) = tensors, epilogue
    phases, pixels = strides[1] ** 2, x.shape[0] * lattice[0] * lattice[1]
    order = layer.order if name == "forward" else None

    def run(config: Config) -> None:
        grid = (triton.cdiv(pixels, config.tile) * reads.groups * phases,)
        block_conv[grid](
            x, value, y, bias, residual, order, reads.start, reads.rank, reads.entry,
            pixels, *lattice, reads.groups, x.shape[2], x.shape[3], x.shape[1], y.shape[2], y.shape[3], y.shape[1],
            IN=strides[0], OUT=strides[1], TURNED=name == "d_input", BORDERED=layer.bordered, LONG=_long(x, y),
            BIAS=bias is not None, RESIDUAL=residual is not None, RELU=relu, ORDERED=order is not None,
            PRECISION=_precision(x), K0=layer.blocks.tile[0], C0=layer.blocks.tile[1],
            BN=reads.side, BK=reads.chunk, BM=config.tile, BAND=BAND,
            num_warps=config.warps, num_stages=config.stages,
        )  # fmt: skip

    with torch.cuda.device_of(x):
        run(_choice(layer, name, run, configs.for_side(reads.side), (x, y)))


def _choice(
    layer: "GpuPasses",
    name: str,
    run: Callable[[Config], None],
    candidates: Sequence[Config],
    tensors: tuple[Tensor, Tensor],
) -> Config:
    """How this pass runs on inputs of this size: searched for once."""
    x, other = tensors
    if x.device.type != "cuda":
        return configs.SMALL[name == "d_values"]
    key = (name, tuple(x.shape), tuple(other.shape), x.dtype)
    if key not in layer.chosen:
        found = configs.best(_key(layer, name, x, other), run, candidates)
        if torch.cuda.is_current_stream_capturing():
            return found
        layer.chosen[key] = found
    return layer.chosen[key]


def _key(layer: "GpuPasses", name: str, x: Tensor, other: Tensor) -> str:
    """What decides which configuration is the fastest."""
    blocks, sizes = layer.blocks, ["x".join(map(str, t.shape)) for t in (x, other)]
    weight = f"{'x'.join(map(str, layer.shape))} {layer.conv.stride} {blocks.height}x{blocks.width} {blocks.tile[:2]}"
    share = round(20 * len(blocks.base) * blocks.height * blocks.width / max(1, layer.size)) * 5
    gpu = torch.cuda.get_device_name(x.device)
    return f"{toolchain.version()} {gpu} {name} {weight} {share}% {' '.join(sizes)} {x.dtype} {_precision(x)}"


def _shares(pixels: int, boxes: int, values: int, step: int) -> tuple[int, int]:
    """Pixels of a part, in steps, and the number of parts: of sizes alone, so that sums are the same on every GPU."""
    wanted = min(-(-PROGRAMS // max(boxes, 1)), pixels // PART, MEMORY // (4 * max(values, 1)))
    share = -(-pixels // max(wanted, 1))
    share = -(-share // step) * step
    return share, -(-pixels // share)


def _precision(x: Tensor) -> str:
    """float32 by TF32 where the library's convolutions may use it, whichever of its switches says so."""
    switch = torch.backends.cudnn.conv  # pyright: ignore[reportAttributeAccessIssue]
    return "tf32" if x.dtype != torch.float32 or switch.fp32_precision == "tf32" else "ieee"


def _long(*tensors: Tensor) -> bool:
    return any(t.numel() >= REACH for t in tensors)
