"""Bin edges: numpy.linspace, rounded once, the same however they are made."""

import numpy as np
import pytest
import torch

from fastcal.core import bins


def test_edges_are_those_of_linspace():
    assert np.array_equal(bins.edges(15), np.linspace(0, 1, 16))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_thresholds_are_the_interior_edges_rounded_once(dtype):
    for n_bins in (1, 2, 3, 10, 15, 20, 100):
        expected = torch.from_numpy(np.linspace(0, 1, n_bins + 1)[1:-1].copy()).to(dtype)
        assert torch.equal(bins.thresholds(n_bins, dtype), expected)


def test_thresholds_in_a_traced_graph_have_the_bits_of_linspace():
    for n_bins in range(1, 600):
        traced = [k * (1.0 / n_bins) for k in range(1, n_bins)]
        assert traced == bins.edges(n_bins)[1:-1].tolist(), n_bins


def test_a_compiled_graph_bins_with_the_same_thresholds():
    compiled = torch.compile(
        lambda x: x + bins.thresholds(15, torch.float32), fullgraph=True, backend="aot_eager"
    )
    assert torch.equal(compiled(torch.zeros(14)), bins.thresholds(15, torch.float32))


@pytest.mark.parametrize(
    ("n_bins", "closed", "error", "message"),
    [
        (0, "right", ValueError, "n_bins must be between"),
        (-3, "right", ValueError, "n_bins must be between"),
        (15.0, "right", TypeError, "n_bins must be an integer, got 15.0"),
        (True, "right", TypeError, "n_bins must be an integer, got True"),
        (15, "both", ValueError, "closed must be 'right' or 'left', got"),
    ],
)
def test_what_describes_no_bins_is_refused(n_bins, closed, error, message):
    with pytest.raises(error, match=message):
        bins.check_bins(n_bins, closed)
