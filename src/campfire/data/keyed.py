"""Random numbers that are a pure function of (seed, epoch, index, draw).

There is no state, so nothing depends on who draws, in which order, or after which interruption. The function is the
finaliser of splitmix64 (Steele, Lea and Flood, OOPSLA 2014), applied once for each part of the key.
"""

import numpy as np

_GOLDEN = 0x9E3779B97F4A7C15
_WORD = 2**64 - 1
ORDER, AMONG = (
    _WORD,
    _WORD - 1,
)  # draws that orders have for themselves: no crop or flip goes with the place in an epoch


def _mix(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def bits(index: np.ndarray, *, seed: int, epoch: int = 0, draw: int = 0) -> np.ndarray:
    """64 random bits for each index: uint64, of the shape of ``index``.

    >>> bits(np.arange(2), seed=0).tolist() == bits(np.array([1, 0]), seed=0).tolist()[::-1]
    True
    """
    state = np.zeros(1, np.uint64)  # arrays wrap around in silence, scalars warn
    for part in (seed, epoch, draw):
        state = _mix(state + np.uint64((part * _GOLDEN + 1) & _WORD))
    return _mix(state + (index.astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN))


def uniforms(index: np.ndarray, *, seed: int, epoch: int, draws: int) -> np.ndarray:
    """``draws`` independent numbers in [0, 1) for each index: float64 [draws, N]."""
    words = [bits(index, seed=seed, epoch=epoch, draw=draw) for draw in range(draws)]
    return (np.stack(words) >> np.uint64(11)) * 2.0**-53


def permutation(size: int, *, seed: int, epoch: int = 0) -> np.ndarray:
    """The numbers 0 ... size - 1 in an order of their own for each (seed, epoch): int64 [size].

    >>> sorted(permutation(5, seed=1, epoch=2).tolist())
    [0, 1, 2, 3, 4]
    """
    return np.argsort(bits(np.arange(size), seed=seed, epoch=epoch, draw=ORDER), kind="stable")
