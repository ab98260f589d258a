"""Files: a model's survivors as one file that others can read, and what other programs wrote."""

from campfire.files.filling import load_
from campfire.files.foreign import weights
from campfire.files.loading import Loaded, load, read
from campfire.files.saving import save
from campfire.files.sizes import Sizes

__all__ = ["Loaded", "Sizes", "load", "load_", "read", "save", "weights"]
