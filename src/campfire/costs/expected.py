"""Output-memory references of a layer, expected from densities alone (the model of Mao et al. 2017 for SCNN)."""

from campfire.costs.references import References


def expected_references(
    macs: float, kernel: tuple[int, int], weights: float, activations: float, grain: str = "fine"
) -> References:
    """References of a layer whose living weights and non-zero activations lie anywhere, by the grain of its mask.

    Products of one address that follow each other are added up before they are written: in the row-merge counter those of
    one kernel row, in the kernel-merge counter those of one kernel. See `References`.

    Args:
        macs: multiply-accumulates of the dense layer.
        kernel: R and S.
        weights: density of the weights, in [0, 1].
        activations: density of the layer's input, in [0, 1].
        grain: ``"fine"``, ``"vector"``, ``"kernel"`` or ``"filter"``.

    >>> expected_references(900, (3, 3), 1.0, 1.0)
    References(products=900.0, row_merge=300.0, kernel_merge=100.0)
    """
    (rows, columns), d, a = kernel, weights, activations
    taps = rows * columns
    if grain == "fine":
        row, whole = 1 - (1 - d * a) ** columns, 1 - (1 - d * a) ** taps
    else:
        row = d * (1 - (1 - a) ** columns)
        whole = 1 - (1 - row) ** rows if grain == "vector" else d * (1 - (1 - a) ** taps)
    return References(macs * d * a, macs / columns * row, macs / taps * whole)
