"""Compile every mask kernel for sm_90, without a GPU; print what each compiled to. Run without TRITON_INTERPRET."""

from typing import Any

import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from campfire.native.gpu import multiplying, ranking, selecting

POINTERS = {"values": "*i64", "alives": "*i64", "outputs": "*i64", "masks": "*i64", "tensors": "*i64", "keep": "*u8"}
RANK = {"score": "*fp32", "alive": "*u8", "out": "*u8", "rows": "i32", "t": "i32", "count": "i32"}
KEYS: dict[str, Any] = {"CHUNK": 4096}
KERNELS: list[tuple[Any, dict[str, Any]]] = [
    (selecting.write_keys, {**KEYS, "ABSOLUTE": True}),
    *((selecting.count_digits, {**KEYS, "SHIFT": shift, "BITS": bits}) for shift, bits in ((21, 11), (0, 10))),
    *((selecting.narrow, {"FIRST": first, "BITS": 11}) for first in (True, False)),
    (selecting.count_ties, KEYS),
    (selecting.settle, {"BLOCK": 1024}),
    (selecting.write_keep, KEYS),
    (selecting.count_lost, {"BLOCK": 1024}),
    (ranking.rank_rows, {"LIVES": True, "RANKS": False, "P": 16, "ROWS": 64}),
    *((multiplying.multiply, {**KEYS, "DTYPE": dtype}) for dtype in (tl.float32, tl.bfloat16)),
]

for kernel, constants in KERNELS:
    given = RANK if kernel is ranking.rank_rows else POINTERS
    signature = {name: "constexpr" if name in constants else given.get(name, "*i32") for name in kernel.arg_names}
    made = compile(ASTSource(kernel, signature, constants), target=GPUTarget("cuda", 90, 32), options={"num_warps": 8})
    print(kernel.__name__, len(made.asm["cubin"]), "ftz" if ".ftz" in made.asm["ptx"] else "")
