"""The segments of an ensemble whose members arrive one after another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from fastcal import ops
from fastcal.core.members import Members
from fastcal.core.outputs import map_tensors
from fastcal.core.predictions import Predictions
from fastcal.core.problem import Finish, Reading, StateLayout
from fastcal.core.segment_problem import SegmentProblem
from fastcal.segments.measure import (
    MemberSegments,
    Prediction,
    label_type,
    measure,
    nothing,
    segment_sums,
)
from fastcal.segments.scores import SegmentScores
from fastcal.segments.settings import SegmentSettings


class SegmentStream:
    """Collect what segment scores need of each member beside the state of the ensemble.

    Args:
        settings: What the scores depend on.
        predictions: The shape and kind of the members.

    Raises:
        ValueError: The spacing is of another number of axes.
    """

    def __init__(self, settings: SegmentSettings, predictions: Predictions) -> None:
        batch_axes = 0 if predictions.class_dim == 0 else 1
        settings.check_axes(len(predictions.voxel_shape) - batch_axes)
        self._settings, self._predictions = settings, predictions
        self._members = MemberSegments([], [])

    @staticmethod
    def maps(space: str) -> tuple[str, ...]:
        """Names of the maps that the scores are made from; averaged logits lack some."""
        of_members = ("mutual_information",) if space == "prob" else ()
        return ("mean", "label", "entropy", *of_members)

    def with_maps(self, written: Mapping[str, Tensor], space: str) -> dict[str, Tensor]:
        """Give the maps that a pass writes, with those that only the scores need."""
        more = tuple(name for name in self.maps(space) if name not in written)
        tensors = map_tensors(more, None, self._predictions)
        return {**written, **dict(zip(more, tensors, strict=True))}

    def layout(self, maps: Iterable[str], space: str) -> StateLayout:
        """The state from which these maps and the scores can be finished."""
        of_scores = (*self.maps(space), "disagreement")  # whose votes are needed
        return StateLayout.for_maps(self._predictions.num_classes, (*maps, *of_scores))

    def add(self, member: Tensor, temperature: float, reading: Reading) -> None:
        """Measure the segments of one member, and keep its labels if pairs are wanted.

        Args:
            member: Logits or probabilities.
            temperature: As for the ensemble.
            reading: As for the ensemble.
        """
        predictions = self._predictions
        multilabel, classes = predictions.multilabel, predictions.num_classes
        label = predictions.empty(label_type(classes), classes=multilabel)
        mean = predictions.empty(predictions.real, classes=True)
        alone = reading._replace(space="prob")
        finish = Finish({"mean": mean, "label": label}, False, None)
        ops.ensemble_statistics([member], [1.0], [temperature], *alone.flatten(), *finish.flatten())
        labels = self._labels(label)
        problem = SegmentProblem(
            mean=self._with_classes(mean),
            label=labels,
            entropy=None,
            mutual_information=None,
            votes=None,
            interior=None,
            ignore_index=nothing(label.dtype, 2 if multilabel else classes),
            multilabel=multilabel,
            binary=False,
            clip=False,
        )
        self._members.sums.append(segment_sums(problem))
        if self._settings.pairs:
            self._members.labels.append(labels)

    def run(self, members: Members, reading: Reading, finish: Finish) -> SegmentScores:
        """Stream members that are all there, write maps and statistics, and give the scores.

        Args:
            members: The members.
            reading: How they are read.
            finish: What is written and counted besides.
        """
        predictions = self._predictions
        maps = self.with_maps(finish.maps, reading.space)
        layout = self.layout(maps, reading.space)
        state = predictions.zeros(layout.planes)
        total_weight = 0.0
        for member, weight, temperature in zip(
            members.tensors, members.weights, members.temperatures, strict=True
        ):
            ops.ensemble_accumulate(
                member, weight, temperature, *reading.flatten(), *layout.flatten(), state
            )
            total_weight += weight
            self.add(member, temperature, reading)
        ops.ensemble_finalize(
            state,
            len(members.tensors),
            total_weight,
            *reading.flatten(),
            *layout.flatten(),
            *finish._replace(maps=maps).flatten(),
        )
        return self.close(maps, state, layout, numpy=members.numpy)

    def close(
        self, maps: Mapping[str, Tensor], state: Tensor, layout: StateLayout, *, numpy: bool
    ) -> SegmentScores:
        """Compute the scores of the members so far. More may follow.

        Args:
            maps: Those of `with_maps`, which the pass has written.
            state: The state of the ensemble, ``[planes, *voxel shape]``.
            layout: Its planes.
            numpy: Give NumPy arrays.
        """
        votes = state[layout.votes_plane :][: layout.num_classes]
        information = maps.get("mutual_information")
        found = Prediction(
            mean=self._with_classes(maps["mean"]),
            label=self._labels(maps["label"]),
            entropy=self._of_voxels(maps["entropy"]),
            mutual_information=None if information is None else self._of_voxels(information),
            votes=votes[None] if self._predictions.class_dim == 0 else votes.transpose(0, 1),
            multilabel=self._predictions.multilabel,
        )
        return measure(found, self._settings, self._members, numpy=numpy)

    def _labels(self, label: Tensor) -> Tensor:
        if self._predictions.multilabel:
            return self._with_classes(label)
        return self._of_voxels(label)

    def _of_voxels(self, tensor: Tensor) -> Tensor:
        """Give a map as ``[B, *S]``; without a batch axis there is one volume."""
        return tensor[None] if self._predictions.class_dim == 0 else tensor

    def _with_classes(self, tensor: Tensor) -> Tensor:
        """Give what has a class axis as ``[B, C, *S]``."""
        axis = self._predictions.class_dim
        return tensor[None] if axis == 0 else tensor.movedim(axis, 1)
