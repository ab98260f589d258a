"""``campfire report``: runs side by side."""

from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Compare the runs that the arguments name."""
    from campfire import report

    return report.main(argv)
