"""The structs that every floor shares: what a pass reads, what it writes and what it counts.

This is the Python mirror of ``csrc/core/problem.h``, in the same order. Nothing here computes.
Structs that every call makes are NamedTuples, since a frozen dataclass takes three times as long.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

from torch import Tensor

from fastcal.core.op_arguments import OpArguments

Activation = Literal["softmax", "sigmoid"]
Space = Literal["prob", "logit"]


class Reading(NamedTuple):
    """How the numbers of a member become probabilities."""

    class_dim: int
    """Axis of the classes in a member's tensor, not negative."""
    from_logits: bool
    activation: str
    """``"softmax"`` or ``"sigmoid"``."""
    multilabel: bool
    """Every class is a Bernoulli variable of its own."""
    space: str
    """``"prob"`` averages probabilities, ``"logit"`` averages logits and activates afterwards."""

    def flatten(self) -> tuple[Any, ...]:
        """The arguments of an op, in the order of the fields."""
        return tuple(self)

    @classmethod
    def unflatten(cls, flat: tuple[Any, ...]) -> Reading:
        """The struct of these arguments."""
        return cls(*flat)


@dataclass(frozen=True, slots=True)
class MapKind:
    """What is known of a map without computing it."""

    class_axis: Literal["always", "multilabel", "never"] = "never"
    """When the map has the shape of a member. Otherwise it has the voxel shape."""
    integer: bool = False
    """Any integer type; the other maps have the accumulation type."""
    state: Literal["entropy", "square", "votes"] | None = None
    """The planes of a `StateLayout` that the map needs beside the mean."""
    of_members: bool = False
    """It needs the probabilities of each member, so it is undefined for averaged logits."""

    def has_class_axis(self, multilabel: bool) -> bool:
        """Whether the map has the shape of a member."""
        return self.class_axis == "always" or (multilabel and self.class_axis == "multilabel")


MAP_TABLE = {
    "mean": MapKind(class_axis="always"),
    "label": MapKind(class_axis="multilabel", integer=True),
    "confidence": MapKind(class_axis="multilabel"),
    "entropy": MapKind(),
    "expected_entropy": MapKind(state="entropy", of_members=True),
    "mutual_information": MapKind(state="entropy", of_members=True),
    "variance": MapKind(state="square", of_members=True),
    "disagreement": MapKind(state="votes"),
}
"""Every map that a pass can write, in the order of their bits in ``csrc/core/problem.h``."""

MAPS = tuple(MAP_TABLE)

CALIBRATIONS = ("both", "top-label", "classwise")

FRACTION_BITS = 40
"""A real sum is two int64 words, ``hi + lo * 2**-40`` with ``0 <= lo < 2**40``."""

FINE_OCTAVES = 32
"""Powers of two that the fine cells below 1/2 cover. Smaller probabilities share the first cell."""

MAX_REGIONS = 8


