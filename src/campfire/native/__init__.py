"""Native code: C++ sources with a plain C interface, compiled on first use and loaded by ctypes (floor 0).

The wheel is pure Python; no compiler means that torch does the work. See `library` for the variables that steer it.
"""

from campfire.native.building import Build as Build
from campfire.native.building import sources as sources
from campfire.native.compilers import BuildFailed as BuildFailed
from campfire.native.listing import build_all as build_all
from campfire.native.listing import info as info
from campfire.native.loading import library as library
