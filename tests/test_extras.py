"""What is counted when asked for: fine cells, second moments, entropies of right and wrong."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch
from engines import on_every_engine
from hypothesis import given
from hypothesis import strategies as st
from members import arranged, exact, labels, probabilities
from torch import Tensor

import fastcal
from fastcal import CalibrationStatistics
from fastcal.core.problem import FRACTION_BITS

EXTRAS = {"fine_bins": 1024, "moments": True, "entropy_bins": 9}


def saturated(n_classes: int, shape: tuple[int, ...], dtype: torch.dtype, multilabel: bool):
    """Probabilities from 1e-30 to 1 with exact zeros, halves and ones, ``[2, C, *S]``."""
    (p,) = probabilities(1, n_classes, shape, dtype=dtype, scale=12.0, exclusive=not multilabel)
    p = p.clone()
    p[0, 0].reshape(-1)[:6] = torch.tensor([0.0, 1.0, 0.5, 2**-33, 1 - 2**-24, 1e-45]).to(dtype)
    return p


def rows(statistics: CalibrationStatistics) -> np.ndarray:
    return statistics.state_dict()["total"].numpy()


def sums(words: np.ndarray) -> np.ndarray:
    """Reals of pairs of words ``[..., 2]``."""
    return words[..., 0] + words[..., 1] * 2.0**-FRACTION_BITS


@on_every_engine
@pytest.mark.filterwarnings("ignore:.*do not sum to 1")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n_classes", "multilabel"), [(3, False), (2, True), (1, True)])
def test_extras_are_counted_as_the_oracle_counts(n_classes, multilabel, dtype):
    p = saturated(n_classes, (7, 53), dtype, multilabel)
    y = labels(2 if multilabel else n_classes, p.shape if multilabel else (2, 7, 53), seed=3)
    statistics = CalibrationStatistics(n_classes, multilabel=multilabel, **EXTRAS)
    statistics.update(p, y)
    row, layout = rows(statistics), statistics.state.layout

    flat, truth = np.moveaxis(exact(p), 1, -1).reshape(-1, n_classes), y.numpy()
    if multilabel:
        truth = np.moveaxis(truth, 1, -1).reshape(-1, n_classes).astype(bool)
        confidence = np.moveaxis(exact(torch.maximum(p, 1 - p)), 1, -1).reshape(-1, n_classes)
        correct = (flat > 0.5) == truth
        entropy = -oracle.p_ln_p(flat) - oracle.p_ln_p(1 - flat)
    else:
        correct = flat.argmax(1) == truth.ravel()
        truth = truth.reshape(-1, 1) == np.arange(n_classes)
        confidence, entropy = flat.max(1), -oracle.p_ln_p(flat).sum(1)

    def cells(p: np.ndarray, hit: np.ndarray) -> np.ndarray:
        cell = oracle.fine_cells(p.ravel(), 1024)
        return np.stack([np.bincount(c, minlength=1024) for c in (cell, cell[hit.ravel()])], 1)

    fine = row[layout.fine_top_label].reshape(-1, 2)
    np.testing.assert_array_equal(fine, cells(confidence, correct))
    edges = oracle.edges(15, np.float32 if dtype == torch.float32 else np.float64)
    for k in range(n_classes):
        fine = row[layout.fine_classwise].reshape(n_classes, -1, 2)[k]
        np.testing.assert_array_equal(fine, cells(flat[:, k], truth[:, k]))
        moments = sums(row[layout.moments].reshape(n_classes, 15, 2, 2)[k])
        squares = oracle.histogram(flat[:, k], truth[:, k], edges)
        cell = np.searchsorted(edges[1:-1], flat[:, k])
        want = [np.bincount(cell, w, 15) for w in (flat[:, k] ** 2, flat[:, k] * truth[:, k])]
        np.testing.assert_array_equal(np.bincount(cell, minlength=15), squares.count)
        np.testing.assert_allclose(moments, np.stack(want, 1), rtol=0, atol=1e-9)

    top = np.log(2 if multilabel else n_classes)
    bin_of = np.clip(np.floor(entropy.ravel() * 9 / top), 0, 8).astype(int)
    counted = row[layout.entropy].reshape(-1, 2)
    np.testing.assert_array_equal(counted[:, 0], np.bincount(bin_of, minlength=9))
    np.testing.assert_array_equal(counted[:, 1], np.bincount(bin_of[correct.ravel()], minlength=9))


@on_every_engine
@pytest.mark.filterwarnings("ignore:.*do not sum to 1")
@pytest.mark.parametrize(("closed", "n_bins"), [("right", 15), ("left", 15), ("right", 100)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_extras_have_the_bits_of_the_reference(dtype, closed, n_bins):
    p, y = saturated(4, (9, 37), dtype, False), labels(4, (2, 9, 37))
    mask = torch.rand(2, 9, 37, generator=torch.Generator().manual_seed(1)) < 0.8

    def counted(layout: str) -> np.ndarray:
        statistics = CalibrationStatistics(4, n_bins=n_bins, closed=closed, **EXTRAS)
        statistics.update(arranged(p, layout), y, mask=mask, case_id=[1, 2], ignore_index=3)
        return rows(statistics)

    with fastcal.backend("reference"):
        expected = counted("contiguous")
    for layout in ("contiguous", "channels_last"):
        np.testing.assert_array_equal(counted(layout), expected)


@given(seed=st.integers(0, 9), split=st.integers(1, 40), threads=st.sampled_from([1, 3]))
def test_chunks_and_merges_give_the_same_bits(seed, split, threads):
    (p,) = probabilities(1, 3, (41,), seed=seed)
    y = labels(3, (2, 41), seed=seed)
    whole = CalibrationStatistics(3, **EXTRAS)
    whole.update(p, y, case_id=["a", "b"])
    parts = [CalibrationStatistics(3, **EXTRAS) for _ in range(2)]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        parts[0].update(p[:, :, split:], y[:, split:], case_id=["a", "b"])
        parts[1].update(p[:, :, :split], y[:, :split], case_id=["a", "b"])
    finally:
        torch.set_num_threads(before)
    assert parts[0] + parts[1] == whole


def test_extras_change_nothing_else():
    (p,), y = probabilities(1, 3, (97,)), labels(3, (2, 97))
    plain, extra = CalibrationStatistics(3), CalibrationStatistics(3, **EXTRAS)
    for statistics in (plain, extra):
        statistics.update(p, y)
    words = plain.state.layout.words
    np.testing.assert_array_equal(rows(extra)[:words], rows(plain))
    with pytest.raises(ValueError, match="same settings, got fine_bins"):
        plain.merge(extra)


@pytest.mark.parametrize("suffix", [".npz", ".json"])
def test_extras_are_saved_and_loaded(suffix, tmp_path):
    (p,), y = probabilities(1, 3, (97,)), labels(3, (2, 97))
    statistics = CalibrationStatistics(3, fine_bins=64, moments=True, entropy_bins=4)
    statistics.update(p, y, case_id=["a", "b"])
    statistics.save(tmp_path / f"found{suffix}")
    assert CalibrationStatistics.load(tmp_path / f"found{suffix}") == statistics


def test_streaming_counts_the_extras_of_one_shot():
    members, y = probabilities(3, 3, (5, 31)), labels(3, (2, 5, 31))
    once = fastcal.ensemble_statistics(members, y, maps=(), from_logits=False, **EXTRAS)
    stream = fastcal.EnsembleAccumulator(maps=(), from_logits=False)
    for member in members:
        stream.update(member)
    assert stream.finalize(y, **EXTRAS).calibration == once.calibration


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fine_bins": 1000}, "fine_bins must be 0 or a power of two"),
        ({"fine_bins": 32}, "fine_bins must be 0 or a power of two"),
        ({"moments": True, "calibration": "top-label"}, "moments must be False with"),
        ({"entropy_bins": -1}, "entropy_bins must be between"),
        ({"regions": ["a", "a"]}, "different, non-empty names"),
        ({"regions": list("abcdefghi")}, "at most 8"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        CalibrationStatistics(3, **options)


def test_extras_need_a_target():
    members: list[Tensor] = probabilities(2, 3, (9,))
    with pytest.raises(ValueError, match="target must be given with fine_bins"):
        fastcal.ensemble_statistics(members, from_logits=False, fine_bins=64)
