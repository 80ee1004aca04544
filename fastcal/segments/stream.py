"""The segments of an ensemble whose members arrive one after another."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fastcal import ops
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
    """

    def __init__(self, settings: SegmentSettings) -> None:
        self._settings = settings
        self._members = MemberSegments([], [])

    @staticmethod
    def maps(space: str) -> tuple[str, ...]:
        """Names of the maps that the scores are made from; averaged logits lack some."""
        of_members = ("mutual_information",) if space == "prob" else ()
        return ("mean", "label", "entropy", *of_members)

    @staticmethod
    def layout(predictions: Predictions, maps: tuple[str, ...], space: str) -> StateLayout:
        """The state from which these maps and the scores can be finished."""
        of_scores = (*SegmentStream.maps(space), "disagreement")  # whose votes are needed
        return StateLayout.for_maps(predictions.num_classes, (*maps, *of_scores))

    def check(self, predictions: Predictions) -> None:
        """Check that the settings fit the members.

        Raises:
            ValueError: The spacing is of another number of axes.
        """
        batch_axes = 0 if predictions.class_dim == 0 else 1
        self._settings.check_axes(len(predictions.voxel_shape) - batch_axes)

    def add(
        self, member: Tensor, temperature: float, reading: Reading, predictions: Predictions
    ) -> None:
        """Measure the segments of one member, and keep its labels if pairs are wanted.

        Args:
            member: Logits or probabilities.
            temperature: As for the ensemble.
            reading: As for the ensemble.
            predictions: The shape and kind of the member.
        """
        multilabel, classes = predictions.multilabel, predictions.num_classes
        label = torch.empty(
            predictions.shape if multilabel else predictions.voxel_shape,
            dtype=label_type(classes),
            device=predictions.device,
        )
        mean = torch.empty(predictions.shape, dtype=predictions.real, device=predictions.device)
        alone = reading._replace(space="prob")
        finish = Finish({"mean": mean, "label": label}, False, None)
        ops.ensemble_statistics([member], [1.0], [temperature], *alone.flatten(), *finish.flatten())
        labels = _class_second(label, predictions) if multilabel else _batched(label, predictions)
        problem = SegmentProblem(
            _class_second(mean, predictions),
            labels,
            *(None, None, None, None),
            nothing(label.dtype, 2 if multilabel else classes),
            multilabel,
            False,
            False,
        )
        self._members.sums.append(segment_sums(problem))
        if self._settings.pairs:
            self._members.labels.append(labels)

    def close(
        self,
        maps: Mapping[str, Tensor],
        state: Tensor,
        layout: StateLayout,
        predictions: Predictions,
        *,
        numpy: bool,
    ) -> SegmentScores:
        """Compute the scores of the members so far. More may follow.

        Args:
            maps: The maps of `maps` by name, among others.
            state: The state of the ensemble, ``[planes, *voxel shape]``.
            layout: Its planes.
            predictions: The shape and kind of the members.
            numpy: Give NumPy arrays.
        """
        multilabel = predictions.multilabel
        votes = state[layout.votes_plane :][: predictions.num_classes]
        information = maps.get("mutual_information")
        with_classes = _class_second(maps["label"], predictions) if multilabel else None
        found = Prediction(
            _class_second(maps["mean"], predictions),
            _batched(maps["label"], predictions) if with_classes is None else with_classes,
            _batched(maps["entropy"], predictions),
            None if information is None else _batched(information, predictions),
            votes[None] if predictions.class_dim == 0 else votes.transpose(0, 1),
            multilabel,
        )
        return measure(found, self._settings, self._members, numpy=numpy)


def _batched(tensor: Tensor, predictions: Predictions) -> Tensor:
    """Give a map ``[B, *S]``; without a batch axis there is one volume."""
    return tensor[None] if predictions.class_dim == 0 else tensor


def _class_second(tensor: Tensor, predictions: Predictions) -> Tensor:
    """Give what has a class axis as ``[B, C, *S]``."""
    axis = predictions.class_dim
    return tensor[None] if axis == 0 else tensor.movedim(axis, 1)
