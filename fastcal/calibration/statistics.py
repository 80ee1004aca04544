"""Exact calibration statistics: integers that add up, and the metrics read from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastcal import ops
from fastcal.calibration import conventions
from fastcal.calibration.conventions import ConventionName
from fastcal.calibration.measures import CalibrationKind
from fastcal.calibration.merging import MergeableStatistics
from fastcal.calibration.state import CalibrationState
from fastcal.core import bins
from fastcal.core.arguments import flag, real_number, whole_number
from fastcal.core.arrays import Array, real_dtype, to_tensor
from fastcal.core.members import check_member
from fastcal.core.predictions import Predictions
from fastcal.core.problem import (
    CALIBRATIONS,
    FINE_OCTAVES,
    Counting,
    Extras,
    Finish,
    Reading,
    StatisticsLayout,
)
from fastcal.core.region_bits import Regions, check_names
from fastcal.core.targets import CaseId, GivenTarget, Targets, read_targets


@dataclass(frozen=True, slots=True)
class OpenCount:
    """Statistics that a call is counting."""

    statistics: CalibrationStatistics
    counting: Counting
    """What the op counts, into new integers."""
    targets: Targets
    source: str
    """The argument to blame for invalid voxels."""

    def close(self) -> CalibrationStatistics:
        """Check what was counted, and merge it.

        Raises:
            ValueError: Bad data were counted (CPU tensors; otherwise at the first read).
        """
        rows, targets = self.counting.statistics, self.targets
        self.statistics._state.take(rows, targets, targets.nan_policy, self.source)
        return self.statistics


class CalibrationStatistics(MergeableStatistics):
    """Calibration of probabilities over any number of volumes, in a state of a few kilobytes.

    The state is integers (sums of probabilities in steps of 2^-40): the same bits whatever the
    number of threads, the chunking, or the order of updates and merges.

    Bad data are errors, and leave the state as it was: on the CPU at the end of the call that
    brings them, for CUDA tensors (and under ``torch.compile``) when a statistic is next read, so
    that no call waits for the device.

    Args:
        num_classes: C. With 1 the data are binary: the probability of the positive class against
            a target of 0 and 1.
        n_bins: Bins of equal width over [0, 1].
        closed: ``"right"``: bins (lo, hi], the first closed at 0. ``"left"``: [lo, hi), the last
            closed at 1. None is ``"right"``, or what the convention has.
        calibration: Which bins are kept: ``"top-label"`` (confidence against correctness),
            ``"classwise"`` (each class's probability against its presence), or ``"both"``.
        multilabel: Every class is a Bernoulli of its own: targets have the shape of the
            probabilities, labels are p > 0.5, top-label bins and accuracy pool all classes, Brier
            score and NLL are summed over classes.
        eps: Lower clip of the probability inside the NLL, never below the smallest normal number
            of the accumulation type, which is the default.
        convention: Whose edges, zeros and ones, units and eps are used: ``"default"``, or a
            library's (see `preset`, which also has its number of bins).
        fine_bins: Cells of a fine histogram of the confidence and of every class's probability,
            a power of two from 64 to 2^20, for the measures of order: `auroc`, `aurc`,
            `adaptive_ece` and their kin. Cells are spaced by the bits of p below 1/2 and of 1 - p
            above, so that a saturated network's voxels do not share one; 65536 is a good number.
            16 bytes a cell, histogram, region and case. 0 keeps none.
        moments: Keep the sums of p^2 and of p y of every classwise bin, which split what
            `brier_decomposition` finds within bins.
        entropy_bins: Bins of the histogram of the prediction's entropy (`entropy_histogram`), up
            to 65536; 0 keeps none.
        regions: Names of up to eight regions that are counted beside the whole, in the same pass;
            their masks come with every update (see `fastcal.regions`), their statistics are
            `region(name)`.

    Raises:
        TypeError, ValueError: An argument is not one of these, or ``closed`` is not what the
            convention has.

    Example:
        >>> import torch
        >>> statistics = CalibrationStatistics(num_classes=3, n_bins=3)
        >>> probs = torch.tensor(
        ...     [[0.25, 0.20, 0.55], [0.55, 0.05, 0.40], [0.10, 0.30, 0.60], [0.90, 0.05, 0.05]]
        ... )
        >>> statistics.update(probs, torch.tensor([0, 1, 2, 0]))
        >>> round(statistics.ece(), 6), round(statistics.ece("max"), 4)
        (0.2, 0.2333)
    """

    def __init__(
        self,
        num_classes: int,
        n_bins: int = 15,
        closed: bins.Closed | None = None,
        calibration: CalibrationKind = "both",
        *,
        multilabel: bool = False,
        eps: float | None = None,
        convention: ConventionName = "default",
        fine_bins: int = 0,
        moments: bool = False,
        entropy_bins: int = 0,
        regions: Sequence[str] = (),
    ) -> None:
        num_classes = whole_number(num_classes, "num_classes")
        if num_classes < 1:
            raise ValueError(f"num_classes must be positive, got {num_classes}")
        found = conventions.find(convention)
        closed = (found.closed or "right") if closed is None else closed
        n_bins = bins.check_bins(n_bins, closed)
        if found.closed not in (None, closed):
            raise ValueError(
                f"closed must be {found.closed!r} for convention={convention!r}, got {closed!r}"
            )
        if calibration not in CALIBRATIONS:
            raise ValueError(f"calibration must be one of {CALIBRATIONS}, got {calibration!r}")
        eps = None if eps is None else real_number(eps, "eps")
        if eps is not None and not 0 < eps < 1:
            raise ValueError(f"eps must lie between 0 and 1, got {eps:g}")
        self.num_classes = num_classes
        self.n_bins = n_bins
        self.closed = closed
        self.calibration = calibration
        self.multilabel = flag(multilabel, "multilabel") or num_classes == 1
        self.eps = eps
        self.convention = convention
        self._convention = found
        self._thresholds = found.thresholds(n_bins, closed)
        self.fine_bins = _checked_fine_bins(fine_bins)
        self.moments = flag(moments, "moments")
        if self.moments and calibration == "top-label":
            raise ValueError(
                "moments=True is of classwise bins, which calibration='top-label' lacks"
            )
        self.entropy_bins = whole_number(entropy_bins, "entropy_bins")
        if not 0 <= self.entropy_bins <= 65536:
            raise ValueError(f"entropy_bins must be between 0 and 65536, got {entropy_bins}")
        self.regions = check_names(regions)
        self._extras = Extras(self.moments, self.fine_bins, self.entropy_bins)
        n_cells = n_bins + self._convention.extra_cells
        layout = StatisticsLayout(num_classes, n_cells, calibration, self._extras)
        self._state = CalibrationState(layout, self.multilabel, len(self.regions))

    @classmethod
    def preset(
        cls,
        name: ConventionName,
        num_classes: int,
        *,
        n_bins: int | None = None,
        calibration: CalibrationKind | None = None,
        multilabel: bool = False,
        eps: float | None = None,
        fine_bins: int = 0,
        moments: bool = False,
        entropy_bins: int = 0,
        regions: Sequence[str] = (),
    ) -> CalibrationStatistics:
        """Statistics that reproduce another library's numbers from the same probabilities.

        - ``"paper"``: (lo, hi], 10 bins; p = 0 falls into no bin but counts in N; errors in %; NLL
          clipped at 1e-15 (Mehrtash et al., IEEE TMI 2020, by the first author's code).
        - ``"torchmetrics"``: [lo, hi), 15 bins, and one more for p = 1.
        - ``"monai"``: (lo, hi], 20 bins up to 1 + 2^-23, classwise; its mean over cases is
          ``classwise_ece(reduction="case")``.
        - ``"netcal"``: [lo, hi), 10 bins; p clipped to [eps, 1 - eps] (in a copy); two classes are
          binary data.
        - ``"sklearn"``: (lo, hi], 5 bins, as `sklearn.calibration.calibration_curve`; NLL clipped
          at the eps of the type, as `sklearn.metrics.log_loss`.
        - ``"exacta"``: bin ``floor(p n)``, 15 bins; top-label for binary data too.
        - ``"fiducio"``: (lo, hi], 15 bins; NLL clipped at 1e-12.
        - ``"default"``: what the class does by itself.

        Edges are each library's own, to the last bit.

        Args:
            name: One of these.
            num_classes: See the class, as for the others.
            n_bins: The library's default if None.
            calibration: ``"both"``, or ``"classwise"`` for MONAI, if None.
            multilabel: See the class.
            eps: The library's if None.
            fine_bins: See the class, as for the rest.

        Raises:
            TypeError, ValueError: As for the class.

        Example:
            >>> import torch
            >>> probs, target = torch.tensor([[0.95, 1.0]]), torch.tensor([[1, 0]])
            >>> for name in ("default", "torchmetrics"):
            ...     statistics = CalibrationStatistics.preset(name, num_classes=1)
            ...     statistics.update(probs, target)
            ...     print(round(statistics.ece(), 3))
            0.475
            0.525
        """
        convention = conventions.find(name)
        return cls(
            num_classes,
            convention.n_bins if n_bins is None else n_bins,
            calibration=convention.calibration if calibration is None else calibration,
            multilabel=multilabel,
            eps=eps,
            convention=name,
            fine_bins=fine_bins,
            moments=moments,
            entropy_bins=entropy_bins,
            regions=regions,
        )

    def update(
        self,
        probs: Array,
        target: Array,
        *,
        mask: Array | None = None,
        ignore_index: int | None = None,
        case_id: CaseId | Sequence[CaseId] | None = None,
        class_dim: int = 1,
        normalise: bool = False,
        nan_policy: str = "raise",
        from_logits: bool = False,
        regions: Regions | Mapping[str, Array] | None = None,
    ) -> None:
        """Count one batch of probabilities.

        Args:
            probs: ``[B, C, *S]``, probabilities; float16, bfloat16, float32 or float64. Binary
                data may leave out the class axis.
            target: ``[B, *S]``, integers in [0, C); ``[B, C, *S]`` of 0 and 1 when multilabel.
            mask: bool ``[B, *S]``, True keeps.
            ignore_index: Target value that is left out.
            case_id: One id a batch item (a string or an integer, kept as a string); equal ids
                add up. Needed for ``reduction="case"``.
            class_dim: Axis of the classes in ``probs``.
            normalise: Divide each voxel's probabilities by their sum first.
            nan_policy: ``"raise"``, or ``"omit"`` to leave out and count invalid voxels.
            from_logits: ``probs`` are logits, to be made probabilities on the way: softmax, or
                sigmoid for binary and multilabel data. Never guessed.
            regions: bool masks ``[B, *S]`` of the statistics' regions by name, or `Regions`.

        Raises:
            TypeError, ValueError: Shapes, types or devices do not fit; targets outside [0, C);
                with ``nan_policy="raise"``, voxels without valid probabilities.
        """
        values = to_tensor(probs, "probs")
        if self.num_classes == 1 and _lacks_classes(values, target, class_dim):
            values, class_dim = values.unsqueeze(-1), values.dim()
        real = real_dtype(values, "probs")
        axis = check_member(values, class_dim, "probs")
        if values.shape[axis] != self.num_classes:
            raise ValueError(
                f"probs must have {self.num_classes} classes along axis {axis}, "
                f"got shape {tuple(values.shape)}"
            )
        from_logits = flag(from_logits, "from_logits")
        if flag(normalise, "normalise") and self.multilabel:
            raise ValueError("normalise=True is not defined for binary or multilabel data")
        if self._convention.clipped:
            if from_logits:
                raise ValueError(f"from_logits=True: {self.convention!r} clips probabilities")
            values = _clipped(values)
        predictions = Predictions(values.shape, values.device, real, axis, self.multilabel)
        given = GivenTarget(target, mask, ignore_index, case_id, regions, nan_policy)
        targets = read_targets(given, predictions, self.regions)
        count = self.open_count(targets, predictions, "probs")
        activation = "sigmoid" if self.multilabel else "softmax"
        reading = Reading(axis, from_logits, activation, self.multilabel, "prob")
        finish = Finish({}, normalise, count.counting)
        ops.ensemble_statistics([values], [1.0], [1.0], *reading.flatten(), *finish.flatten())
        count.close()

    def open_count(self, targets: Targets, predictions: Predictions, source: str) -> OpenCount:
        """Give integers for an op to add to (for the ensemble functions).

        Args:
            targets: Checked.
            predictions: What the targets are compared with.
            source: The argument to blame for invalid voxels.
        """
        real = predictions.real
        smallest = self._convention.smallest(real)
        counting = Counting(
            targets.target,
            targets.mask,
            targets.ignore_index,
            self._thresholds_of(real),
            self.closed == "left",
            self.calibration,
            smallest if self.eps is None else max(self.eps, torch.finfo(real).tiny),
            self._state.open_rows(targets, predictions.device, targets.nan_policy, source),
            None if targets.regions is None else targets.regions.bits,
            len(targets.region_names),
            self._extras,
        )
        return OpenCount(self, counting, targets, source)

    def _thresholds_of(self, real: torch.dtype) -> Tensor:
        if self._thresholds is None:
            return bins.thresholds(self.n_bins, real)
        return self._thresholds[real == torch.float64]


def _checked_fine_bins(fine_bins: int) -> int:
    number = whole_number(fine_bins, "fine_bins")
    lowest = 2 * FINE_OCTAVES
    if number != 0 and (not lowest <= number <= 1 << 20 or number & (number - 1)):
        raise ValueError(
            f"fine_bins must be 0 or a power of two from {lowest} to {1 << 20}, got {number}"
        )
    return number


def _lacks_classes(values: Tensor, target: Array, class_dim: int) -> bool:
    if values.shape != getattr(target, "shape", None):
        return False
    return class_dim >= values.dim() or values.shape[class_dim] != 1


def _clipped(values: Tensor) -> Tensor:
    """What lies in [0, 1], clipped to [eps, 1 - eps] with the eps of its type."""
    eps = torch.finfo(values.dtype).eps
    inside = (values >= 0) & (values <= 1)
    return torch.where(inside, values.clamp(eps, 1 - eps), values)
