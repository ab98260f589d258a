"""The whole job in one call: train, prune, report.

python examples/one_line.py
"""

import sys
import tempfile

import campfire


def main(output: str, epochs: int = 6) -> None:
    result = campfire.train("digits", model="resnet8", structure="ck", sparsity=0.7, epochs=epochs, output=output)
    print(f"top-1 {result.top1:.2f} %, true sparsity {result.sparsity_true:.4f}, files in {result.output}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="campfire-"))
