"""Images to train and test on: found, decoded, augmented and cut into batches (floor 1).

`load` makes an `ImageData` of a folder or of a built-in data set, and `batches` cuts it into batches for a training
loop. Everything random is a pure function of (seed, epoch, index of the image).
"""

from campfire.data.batching import batches, num_batches
from campfire.data.decode import BadImages
from campfire.data.loading import load
from campfire.data.sets import EncodedSet, FileSet, ImageData, ImageSet, MemorySet

__all__ = ["BadImages", "EncodedSet", "FileSet", "ImageData", "ImageSet", "MemorySet", "batches", "load", "num_batches"]
