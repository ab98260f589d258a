"""Compression: a model whose masks are frozen trains on with the survivors only, and comes back dense at any time."""

from campfire.compress.compressing import compress_
from campfire.compress.decompressing import decompress_, dense_optimizer_state
from campfire.compress.plan import Plan
from campfire.compress.report import LayerReport, Report
from campfire.compress.tuning import tune_

__all__ = ["LayerReport", "Plan", "Report", "compress_", "decompress_", "dense_optimizer_state", "tune_"]
