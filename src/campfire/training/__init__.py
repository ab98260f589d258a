"""Training: a configuration in, a run directory out, and a trained model back from it."""

from campfire.training.evaluation import MaskViolation, Trained, evaluate, load_run
from campfire.training.outcome import Result
from campfire.training.signals import Interrupted, Preempted
from campfire.training.starting import train

__all__ = ["Interrupted", "MaskViolation", "Preempted", "Result", "Trained", "evaluate", "load_run", "train"]
