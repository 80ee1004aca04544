"""The vocabulary every floor shares: what a pass reads, what it writes, how its integers lie.

The Python mirror of ``csrc/core/problem.h``. Nothing here computes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Activation = Literal["softmax", "sigmoid"]
Space = Literal["prob", "logit"]

FLOAT_MAPS = (
    "mean",
    "confidence",
    "entropy",
    "expected_entropy",
    "mutual_information",
    "variance",
    "disagreement",
)
MAPS = ("mean", "label", *FLOAT_MAPS[1:])
"""Every map a pass can write, in the order of their bits in ``csrc/core/problem.h``."""

CALIBRATIONS = ("both", "top-label", "classwise")

FRACTION_BITS = 40
"""A real sum is two int64 words, ``hi + lo * 2**-40`` with ``0 <= lo < 2**40``."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How one member's numbers become probabilities."""

    class_dim: int
    """Axis of the classes in a member's tensor, not negative."""
    from_logits: bool
    activation: str
    """``"softmax"`` or ``"sigmoid"``."""
    multilabel: bool
    """Every class a Bernoulli of its own."""
    space: str
    """``"prob"`` averages probabilities, ``"logit"`` averages logits and activates afterwards."""


FINE_OCTAVES = 32
"""Powers of two that the fine cells below 1/2 cover; what is nearer to 0 shares the first cell."""

MAX_REGIONS = 8


