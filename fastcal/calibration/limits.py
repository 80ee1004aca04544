"""What rows of integers can hold, and what they must be to have been counted."""

from __future__ import annotations

import numpy as np

from fastcal.calibration.settings import CalibrationSettings
from fastcal.calibration.values import LOW_BITS, Integers, carried
from fastcal.core.problem import StatisticsLayout

MOST_DECISIONS = 1 << 56
"""Voxels times classes. Errors in per cent are summed over bins and classes in 64 bits."""

MOST_SUM = 1 << 62
"""Whole part of any sum. The sum of two of them does not overflow."""


def check_room(rows: Integers, settings: CalibrationSettings) -> None:
    """Check that rows hold no more than every metric can be computed from exactly.

    Raises:
        ValueError: A count or a sum is too large.
    """
    most = MOST_DECISIONS // settings.num_classes
    n_voxels = int(rows[..., StatisticsLayout.N_VOXELS].max(initial=0))
    if n_voxels > most:
        raise ValueError(
            f"statistics of {settings.num_classes} classes must hold at most {most} voxels, "
            f"got {n_voxels}"
        )
    largest = largest_word(rows)
    if largest >= MOST_SUM:
        raise ValueError(f"sums of statistics must be below 2^62, got {largest}")


def largest_word(rows: Integers) -> int:
    """Return the largest absolute value of a word."""
    return max(int(rows.max(initial=0)), -int(rows.min(initial=0)))


def check_counted(total: Integers, groups: Integers, settings: CalibrationSettings) -> None:
    """Check that rows can have been counted.

    Args:
        total: Pooled rows, ``[1 + R, W]``.
        groups: Rows of each case, ``[n_cases, 1 + R, W]``.
        settings: What is counted.

    Raises:
        ValueError: A count is negative or larger than what it is a part of, a fraction is not in
            [0, 2^40), a sum does not fit its count, or the total is not that of its cases.
    """
    check_room(total, settings)
    check_room(groups, settings)
    _check_rows("total", total, settings)
    if len(groups):
        _check_rows("case_rows", groups, settings)
        _check_cases(total, groups, settings.layout)


def _check_rows(name: str, rows: Integers, settings: CalibrationSettings) -> None:
    layout = settings.layout
    low = rows[..., layout.low_words]
    if ((low < 0) | (low > LOW_BITS)).any():
        raise ValueError(
            f"fractions of {name} must lie in [0, 2^40), got {low.min()} to {low.max()}"
        )
    counts = rows[..., _count_words(layout)]
    if (counts < 0).any():
        raise ValueError(f"counts of {name} must not be negative, got {counts.min()}")
    voxels = rows[..., layout.N_VOXELS]
    decisions = voxels * settings.num_classes if settings.multilabel else voxels
    _check_part(name, "correct decisions", rows[..., layout.N_CORRECT], decisions)
    for what in ("predicted", "reference"):
        part = rows[..., getattr(layout, what)]
        _check_part(name, f"{what} voxels", part, voxels[..., None])
        _check_part(name, "true positives", rows[..., layout.true_positive], part)
    leading = rows.shape[:-1]
    for what, whole in (("top_label", decisions), ("classwise", voxels)):
        words = rows[..., getattr(layout, what)]
        if words.size == 0:
            continue
        cells = words.reshape(*leading, -1, layout.n_cells, 4)
        count, hits, sums = cells[..., 0], cells[..., 1], cells[..., 2]
        _check_part(name, f"hits of {what} bins", hits, count)
        _check_part(name, f"sums of {what} bins", np.abs(sums), 2 * count)
        if (count.sum(-1) != whole[..., None]).any():
            raise ValueError(f"counts of {what} bins of {name} must add up to its voxels")
    for what in ("fine_top_label", "fine_classwise", "entropy"):
        words = rows[..., getattr(layout, what)]
        _check_part(name, f"hits of {what} cells", words[..., 1::2], words[..., ::2])


def _check_cases(total: Integers, groups: Integers, layout: StatisticsLayout) -> None:
    cases = groups.sum(0)
    counts = _count_words(layout)
    _check_part("case_rows", "counts", cases[:, counts], total[:, counts])
    if cases[0, layout.N_VOXELS] == total[0, layout.N_VOXELS]:
        # Voxels that were left out may lack a case where all that were counted have one.
        words = [word for word in range(layout.words) if not _of_left_out(word)]
        if not np.array_equal(carried(cases, layout)[:, words], total[:, words]):
            raise ValueError("total must be the sum of case_rows, got another")


def _of_left_out(word: int) -> bool:
    return StatisticsLayout.N_INVALID <= word < StatisticsLayout.HEADER


def _count_words(layout: StatisticsLayout) -> list[int]:
    low = set(layout.low_words)
    return [word for word in range(layout.words) if word not in low and word + 1 not in low]


def _check_part(name: str, what: str, part: Integers, whole: Integers) -> None:
    if (part > whole).any():
        where = np.argmax(part - whole)
        got = f"{part.flat[where]} of {np.broadcast_to(whole, part.shape).flat[where]}"
        raise ValueError(f"{what} of {name} must lie within what they are part of, got {got}")
