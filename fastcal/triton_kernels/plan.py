"""What a kernel is compiled for (frozen records of switches), and its structured arguments."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import triton.language as tl

from fastcal.core.problem import MAP_TABLE, Extras, Finish, Reading, StateLayout
from fastcal.triton_kernels import policy


@dataclass(frozen=True, slots=True)
class MemberPlan:
    """Compile-time switches of the first stage; see `fastcal.core.problem` for their meaning."""

    real: Any
    """The accumulation type."""
    wide: bool
    """The accumulation type is float64."""
    classes: int
    block: int
    """Voxels of a block, one per lane."""
    softmax: bool
    """Classes share a denominator."""
    multilabel: bool
    from_logits: bool
    """Members hold logits, or become logits when they are read (`to_logits`)."""
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
    """Indices of voxels do not fit 32 bits."""


@dataclass(frozen=True, slots=True)
class FinishPlan:
    """Compile-time switches of the second stage."""

    wide: bool
    """The accumulation type is float64."""
    classes: int
    histogram_cells: int
    """Bins that are counted together."""
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
    """Voxels whose probabilities do not sum to 1 are counted."""
    ignore: bool
    left_closed: bool
    top_label: bool
    classwise: bool
    by_class: bool
    """Something is written or counted class by class."""
    regions: bool
    """Rows of regions follow the row that counts every voxel."""
    moments: bool
    fine_bins: int
    """Number of cells in a fine histogram; 0 for none."""
    entropies: bool
    """Entropies are counted."""


class MapViews(NamedTuple):
    """Where the maps are written; None where a map is not wanted."""

    mean: Any = None
    label: Any = None
    confidence: Any = None
    entropy: Any = None
    expected_entropy: Any = None
    mutual_information: Any = None
    variance: Any = None
    disagreement: Any = None


class CountViews(NamedTuple):
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
    """Words from one group of rows to the next; 0 where there is one group."""
    replica_words: Any
    """Words from one copy of the statistics to the next."""
    n_replicas: Any
    regions: Any
    """View of bytes, one bit per region, or None."""
    n_regions: Any
    region_words: Any
    """Words from one row of a group to the next."""
    moments: Any
    """First word of the second moments in a row."""
    fine_top_label: Any
    """First word of the fine top-label histogram in a row."""
    fine_classwise: Any
    """First word of the fine classwise histograms in a row."""
    entropies: Any
    """First word of the histogram of entropies in a row."""
    entropy_bins: Any
    entropy_scale: Any
    """Entropy bins per nat, a double as its bits."""


class Stage(NamedTuple):
    """What the second stage writes and counts, the same for all blocks, in a kernel."""

    maps: Any
    """`MapViews`."""
    count: Any
    """`CountViews`, or None where nothing is counted."""
    ignore_index: Any
    eps: Any
    """Lower clip of the likelihood, of the accumulation type."""
    n_cells: Any
    """Number of bins in a histogram."""
    n_members: Any
    """Number of members, of the accumulation type."""


def member_plan(
    reading: Reading,
    layout: StateLayout,
    dtype: torch.dtype,
    weights: list[float],
    temperatures: list[float],
    *,
    block: int,
    index_64: bool,
) -> MemberPlan:
    """Choose the switches of a launch whose members are all read the same way."""
    scaled = any(t != 1.0 for t in temperatures)
    to_logits = not reading.from_logits and (scaled or reading.space == "logit")
    wide = dtype == torch.float64
    return MemberPlan(
        real=tl.float64 if wide else tl.float32,
        wide=wide,
        classes=layout.num_classes,
        block=block,
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


def finish_plan(reading: Reading, finish: Finish, members: MemberPlan) -> FinishPlan:
    """Choose the switches of the second stage, given those of the first."""
    softmax = reading.activation == "softmax" and not reading.multilabel
    check_range = not reading.from_logits and reading.space == "prob"
    counting = finish.counting
    calibration = None if counting is None else counting.calibration
    extras = Extras() if counting is None else counting.extras
    return FinishPlan(
        wide=members.wide,
        classes=members.classes,
        histogram_cells=policy.HISTOGRAM_CELLS,
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
        or any(MAP_TABLE[name].has_class_axis(reading.multilabel) for name in finish.maps),
        regions=counting is not None and counting.n_regions > 0,
        moments=extras.moments,
        fine_bins=extras.fine_bins,
        entropies=extras.entropy_bins > 0,
    )


def bits(value: float) -> int:
    """Give the 64 bits of a double. A Python float would reach a kernel as float32."""
    (word,) = struct.unpack("<q", struct.pack("<d", value))
    return int(word)