@dataclass(frozen=True, slots=True)
class Extras:
    """What a row of statistics holds beside counts, scores and bins: nothing by default."""

    moments: bool = False
    """Sums of p^2 and of p y of every classwise bin."""
    fine_bins: int = 0
    """Cells of the fine histograms, 64 times a power of two; 0 for none. See `fine_shift`."""
    entropy_bins: int = 0
    """Bins of the histogram of entropies; 0 for none."""

    @property
    def fine_shift(self) -> int:
        """Mantissa bits of a fine cell.

        A cell is the exponent and the leading mantissa bits of ``d = p`` below 1/2 and of
        ``d = 1 - p`` (exact in floating point) from 1/2 on, mirrored: cell 0 begins at p = 0, the
        last one ends at 1. With h = fine_bins / 2 and m = fine_shift, d has the index
        ``min(max((bits(d) >> (M - m)) - ((E - 31) << m), 0), h - 1)``, where float32 has M = 23
        and E = 125, float64 M = 52 and E = 1021; the cell is the index, or fine_bins - 1 less it.
        """
        return (self.fine_bins // (2 * FINE_OCTAVES)).bit_length() - 1

    def entropy_scale(self, num_classes: int, multilabel: bool) -> float:
        """Bins a nat: [0, ln C] is cut in equal bins, [0, ln 2] for a Bernoulli.

        The bin of H is ``floor(H * scale)`` in the accumulation type, within the histogram.
        """
        return self.entropy_bins / math.log(2 if multilabel else max(num_classes, 2))


@dataclass(frozen=True, slots=True)
class Counting:
    """What the statistics stage counts, and into which integers."""

    target: Tensor
    """Any integer type; the voxel shape ``[B, *S]``, or the member's shape when multilabel."""
    mask: Tensor | None
    """bool, voxel shape, True keeps."""
    ignore_index: int | None
    thresholds: Tensor
    """The interior bin edges, ascending, on the CPU, float32 (float64 for float64 members)."""
    left_closed: bool
    """Bin of p = number of thresholds t with p > t, or with p >= t when left-closed."""
    calibration: str
    """One of `CALIBRATIONS`."""
    eps: float
    """Lower clip of the probability inside the negative log-likelihood."""
    statistics: Tensor
    """int64 ``[G * (1 + n_regions), W]``, added to; G is 1, or B for rows a batch item. The first
    row of a group counts every kept voxel, the others those of a region. See `StatisticsLayout`."""
    extras: Extras = Extras()
    regions: Tensor | None = None
    """uint8, voxel shape: bit r is set where a voxel belongs to region r."""
    n_regions: int = 0

    def layout(self, num_classes: int) -> StatisticsLayout:
        """Of a row."""
        n_cells = self.thresholds.numel() + 1
        return StatisticsLayout(num_classes, n_cells, self.calibration, self.extras)

    @property
    def rows(self) -> int:
        """Rows of a group."""
        return 1 + self.n_regions


@dataclass(frozen=True, slots=True)
class Finish:
    """What comes out of a pass: maps written in place, and statistics counted."""

    maps: dict[str, Tensor]
    """Map name to the tensor it is written to (any strides)."""
    normalise: bool
    """Divide the mean probabilities of a voxel by their sum first."""
    counting: Counting | None


@dataclass(frozen=True, slots=True)
class StatisticsLayout:
    """Where each integer of a statistics row lies.

    Twelve words, three words a class, then bins of four words: count, hits, sum hi, sum lo; then
    the extras. A region's row counts no bad targets: the first row of its group does.
    """

    num_classes: int
    n_cells: int
    """Number of bins a histogram: one more than there are thresholds."""
    calibration: str
    extras: Extras = Extras()

    N_VOXELS = 0
    N_CORRECT = 1
    BRIER = 2  # hi, lo
    NLL = 4  # hi, lo
    N_CLIPPED = 6
    N_INVALID = 7
    N_BAD_TARGET = 8
    BAD_TARGET_SUM = 9
    N_UNNORMALISED = 10
    N_OUT_OF_RANGE = 11
    HEADER = 12

    @property
    def predicted(self) -> slice:
        return slice(self.HEADER, self.HEADER + self.num_classes)

    @property
    def reference(self) -> slice:
        return slice(self.predicted.stop, self.predicted.stop + self.num_classes)

    @property
    def true_positive(self) -> slice:
        return slice(self.reference.stop, self.reference.stop + self.num_classes)

    @property
    def top_label(self) -> slice:
        """``[n_cells, 4]``; empty for classwise calibration alone."""
        start = self.true_positive.stop
        return slice(start, start + 4 * self.n_cells * (self.calibration != "classwise"))

    @property
    def classwise(self) -> slice:
        """``[num_classes, n_cells, 4]``; empty for top-label calibration alone."""
        start = self.top_label.stop
        wanted = self.calibration != "top-label"
        return slice(start, start + 4 * self.n_cells * self.num_classes * wanted)

    @property
    def moments(self) -> slice:
        """``[num_classes, n_cells, 4]``: sums of p^2 and of p y (hi, lo each) of classwise bins."""
        start = self.classwise.stop
        wanted = self.extras.moments and self.calibration != "top-label"
        return slice(start, start + 4 * self.n_cells * self.num_classes * wanted)

    @property
    def fine_top_label(self) -> slice:
        """``[fine_bins, 2]``: count and hits of the fine cells of the confidence."""
        start = self.moments.stop
        wanted = self.calibration != "classwise"
        return slice(start, start + 2 * self.extras.fine_bins * wanted)

    @property
    def fine_classwise(self) -> slice:
        """``[num_classes, fine_bins, 2]``: the same of every class's probability."""
        start = self.fine_top_label.stop
        wanted = self.calibration != "top-label"
        return slice(start, start + 2 * self.extras.fine_bins * self.num_classes * wanted)

    @property
    def entropy(self) -> slice:
        """``[entropy_bins, 2]``: voxels and correct ones by entropy; decisions when multilabel."""
        start = self.fine_classwise.stop
        return slice(start, start + 2 * self.extras.entropy_bins)

    @property
    def words(self) -> int:
        stop: int = self.entropy.stop
        return stop

    @property
    def low_words(self) -> list[int]:
        """Index of every fractional word; the whole part is the word before it."""
        bins = range(self.top_label.start + 3, self.classwise.stop, 4)
        moments = range(self.moments.start + 1, self.moments.stop, 2)
        return [self.BRIER + 1, self.NLL + 1, *bins, *moments]


@dataclass(frozen=True, slots=True)
class StateLayout:
    """Planes of an accumulator's state ``[K, *voxel shape]``, all of the accumulation type."""

    num_classes: int
    entropy: bool
    square: bool
    votes: bool

    @classmethod
    def for_maps(cls, num_classes: int, maps: tuple[str, ...]) -> StateLayout:
        return cls(
            num_classes,
            entropy=bool({"expected_entropy", "mutual_information"} & set(maps)),
            square="variance" in maps,
            votes="disagreement" in maps,
        )

    @property
    def planes(self) -> int:
        """Sum of w p (or of w z in logit space), sum of w H, sums of w p^2, votes."""
        return self.num_classes * (1 + self.square + self.votes) + self.entropy

    @property
    def entropy_plane(self) -> int:
        return self.num_classes

    @property
    def square_plane(self) -> int:
        return self.num_classes + self.entropy

    @property
    def votes_plane(self) -> int:
        return self.square_plane + self.num_classes * self.square


@dataclass(frozen=True, slots=True)
class TemperatureProblem:
    """A volume as a pass of temperature scaling reads it."""

    values: Tensor
    """``[C, *S]``, any strides."""
    target: Tensor
    """Any integer type, ``[*S]``; ``[C, *S]`` of 0 and 1 when multilabel."""
    mask: Tensor | None
    """bool ``[*S]``, True keeps."""
    ignore_index: int | None
    from_logits: bool
    bernoulli: bool
    """Every class has a likelihood of its own."""
    multilabel: bool
    """And a target of its own."""
    tiny: float
    """What a probability of 0 is read as, at least the smallest normal number."""
    rest: float
    """What 1 - p = 0 of a Bernoulli is read as."""


@dataclass(frozen=True, slots=True)
class TemperatureLayout:
    """Where each float64 sum of a temperature pass lies: loss, gradient, Hessian row by row.

    Derivatives are by inverse temperatures: one, or one a class.
    """

    parameters: int

    # int64 counts, in a tensor of their own.
    N_VOXELS = 0
    N_INVALID = 1
    N_BAD_TARGET = 2
    COUNTS = 3

    LOSS = 0

    @property
    def gradient(self) -> slice:
        return slice(1, 1 + self.parameters)

    @property
    def hessian(self) -> slice:
        return slice(self.gradient.stop, self.gradient.stop + self.parameters**2)

    @property
    def words(self) -> int:
        stop: int = self.hessian.stop
        return stop


@dataclass(frozen=True, slots=True)
class LossReading:
    """How a loss reads logits ``[G, B, C, *S]`` and targets ``[G, B, *S]``.

    The label of class k is k, and 1 where there is one class. Voxels of the `ignore_index` count
    nowhere.
    """

    head: str
    """``"softmax"`` or ``"sigmoid"``."""
    ignore_index: int | None


SUM_ROWS = ("overlap", "predicted", "squared", "reference", "nll", "rest")
"""Sums over voxels from which losses follow, each one number a class.

p of the voxels of the class; p; p^2; number of voxels of the class; -ln p of the voxels of the
class; for a softmax -ln p of all voxels, for a sigmoid -ln (1 - p) of the voxels of other classes.
"""


@dataclass(frozen=True, slots=True)
class SumsWanted:
    """Which of `SUM_ROWS` are computed; the reference row always is."""

    overlaps: bool = False
    """The first three rows."""
    likelihood: bool = False
    """The fifth row."""
    rest: bool = False
    """The last row, with the fifth."""


@dataclass(frozen=True, slots=True)
class GapBins:
    """Bins of the probability. Sums of a class: `count` gaps, as many amounts, voxels of it."""

    count: int
    """Bins of equal width over [0, 1], (lo, hi]."""
    soft: bool
    """A voxel is shared between the two nearest bin centres."""

    @property
    def words(self) -> int:
        return 2 * self.count + 1
