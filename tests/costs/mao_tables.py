"""What Mao et al. 2017 give: layers, densities of weights and activations."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Conv:
    """K filters of C channels (per group) and R x R taps, on a square output."""

    k: int
    c: int
    r: int
    out: int

    @property
    def weights(self) -> int:
        return self.k * self.c * self.r**2

    @property
    def macs(self) -> int:
        return self.weights * self.out**2


ALEXNET = [
    Conv(96, 3, 11, 55),
    Conv(256, 48, 5, 27),
    Conv(384, 256, 3, 13),
    Conv(384, 192, 3, 13),
    Conv(256, 192, 3, 13),
]
FC = [9216 * 4096, 4096 * 4096, 4096 * 1000]
DENSITY = {  # of conv1 to 5, of fc6 to 8
    "nips15": ([0.84, 0.38, 0.35, 0.37, 0.37], [0.09, 0.09, 0.25]),
    "nips16": ([0.54, 0.41, 0.28, 0.32, 0.33], [0.037, 0.066, 0.046]),
    "ours": ([0.83, 0.26, 0.23, 0.23, 0.23], [0.07, 0.07, 0.18]),
}
ACTIVE = [1, 0.88, 0.52, 0.37, 0.40]  # Han et al. 2015, what enters conv1 to 5
ACTIVE_FC = [0.34, 0.36, 0.40]

VGG = [  # layer, density of what enters it, of its weights in Han et al. 2015
    (Conv(64, 3, 3, 224), 1.0, 0.58),
    (Conv(64, 64, 3, 224), 0.53, 0.22),
    (Conv(128, 64, 3, 112), 0.89, 0.34),
    (Conv(128, 128, 3, 112), 0.80, 0.36),
    (Conv(256, 128, 3, 56), 0.81, 0.53),
    (Conv(256, 256, 3, 56), 0.68, 0.24),
    (Conv(256, 256, 3, 56), 0.70, 0.42),
    (Conv(512, 256, 3, 28), 0.64, 0.32),
    (Conv(512, 512, 3, 28), 0.51, 0.27),
    (Conv(512, 512, 3, 28), 0.45, 0.34),
    (Conv(512, 512, 3, 14), 0.34, 0.35),
    (Conv(512, 512, 3, 14), 0.32, 0.29),
    (Conv(512, 512, 3, 14), 0.29, 0.36),
]
