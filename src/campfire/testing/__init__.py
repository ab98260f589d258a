"""What every plug-in must pass, one call a kind; third parties run it on theirs (floor 4)."""

from campfire.testing.layouts import LAYOUT_SHAPES, LAYOUT_SPARSITIES, check_layout
from campfire.testing.masks import masks
from campfire.testing.methods import METHOD_STRUCTURES, check_method, method_schedules
from campfire.testing.structures import SHAPES, SPARSITIES, check_structure

__all__ = [
    "LAYOUT_SHAPES",
    "LAYOUT_SPARSITIES",
    "METHOD_STRUCTURES",
    "SHAPES",
    "SPARSITIES",
    "check_layout",
    "check_method",
    "check_structure",
    "masks",
    "method_schedules",
]
