"""The system's C++ compiler."""

import functools
import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from campfire.errors import CampfireError

KNOWN = ("c++", "g++", "clang++")
CURE = "install g++, or name a C++17 compiler in CXX; CAMPFIRE_NATIVE=0 does without and says nothing"
PATIENCE = 900  # seconds


class BuildFailed(CampfireError):
    """A native library could not be made or loaded."""


@dataclass(frozen=True)
class Compiler:
    """A command that compiles C++."""

    command: tuple[str, ...]

    def __str__(self) -> str:
        return shlex.join(self.command)

    @property
    def version(self) -> str:
        """What it says of itself, "" where it says nothing."""
        return _version(self.command)

    def compile(self, source: Path, target: Path, flags: Sequence[str]) -> None:
        """Make ``target`` of ``source``.

        Raises:
            BuildFailed: with the last lines of what the compiler said, and the cure.
        """
        try:
            done = _run([*self.command, *flags, str(source), "-o", str(target)])
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BuildFailed(f"the compiler {self} cannot run ({error}); {CURE}") from None
        if done.returncode or not target.exists():
            said = "".join(f"\n    {line}" for line in (done.stdout + done.stderr).strip().splitlines()[-6:])
            raise BuildFailed(
                f"{self} could not compile {source.name} (exit code {done.returncode}); {CURE}. Its last words:"
                + (said or " none.")
            )


def compiler() -> Compiler:
    """The one in ``CXX``, or the first of c++, g++ and clang++ on the path.

    Raises:
        BuildFailed: there is none.
    """
    given = os.environ.get("CXX", "").strip()
    try:
        commands = [tuple(shlex.split(given))] if given else [(name,) for name in KNOWN]
    except ValueError as error:
        raise BuildFailed(f"CXX={given!r} is no command ({error}); {CURE}") from None
    for command in commands:
        if path := shutil.which(command[0]):
            return Compiler((path, *command[1:]))
    looked = f"CXX={given!r} names no program" if given else f"there is none of {', '.join(KNOWN)} on the path"
    raise BuildFailed(f"no C++ compiler: {looked}; {CURE}")


@functools.cache
def _version(command: tuple[str, ...]) -> str:
    try:
        done = _run([*command, "--version"])
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "" if done.returncode else done.stdout.strip().partition("\n")[0]


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        timeout=PATIENCE,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