@dataclass(frozen=True, slots=True)
class Extras:
    """What a row of statistics holds besides counts, scores and bins. Nothing by default."""

    moments: bool = False
    """Sums of p^2 and of p y for every classwise bin."""
    fine_bins: int = 0
    """Number of cells in a fine histogram, 64 times a power of two; 0 for no fine histogram."""
    entropy_bins: int = 0
    """Number of bins in the histogram of entropies; 0 for no such histogram."""

    @property
    def fine_shift(self) -> int:
        """Number of mantissa bits that select a fine cell.

        A cell is given by the exponent and the leading mantissa bits of a number d. Below 1/2,
        d is p. From 1/2 on, d is 1 - p, which is exact in floating point, and the cells are
        mirrored: cell 0 begins at p = 0, the last cell ends at p = 1. With h = fine_bins / 2 and
        m = fine_shift, the index of d is
        ``min(max((bits(d) >> (M - m)) - ((E - 31) << m), 0), h - 1)``, where float32 has M = 23
        and E = 125, and float64 has M = 52 and E = 1021. The cell is this index below 1/2, and
        ``fine_bins - 1 - index`` from 1/2 on.
        """
        return (self.fine_bins // (2 * FINE_OCTAVES)).bit_length() - 1

    def entropy_scale(self, num_classes: int, multilabel: bool) -> float:
        """Entropy bins per nat.

        The bins divide [0, ln C] evenly, or [0, ln 2] for a Bernoulli variable. The bin of H is
        ``floor(H * scale)`` in the accumulation type, clamped to the histogram.
        """
        return self.entropy_bins / math.log(2 if multilabel else max(num_classes, 2))


NO_EXTRAS = Extras()


class Counting(NamedTuple):
    """What the statistics stage counts, and the integers it adds to."""

    target: Tensor
    """Any integer type; the voxel shape ``[B, *S]``, or the member's shape when multilabel."""
    mask: Tensor | None
    """bool, of the voxel shape; True keeps a voxel."""
    ignore_index: int | None
    thresholds: Tensor
    """The interior bin edges, ascending, on the CPU, float32 (float64 for float64 members)."""
    left_closed: bool
    """The bin of p is the number of thresholds t with p > t, or with p >= t when left-closed."""
    calibration: str
    """One of `CALIBRATIONS`."""
    eps: float
    """Lower clip of the probability inside the negative log-likelihood."""
    statistics: Tensor
    """int64 ``[G * (1 + n_regions), W]``, added to. There is one group of rows (G = 1), or one for
    each batch item (G = B). The first row of a group counts every kept voxel, each further row the
    voxels of one region. See `StatisticsLayout`."""
    regions: Tensor | None = None
    """uint8, of the voxel shape; bit r is set where a voxel belongs to region r."""
    n_regions: int = 0
    extras: Extras = NO_EXTRAS

    def flatten(self) -> tuple[Any, ...]:
        """The last arguments of an op, in the order of `COUNTING_SCHEMA`."""
        *plain, extras = self
        return (*plain, extras.moments, extras.fine_bins, extras.entropy_bins)

    @classmethod
    def unflatten(cls, flat: tuple[Any, ...]) -> Counting | None:
        """The struct of these arguments; None where there is no target."""
        if not flat or flat[0] is None:
            return None
        if len(flat) <= 10:  # the trailing ones equal their default
            return cls(*flat)
        return cls(*flat[:10], Extras(*flat[10:]))  # type: ignore[call-arg]

    def layout(self, num_classes: int) -> StatisticsLayout:
        """Where each integer of a row lies."""
        n_cells = self.thresholds.numel() + 1
        return StatisticsLayout(num_classes, n_cells, self.calibration, self.extras)

    @property
    def rows(self) -> int:
        """Number of rows in a group."""
        return 1 + self.n_regions


COUNTING_SCHEMA = (
    "Tensor? target=None, Tensor? mask=None, int? ignore_index=None, Tensor? thresholds=None, "
    "bool left_closed=False, str calibration='both', float eps=0., "
    "Tensor(b!)? statistics=None, Tensor? regions=None, int n_regions=0, bool moments=False, "
    "int fine_bins=0, int entropy_bins=0"
)
"""The arguments that `Counting` flattens to. An op gets none of them where nothing is counted, and
PyTorch leaves out trailing ones that equal their default."""


class Finish(NamedTuple):
    """What comes out of a pass: maps written in place, and statistics counted."""

    maps: dict[str, Tensor]
    """Name of a map to the tensor it is written to, of any strides."""
    normalise: bool
    """Divide the mean probabilities of a voxel by their sum first."""
    counting: Counting | None

    def flatten(self) -> tuple[Any, ...]:
        """The last arguments of an op, in the order of `FINISH_SCHEMA`."""
        maps, normalise, counting = self
        if counting is None:
            return ([*maps], [*maps.values()], normalise)
        return ([*maps], [*maps.values()], normalise, *counting.flatten())

    @classmethod
    def unflatten(cls, flat: tuple[Any, ...]) -> Finish:
        """The struct of these arguments."""
        maps = dict(zip(flat[0], flat[1], strict=True))
        return cls(maps, flat[2], Counting.unflatten(flat[3:]))


FINISH_SCHEMA = f"str[] map_names, Tensor(a!)[] maps, bool normalise, {COUNTING_SCHEMA}"
"""The arguments that `Finish` flattens to."""


@dataclass(frozen=True, slots=True)
class StatisticsLayout:
    """Where each integer of a row of statistics lies.

    A row begins with twelve words, followed by three words per class. Then come the bins, each of
    four words (count, hits, sum hi, sum lo), and the extras. Only the first row of a group counts
    bad targets; the rows of regions do not.
    """

    num_classes: int
    n_cells: int
    """Number of bins in a histogram, one more than there are thresholds."""
    calibration: str
    extras: Extras = NO_EXTRAS

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
        """``[num_classes]``: voxels whose label is the class."""
        return slice(self.HEADER, self.HEADER + self.num_classes)

    @property
    def reference(self) -> slice:
        """``[num_classes]``: voxels whose target is the class."""
        return slice(self.predicted.stop, self.predicted.stop + self.num_classes)

    @property
    def true_positive(self) -> slice:
        """``[num_classes]``: voxels whose label and target are the class."""
        return slice(self.reference.stop, self.reference.stop + self.num_classes)

    @property
    def top_label(self) -> slice:
        """``[n_cells, 4]``; empty where only classwise calibration is counted."""
        start = self.true_positive.stop
        return slice(start, start + 4 * self.n_cells * (self.calibration != "classwise"))

    @property
    def classwise(self) -> slice:
        """``[num_classes, n_cells, 4]``; empty where only top-label calibration is counted."""
        start = self.top_label.stop
        wanted = self.calibration != "top-label"
        return slice(start, start + 4 * self.n_cells * self.num_classes * wanted)

    @property
    def moments(self) -> slice:
        """``[num_classes, n_cells, 4]``: sums of p^2 and of p y (hi, lo each) per classwise bin."""
        start = self.classwise.stop
        wanted = self.extras.moments and self.calibration != "top-label"
        return slice(start, start + 4 * self.n_cells * self.num_classes * wanted)

    @property
    def fine_top_label(self) -> slice:
        """``[fine_bins, 2]``: count and hits of each fine cell of the confidence."""
        start = self.moments.stop
        wanted = self.calibration != "classwise"
        return slice(start, start + 2 * self.extras.fine_bins * wanted)

    @property
    def fine_classwise(self) -> slice:
        """``[num_classes, fine_bins, 2]``: the same for the probability of each class."""
        start = self.fine_top_label.stop
        wanted = self.calibration != "top-label"
        return slice(start, start + 2 * self.extras.fine_bins * self.num_classes * wanted)

    @property
    def entropy(self) -> slice:
        """``[entropy_bins, 2]``: voxels and correct voxels, or decisions when multilabel."""
        start = self.fine_classwise.stop
        return slice(start, start + 2 * self.extras.entropy_bins)

    @property
    def words(self) -> int:
        """Number of words in a row."""
        stop: int = self.entropy.stop
        return stop

    @property
    def low_words(self) -> list[int]:
        """Index of every fractional word. The whole part is the word before it."""
        bins = range(self.top_label.start + 3, self.classwise.stop, 4)
        moments = range(self.moments.start + 1, self.moments.stop, 2)
        return [self.BRIER + 1, self.NLL + 1, *bins, *moments]


@dataclass(frozen=True, slots=True)
class StateLayout(OpArguments):
    """Planes of an accumulator's state ``[K, *voxel shape]``, all of the accumulation type.

    The sums of w p per class come first (of w z in logit space), then the sum of w H, the sums of
    w p^2 per class, and the votes per class.
    """

    num_classes: int
    entropy: bool
    square: bool
    votes: bool

    @classmethod
    def for_maps(cls, num_classes: int, maps: tuple[str, ...]) -> Self:
        """The planes from which these maps can be finished."""
        needed = {MAP_TABLE[name].state for name in maps}
        return cls(num_classes, "entropy" in needed, "square" in needed, "votes" in needed)

    @property
    def planes(self) -> int:
        """Number of planes."""
        return self.num_classes * (1 + self.square + self.votes) + self.entropy

    @property
    def entropy_plane(self) -> int:
        """The plane of the sum of w H."""
        return self.num_classes

    @property
    def square_plane(self) -> int:
        """The first plane of the sums of w p^2."""
        return self.num_classes + self.entropy

    @property
    def votes_plane(self) -> int:
        """The first plane of the votes."""
        return self.square_plane + self.num_classes * self.square


@dataclass(frozen=True, slots=True)
class TemperatureProblem(OpArguments):
    """A volume as the pass of temperature scaling reads it."""

    values: Tensor
    """``[C, *S]``, of any strides."""
    target: Tensor
    """Any integer type; ``[*S]``, or ``[C, *S]`` of 0 and 1 when multilabel."""
    mask: Tensor | None
    """bool ``[*S]``; True keeps a voxel."""
    ignore_index: int | None
    from_logits: bool
    bernoulli: bool
    """Every class has a likelihood of its own."""
    multilabel: bool
    """Every class also has a target of its own."""
    tiny: float
    """The number that a probability of 0 is read as, at least the smallest normal number."""
    rest: float
    """The number that 1 - p = 0 is read as, for a Bernoulli variable."""


@dataclass(frozen=True, slots=True)
class TemperatureLayout:
    """Where each float64 sum of a temperature pass lies: loss, gradient, Hessian row by row.

    Derivatives are with respect to the inverse temperatures.
    """

    parameters: int
    """Number of inverse temperatures: one, or one per class."""

    # The int64 counts are in a tensor of their own.
    N_VOXELS = 0
    N_INVALID = 1
    N_BAD_TARGET = 2
    COUNTS = 3

    LOSS = 0

    @property
    def gradient(self) -> slice:
        """``[parameters]``."""
        return slice(1, 1 + self.parameters)

    @property
    def hessian(self) -> slice:
        """``[parameters, parameters]``."""
        return slice(self.gradient.stop, self.gradient.stop + self.parameters**2)

    @property
    def words(self) -> int:
        """Number of sums."""
        stop: int = self.hessian.stop
        return stop


@dataclass(frozen=True, slots=True)
class LossReading(OpArguments):
    """How a loss reads logits ``[G, B, C, *S]`` and targets ``[G, B, *S]``.

    The label of class k is k, except that the label of a single class is 1. Voxels whose target is
    `ignore_index` are left out of every sum.
    """

    head: str
    """``"softmax"`` or ``"sigmoid"``."""
    ignore_index: int | None


SUM_ROWS = ("overlap", "predicted", "squared", "reference", "nll", "rest")
"""Sums over voxels from which losses are computed, each one number per class.

In this order: p over the voxels of the class; p over all voxels; p^2 over all voxels; the number of
voxels of the class; -ln p over the voxels of the class; and, for a softmax, -ln p over all voxels,
for a sigmoid, -ln (1 - p) over the voxels of other classes.
"""


@dataclass(frozen=True, slots=True)
class SumsWanted(OpArguments):
    """Which of `SUM_ROWS` are computed. The row ``reference`` always is."""

    overlaps: bool = False
    """The rows ``overlap``, ``predicted`` and ``squared``."""
    likelihood: bool = False
    """The row ``nll``."""
    rest: bool = False
    """The row ``rest``, which also needs `likelihood`."""


@dataclass(frozen=True, slots=True)
class GapBins(OpArguments):
    """Bins of the probability, over which the gaps to the outcomes are summed."""

    count: int
    """Number of bins (lo, hi] of equal width over [0, 1]."""
    soft: bool
    """A voxel is shared between the two nearest bin centres."""

    @property
    def words(self) -> int:
        """Sums per class: the gap of each bin, the amount in each bin, and the class's voxels."""
        return 2 * self.count + 1
