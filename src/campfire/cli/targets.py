"""What --output may not be: the file that is read, or one that a run needs."""

from pathlib import Path

from campfire.errors import UsageError


def require_free(output: Path, source: str) -> None:
    """Keep a command from writing over what it reads, and over the files of a run.

    Raises:
        UsageError: it would.
    """
    from campfire.training.run_directory import FILES

    if output.is_file() and Path(source).exists() and output.samefile(source):
        raise UsageError(f"--output {output} is the file that is read; give another one")
    if output.name in FILES and (output.parent / "config.yaml").is_file():
        raise UsageError(f"--output {output} is a file of the run {output.parent}; give another one")
