"""What every plug-in must pass, one call a kind; third parties run it on theirs (floor 4)."""

from campfire.testing.structures import SHAPES, SPARSITIES, check_structure

__all__ = ["SHAPES", "SPARSITIES", "check_structure"]
