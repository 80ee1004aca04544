"""An ensemble whose members arrive one at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from fastcal import ops
from fastcal.calibration import CalibrationKind
from fastcal.core import bins, outputs
from fastcal.core.arguments import flag, whole_number
from fastcal.core.arrays import Array, real_dtype, to_tensor
from fastcal.core.members import (
    check_batched,
    check_member,
    check_reading,
    check_several_classes,
    check_temperature,
    check_weight,
    weight_exponent,
)
from fastcal.core.predictions import Predictions, memory_order
from fastcal.core.problem import Activation, Finish, Reading, Space, StateLayout
from fastcal.core.region_bits import Regions
from fastcal.core.sums_to_one import warn_of_logits, warn_of_sums
from fastcal.core.targets import CaseId, GivenTarget
from fastcal.core.whole import Whole
from fastcal.ensemble import (
    CountSettings,
    check_room_for_sums,
    gather,
    logits_of_exclusive_classes,
    means_are_members,
    open_count,
    read_by,
)
from fastcal.results import EnsembleStatistics
from fastcal.segments import SegmentSettings, SegmentStream, read_settings


class EnsembleAccumulator:
    """Compute what `ensemble_statistics` computes from members that arrive one after the other.

    The state is a few planes of the size of one member, whatever the number of members. The results
    are bit-identical to those of the one-shot call with the same weights in the same order.

    An update is whole or undone: Ctrl-C and other signals that raise wait until the end of a call.
    Several threads may share an accumulator. Their calls run one after the other.

    Args:
        maps: Which maps `finalize` gives. May be empty where `finalize` is given a target.
        class_dim: Axis of the classes in a member: 1, or 0 for ``[C, *S]``.
        from_logits: Members are logits; pass False for probabilities. A call never guesses.
        activation: ``"softmax"`` or ``"sigmoid"``; see `ensemble_entropy`.
        multilabel: Every class is a Bernoulli variable of its own.
        space: ``"prob"`` averages probabilities, ``"logit"`` averages logits and activates
            afterwards.
        segments: Also score the segment of every class, or `SegmentSettings` to say how. `finalize`
            then gives ``.segments``.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument has an unknown value.

    Example:
        >>> import torch
        >>> ensemble = EnsembleAccumulator(maps=("entropy", "label"))
        >>> for seed in range(3):
        ...     generator = torch.Generator().manual_seed(seed)
        ...     ensemble.update(torch.randn(1, 4, 8, 8, generator=generator))
        >>> ensemble.n_members, ensemble.finalize().entropy.shape
        (3, torch.Size([1, 8, 8]))
    """

    def __init__(
        self,
        maps: str | Sequence[str] = ("entropy",),
        *,
        class_dim: int = 1,
        from_logits: bool = True,
        activation: Activation = "softmax",
        multilabel: bool = False,
        space: Space = "prob",
        segments: bool | SegmentSettings = False,
    ) -> None:
        used = check_reading(from_logits, activation, multilabel, space)
        self._maps = outputs.check_maps(maps, space)
        self._scored = read_settings(segments)
        self._stream: SegmentStream | None = None
        axis = whole_number(class_dim, "class_dim")
        # A class axis that is counted from the back is known once a member is.
        self._reading = Reading(axis, from_logits, used, multilabel, space)
        self._n_members = 0
        self._total_weight = 0.0
        self._exponent = 0
        self._whole = Whole()
        self._state: Tensor | None = None
        self._layout = StateLayout(0, entropy=False, square=False, votes=False)
        self._predictions: Predictions | None = None
        self._dtype: torch.dtype | None = None
        self._numpy = False

    @property
    def n_members(self) -> int:
        """Number of members added so far. Members of weight 0 do not count."""
        return self._n_members

    def update(self, member: Array, *, weight: float = 1.0, temperature: float = 1.0) -> None:
        """Add one member.

        Args:
            member: ``[B, C, *S]``, of the shape, type and device of the first member.
            weight: Not negative; 0 leaves the member out.
            temperature: Divides its logits, or the logarithms of its probabilities.

        Raises:
            TypeError: An argument has the wrong type. Nothing was added.
            ValueError: An argument does not fit. Nothing was added.
        """
        check_batched(member, self._reading.class_dim, "member")
        tensor = to_tensor(member, "member")
        weight, temperature = (
            check_weight(weight, "weight"),
            check_temperature(temperature, "temperature"),
        )
        with self._whole:
            self._add(tensor, weight, temperature, isinstance(member, np.ndarray))

    def _add(self, tensor: Tensor, weight: float, temperature: float, numpy: bool) -> None:
        state, predictions = self._state, self._predictions
        if predictions is None:
            real = real_dtype(tensor, "member")
            axis = check_member(tensor, self._reading.class_dim, "member", stacklevel=4)
            predictions = Predictions(
                tensor.shape,
                tensor.device,
                real,
                axis,
                self._reading.multilabel,
                order=memory_order(tensor),
            )
            check_several_classes(predictions)
            if self._scored is not None:
                self._stream = SegmentStream(self._scored, predictions)
        elif tensor.shape != predictions.shape:
            raise ValueError(
                f"member must have shape {tuple(predictions.shape)}, as the first member, "
                f"got {tuple(tensor.shape)}"
            )
        elif tensor.dtype != self._dtype or tensor.device != predictions.device:
            raise ValueError(
                f"member must be {self._dtype} on {predictions.device}, as the first member, "
                f"got {tensor.dtype} on {tensor.device}"
            )
        if weight == 0:
            return
        layout, reading, exponent = self._layout, self._reading, self._exponent
        if state is None:
            layout = StateLayout.for_maps(predictions.num_classes, self._maps)
            if self._stream is not None:
                layout = self._stream.layout(self._maps, self._reading.space)
            state = predictions.zeros(layout.planes)
            reading = reading._replace(class_dim=axis)
            exponent = weight_exponent(weight)
        elif weight_exponent(weight) > exponent:
            exponent = weight_exponent(weight)
            self._rescale(state, exponent)
        scaled = math.ldexp(weight, -exponent)
        ops.ensemble_accumulate(
            tensor, scaled, temperature, *reading.flatten(), *layout.flatten(), state
        )
        if self._state is None and logits_of_exclusive_classes(reading):
            warn_of_logits(tensor, reading.class_dim, stacklevel=4)
        if self._stream is not None:
            self._stream.add(tensor, temperature, reading)
        if self._state is None:
            self._state, self._layout, self._predictions = state, layout, predictions
            self._reading, self._exponent = reading, exponent
            self._dtype, self._numpy = tensor.dtype, numpy
        self._n_members += 1
        self._total_weight += scaled

    def _rescale(self, state: Tensor, exponent: int) -> None:
        """Divide what is weighted so that the largest weight is below 2, as in the one-shot call.

        Powers of two round nothing.
        """
        factor = math.ldexp(1.0, self._exponent - exponent)
        state[: self._layout.votes_plane] *= factor
        self._total_weight *= factor
        self._exponent = exponent

    def finalize(
        self,
        target: Array | None = None,
        *,
        normalise: bool = False,
        calibration: CalibrationKind = "both",
        n_bins: int = 15,
        closed: bins.Closed = "right",
        mask: Array | None = None,
        ignore_index: int | None = None,
        case_id: CaseId | Sequence[CaseId] | None = None,
        nan_policy: str = "raise",
        eps: float | None = None,
        fine_bins: int = 0,
        moments: bool = False,
        entropy_bins: int = 0,
        regions: Regions | Mapping[str, Array] | None = None,
        out: Mapping[str, Array] | Array | None = None,
    ) -> EnsembleStatistics:
        """Give the maps of the members so far, and their calibration when a target is given.

        The state stays: more members may follow, and `finalize` may be called again. The arguments
        and their errors are those of `ensemble_statistics`.

        Args:
            target: Integers in [0, C), ``[B, *S]``; ``[B, C, *S]`` of 0 and 1 when multilabel.
            normalise: Divide the mean probabilities of each voxel by their sum first.
            calibration: ``"top-label"``, ``"classwise"`` or ``"both"``.
            n_bins: Number of bins over [0, 1].
            closed: Which side of a bin belongs to it, ``"right"`` or ``"left"``.
            mask: bool ``[B, *S]``; True counts a voxel. Maps are written everywhere.
            ignore_index: Target value whose voxels are not counted.
            case_id: One id per batch item, for metrics per case.
            nan_policy: ``"raise"`` or ``"omit"``.
            eps: Lower clip of the probability inside the negative log-likelihood.
            fine_bins: Number of cells in a fine histogram; 0 for none.
            moments: Keep second moments of the classwise bins.
            entropy_bins: Number of bins in the histogram of entropies; 0 for none.
            regions: bool masks ``[B, *S]`` by name.
            out: Name of a map to the tensor it is written to.

        Returns:
            The maps as attributes, ``.calibration`` when a target is given, and ``.segments`` where
            they are wanted.

        Raises:
            ImportError: Components of segments are counted, and SciPy is not installed.
            RuntimeError: No member was added.
            TypeError: An argument has the wrong type. The message names it.
            ValueError: An argument does not fit, or the data are bad. The message names it.
        """
        given = GivenTarget(target, mask, ignore_index, case_id, regions, nan_policy)
        settings = CountSettings(calibration, n_bins, closed, eps, fine_bins, moments, entropy_bins)
        with self._whole:
            return self._finish(given, settings, flag(normalise, "normalise"), out)

    def _finish(
        self,
        given: GivenTarget,
        settings: CountSettings,
        normalise: bool,
        out: Mapping[str, Array] | Array | None,
    ) -> EnsembleStatistics:
        state, predictions, reading = self._state, self._predictions, self._reading
        if state is None or predictions is None:
            raise RuntimeError("finalize needs at least one member, got none: call update first")
        if normalise and reading.multilabel:
            raise ValueError("normalise must be False with multilabel=True, got True")
        tensors = outputs.map_tensors(self._maps, out, predictions)
        stream = self._stream
        of_scores = () if stream is None else stream.maps(reading.space)
        count = open_count(given, settings, predictions, self._maps or of_scores)
        check_room_for_sums(predictions, reading, normalise, counts=count is not None)
        if count is None and not normalise and means_are_members(reading):
            means = state[: self._layout.num_classes]
            warn_of_sums([means], [1.0], 0, scale=1 / self._total_weight)
        if out is not None:
            outputs.check_apart(self._maps, tensors, read_by(count))
        maps = dict(zip(self._maps, tensors, strict=True))
        if stream is not None:
            maps = stream.with_maps(maps, reading.space)
        finish = Finish(maps, normalise, None if count is None else count.counting)
        ops.ensemble_finalize(
            state,
            self._n_members,
            self._total_weight,
            *reading.flatten(),
            *self._layout.flatten(),
            *finish.flatten(),
        )
        statistics = None if count is None else count.close()
        scores = None
        if stream is not None:
            scores = stream.close(maps, state, self._layout, numpy=self._numpy)
        return gather(self._maps, tensors, out, self._numpy, statistics, scores)
