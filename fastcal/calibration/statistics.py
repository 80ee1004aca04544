"""Exact calibration statistics: integers that add up, and the metrics read from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fastcal.calibration import conventions, file
from fastcal.calibration.conventions import CalibrationKind, ConventionName
from fastcal.calibration.counting import (
    OpenCount,
    clipped,
    count_batch,
    counting_into,
    read_batch,
)
from fastcal.calibration.settings import CalibrationSettings, first_difference
from fastcal.calibration.state import CalibrationState
from fastcal.calibration.summary import DescribedReader
from fastcal.calibration.values import Integers
from fastcal.core import bins
from fastcal.core.arguments import flag
from fastcal.core.arrays import Array
from fastcal.core.errors import DataError
from fastcal.core.predictions import Predictions
from fastcal.core.region_bits import Regions
from fastcal.core.sums_to_one import warn_of_logits
from fastcal.core.targets import CaseId, GivenTarget, Targets, Wording, read_targets

if TYPE_CHECKING:
    from typing import Self

    from torch.distributed import ProcessGroup


class CalibrationStatistics(DescribedReader):
    """Calibration of probabilities over any number of volumes, in a state of a few kilobytes.

    The state is integers (sums of probabilities in steps of 2^-40): bit-identical for any number of
    threads, any chunking, and any order of updates and merges.

    Bad data raise an error and leave the state as it was: on the CPU at the end of the call that
    brings them; for CUDA tensors (and under ``torch.compile``) when a statistic is next read, so
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
            Each takes 16 bytes per cell, for each histogram, region and case. 0 keeps none.
        moments: Keep the sums of p^2 and of p y of every classwise bin, which split what
            `brier_decomposition` finds within bins.
        entropy_bins: Bins of the histogram of the prediction's entropy (`entropy_histogram`), up
            to 65536; 0 keeps none.
        regions: Names of up to eight regions that are counted beside the whole, in the same pass.
            Their masks come with every update (see `fastcal.regions`), their statistics are
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
        self.settings = CalibrationSettings(
            num_classes,
            n_bins,
            (conventions.find(convention).closed or "right") if closed is None else closed,
            calibration,
            multilabel,
            eps,
            convention,
            fine_bins,
            moments,
            entropy_bins,
            regions,  # type: ignore[arg-type]  # kept as a tuple
        )
        self.state = CalibrationState(self.settings)
        self.num_classes = self.settings.num_classes
        self.n_bins = self.settings.n_bins
        self.closed = self.settings.closed
        self.calibration = self.settings.calibration
        self.multilabel = self.settings.multilabel
        self.eps = self.settings.eps
        self.convention = self.settings.convention
        self.fine_bins = self.settings.fine_bins
        self.moments = self.settings.moments
        self.entropy_bins = self.settings.entropy_bins
        self.regions = self.settings.regions

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
    ) -> Self:
        """Make statistics that reproduce another library's numbers from the same probabilities.

        Edges are each library's own, to the last bit; `fastcal.calibration.conventions` has them.

        - ``"paper"``: (lo, hi], 10 bins; p = 0 falls into no bin but counts in N; errors in %; NLL
          clipped at 1e-15 (Mehrtash et al., IEEE TMI 2020, by the first author's code).
        - ``"torchmetrics"``: [lo, hi), 15 bins, and one more for p = 1.
        - ``"monai"``: (lo, hi], 20 bins up to 1 + 2^-23, classwise; its mean over cases is
          ``classwise_ece(reduction="case")``.
        - ``"netcal"``: [lo, hi), 10 bins; p is clipped to [eps, 1 - eps]; two classes are binary.
        - ``"sklearn"``: (lo, hi], 5 bins (`calibration_curve`); NLL clipped as by `log_loss`.
        - ``"exacta"``: bin ``floor(p n)``, 15 bins; top-label for binary data too.
        - ``"fiducio"``: (lo, hi], 15 bins; NLL clipped at 1e-12.

        ``name`` is one of these. None for ``n_bins``, ``calibration`` or ``eps`` takes the
        library's own; the other arguments are those of the class.

        Raises:
            TypeError, ValueError: See the class.

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
        regions: Regions | Mapping[str, Array] | None = None,
    ) -> None:
        """Count one batch of probabilities.

        Args:
            probs: ``[B, C, *S]``, probabilities; float16, bfloat16, float32 or float64. Binary
                data may leave out the class axis. Logits go to `update_from_logits`.
            target: ``[B, *S]``, integers in [0, C); ``[B, C, *S]`` of 0 and 1 when multilabel.
            mask: bool ``[B, *S]``, True keeps.
            ignore_index: Target value that is left out.
            case_id: One id per batch item (a string or an integer, kept as a string); equal ids
                add up. Needed for ``reduction="case"``.
            class_dim: Axis of the classes in ``probs``.
            normalise: Divide each voxel's probabilities by their sum first.
            nan_policy: ``"raise"``, or ``"omit"`` to leave out and count invalid voxels.
            regions: bool masks ``[B, *S]`` of the statistics' regions by name, or `Regions`.

        Raises:
            TypeError, ValueError: Shapes, types or devices do not fit; targets outside [0, C);
                with ``nan_policy="raise"``, voxels without valid probabilities.
        """
        if flag(normalise, "normalise") and self.multilabel:
            raise ValueError("normalise must be False for binary or multilabel data, got True")
        given = GivenTarget(target, mask, ignore_index, case_id, regions, nan_policy)
        self.count(probs, given, Wording("probs"), class_dim=class_dim, normalise=normalise)

    def update_from_logits(
        self,
        logits: Array,
        target: Array,
        *,
        mask: Array | None = None,
        ignore_index: int | None = None,
        case_id: CaseId | Sequence[CaseId] | None = None,
        class_dim: int = 1,
        nan_policy: str = "raise",
        regions: Regions | Mapping[str, Array] | None = None,
    ) -> None:
        """Count one batch of logits, which become probabilities on the way.

        ``logits`` are ``[B, C, *S]``. A softmax over the classes is applied, or a sigmoid for
        binary and multilabel data. The other arguments are those of `update`.

        Raises:
            TypeError, ValueError: See `update`; or the convention clips probabilities, which are
                never at hand here.
        """
        given = GivenTarget(target, mask, ignore_index, case_id, regions, nan_policy)
        self.count(logits, given, Wording("logits"), class_dim=class_dim, from_logits=True)

    def count(
        self,
        array: Array,
        given: GivenTarget,
        wording: Wording,
        *,
        class_dim: int = 1,
        from_logits: bool = False,
        normalise: bool = False,
    ) -> None:
        """Count one batch, with messages in the caller's words: what both updates call.

        Raises:
            TypeError, ValueError: See `update` and `update_from_logits`.
        """
        clips = self.settings.rules.clipped
        if clips and from_logits:
            raise ValueError(
                "convention must be one that does not clip probabilities to count logits, "
                f"got {self.convention!r}"
            )
        name = wording.predictions
        values, predictions = read_batch(array, given, class_dim, name, self.settings)
        if from_logits and not self.settings.multilabel:
            warn_of_logits(values, predictions.class_dim, stacklevel=4)
        if not from_logits:
            predictions = predictions._replace(stored=values.dtype)
        targets = read_targets(given, predictions, self.regions)
        count = self.open_count(targets, predictions, wording)
        values = clipped(values) if clips else values
        count_batch(values, predictions, count.counting, from_logits, normalise)
        count.close()

    def open_count(
        self, targets: Targets, predictions: Predictions, wording: Wording
    ) -> OpenCount[Self]:
        """Return integers for an op to add to."""
        rows = self.state.open_rows(targets, predictions.device, wording)
        counting = counting_into(rows, self.settings, targets, predictions)
        return OpenCount(self, self.state, counting, targets, wording)

    def merge(self, other: CalibrationStatistics) -> None:
        """Add everything ``other`` has counted, in place; rows of equal case ids add up.

        Raises:
            TypeError: ``other`` is something else.
            ValueError: ``other`` has other classes, bins, calibration, eps, extras or regions.
        """
        if not isinstance(other, CalibrationStatistics):
            raise TypeError(f"other must be CalibrationStatistics, got {type(other).__name__}")
        difference = first_difference(self.settings, other.settings)
        if difference is not None:
            raise ValueError(f"other must have the same settings, got {difference}")
        self.state.merge(other.state)

    def all_reduce(self, group: ProcessGroup | None = None) -> None:
        """Add up the statistics of all processes of a torch.distributed group, in place.

        Every process of the group has to call it, also those that counted nothing, and holds the
        sum over all of them afterwards, cases included; equal case ids add up. The sums are of
        integers, so they are bit-identical to what one process would have counted. What another
        thread adds during the call is lost.

        Args:
            group: The processes; None for all. gloo sums on the CPU, nccl on the current device.

        Raises:
            ValueError: No process group is initialised or this process is not in ``group``;
                settings differ; a process counted bad data (raised on all of them).
        """
        from fastcal.calibration.distributed import sum_over_group

        sum_over_group(self.state, group)

    def case(self, case_id: CaseId) -> Self:
        """Return the statistics of one case alone.

        Raises:
            ValueError: There is no such case.
        """
        group = self.state.case_group(str(case_id))
        return self._holding(self.settings.arguments(), group, [str(case_id)], group[None])

    def region(self, name: str) -> Self:
        """Return the statistics of one region alone, its cases included.

        Raises:
            ValueError: There is no such region.

        Example:
            >>> import torch
            >>> from fastcal import CalibrationStatistics
            >>> statistics = CalibrationStatistics(num_classes=2, regions=["box"])
            >>> probs, target = torch.tensor([[[0.25, 0.5], [0.75, 0.5]]]), torch.tensor([[1, 1]])
            >>> statistics.update(probs, target, regions={"box": torch.tensor([[True, False]])})
            >>> statistics.brier(), statistics.region("box").brier()
            (0.3125, 0.125)
        """
        if name not in self.regions:
            raise ValueError(f"region must be one of {self.regions}, got {name!r}")
        row = slice(1 + self.regions.index(name), 2 + self.regions.index(name))
        state, settings = self.state, self.settings.arguments()
        settings.pop("regions")
        totals, ids, groups = state.snapshot()
        return self._holding(settings, totals[row], list(ids), groups[:, row])

    def reset(self) -> None:
        """Forget everything counted, bad data that wait for a read included."""
        self.state = CalibrationState(self.settings)

    def state_dict(self) -> dict[str, Any]:
        """Return settings and integers as plain values and int64 tensors, for ``torch.save``.

        Cases are sorted by id, so that equal statistics give equal states.
        """
        plain = {
            name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
            for name, value in self.state.plain().items()
        }
        return {"settings": self.settings.arguments(), **plain}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Hold what `state_dict` gave instead of what was counted so far.

        Raises:
            ValueError: The state has other settings, or rows that do not fit them.
        """
        needed = ("settings", "total", "case_ids", "case_rows")
        if not set(needed) <= state.keys():
            raise ValueError(f"state must hold {', '.join(needed)}, got {', '.join(state)}")
        settings = dict(state["settings"])
        if settings != self.settings.arguments():
            raise ValueError(
                f"state must have the settings {self.settings.arguments()}, got {settings}"
            )
        self.state.load(state)

    def save(self, path: str | Path) -> None:
        """Write the state to ``.npz`` or ``.json``, whole or not at all, cases sorted by id.

        Raises:
            ValueError: The suffix is neither.
            OSError: The file cannot be written.
        """
        file.write(Path(path), self.settings.arguments(), self.state.plain())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Return the statistics that `save` wrote.

        Raises:
            DataError: The file is missing or damaged, or is something else.
        """
        settings, state = file.read(Path(path))
        try:
            loaded = cls(**settings)
            loaded.load_state_dict({"settings": loaded.settings.arguments(), **state})
        except (TypeError, ValueError) as error:
            raise DataError(path, str(error)) from error
        return loaded

    def __add__(self, other: Self) -> Self:
        if not isinstance(other, CalibrationStatistics):
            return NotImplemented
        both = self._empty()
        both.merge(self)
        both.merge(other)
        return both

    def __radd__(self, other: object) -> Self:
        """Return ``0 + statistics``, so that ``sum`` takes a list of them."""
        return self + self._empty() if other == 0 else NotImplemented

    def __eq__(self, other: object) -> bool:
        """Equal settings and integers, the cases in any order."""
        if not isinstance(other, CalibrationStatistics):
            return NotImplemented
        if self.settings != other.settings:
            return False
        mine, theirs = self.state.plain(), other.state.plain()
        return mine["case_ids"] == theirs["case_ids"] and all(
            np.array_equal(mine[name], theirs[name]) for name in ("total", "case_rows")
        )

    __hash__ = None  # type: ignore[assignment]

    def _empty(self) -> Self:
        return type(self)(**self.settings.arguments())

    def _holding(
        self, settings: dict[str, Any], totals: Integers, case_ids: list[str], groups: Integers
    ) -> Self:
        made = type(self)(**settings)
        made.state.replace(totals, groups, case_ids)
        return made
