"""What a kernel is compiled for: one frozen record of switches, and the arguments beside it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import triton.language as tl

from fastcal.core.problem import Extras, Finish, Reading, StateLayout


@dataclass(frozen=True, slots=True)
class Plan:
    """Compile-time switches; see `fastcal.core.problem` for what they mean."""

    real: Any
    """Accumulation type."""
    wide: bool
    """The accumulation type is float64."""
    softmax: bool
    """Classes share a denominator."""
    multilabel: bool
    from_logits: bool
    """Members hold logits, or become logits when read (`to_logits`)."""
    to_logits: bool
    logit_space: bool
    weighted: bool
    """Some weight is not 1."""
    scaled: bool
    """Some temperature is not 1."""
    entropy: bool
    square: bool
    votes: bool
    index_64: bool


@dataclass(frozen=True, slots=True)
class FinishPlan:
    """Compile-time switches of the second stage."""

    softmax: bool
    multilabel: bool
    logit_space: bool
    normalise: bool
    check_range: bool
    """Mean probabilities may lie outside [0, 1]."""
    entropy: bool
    """The entropy of the mean is wanted."""
    count: bool
    check_sum: bool
    ignore: bool
    left_closed: bool
    top_label: bool
    classwise: bool
    by_class: bool
    """Something is written or counted class by class."""
    regions: bool
    """Rows of regions follow the row of everything."""
    moments: bool
    fine_bins: int
    """Cells of the fine histograms; 0 for none."""
    entropies: bool
    """Entropies are counted."""


class MapViews(NamedTuple):
    """Where the maps go; None where one is not wanted."""

    mean: Any = None
    label: Any = None
    confidence: Any = None
    entropy: Any = None
    expected_entropy: Any = None
    mutual_information: Any = None
    variance: Any = None
    disagreement: Any = None


class Count(NamedTuple):
    """What the statistics stage reads and writes."""

    target: Any
    """View of integers."""
    mask: Any
    """View of bytes, or None."""
    thresholds: Any
    """Pointer to the interior bin edges, of the accumulation type."""
    words: Any
    """Pointer to int64 ``[replicas, rows, words]``."""
    row_words: Any
    """Words from one row to the next; 0 where there is one row."""
    replica_words: Any
    n_replicas: Any
    regions: Any
    """View of bytes, a bit a region, or None."""
    n_regions: Any
    region_words: Any
    """Words from the row of everything to that of the first region, and from one to the next."""
    moments: Any
    """First word of the second moments in a row, as for the next three."""
    fine_top_label: Any
    fine_classwise: Any
    entropies: Any
    entropy_bins: Any
    entropy_scale: Any
    """Bins a nat, a double as its bits."""


def member_plan(
    reading: Reading,
    layout: StateLayout,
    dtype: torch.dtype,
    weights: list[float],
    temperatures: list[float],
    index_64: bool,
) -> Plan:
    """The switches of a launch whose members are all read the same way."""
    scaled = any(t != 1.0 for t in temperatures)
    to_logits = not reading.from_logits and (scaled or reading.space == "logit")
    wide = dtype == torch.float64
    return Plan(
        real=tl.float64 if wide else tl.float32,
        wide=wide,
        softmax=reading.activation == "softmax" and not reading.multilabel,
        multilabel=reading.multilabel,
        from_logits=reading.from_logits or to_logits,
        to_logits=to_logits,
        logit_space=reading.space == "logit",
        weighted=any(w != 1.0 for w in weights),
        scaled=scaled,
        entropy=layout.entropy,
        square=layout.square,
        votes=layout.votes,
        index_64=index_64,
    )


def finish_plan(reading: Reading, finish: Finish) -> FinishPlan:
    softmax = reading.activation == "softmax" and not reading.multilabel
    check_range = not reading.from_logits and reading.space == "prob"
    counting = finish.counting
    calibration = None if counting is None else counting.calibration
    extras = Extras() if counting is None else counting.extras
    return FinishPlan(
        softmax=softmax,
        multilabel=reading.multilabel,
        logit_space=reading.space == "logit",
        normalise=finish.normalise and not reading.multilabel,
        check_range=check_range,
        entropy=bool({"entropy", "mutual_information"} & finish.maps.keys()),
        count=counting is not None,
        check_sum=counting is not None
        and not reading.from_logits
        and softmax
        and not finish.normalise,
        ignore=counting is not None and counting.ignore_index is not None,
        left_closed=counting is not None and counting.left_closed,
        top_label=calibration in ("both", "top-label"),
        classwise=calibration in ("both", "classwise"),
        by_class=counting is not None
        or "mean" in finish.maps
        or (reading.multilabel and bool({"label", "confidence"} & finish.maps.keys())),
        regions=counting is not None and counting.n_regions > 0,
        moments=extras.moments,
        fine_bins=extras.fine_bins,
        entropies=extras.entropy_bins > 0,
    )


def bits(value: float) -> int:
    """The 64 bits of a double: kernels take Python floats as float32 only."""
    (word,) = struct.unpack("<q", struct.pack("<d", value))
    return int(word)
