"""What maps keep when members or classes are permuted, and bounds that they keep."""

from __future__ import annotations

import math

import torch
from engines import on_every_engine
from hypothesis import given
from hypothesis import strategies as st
from map_checks import FLOATS, MAPS
from members import logits

import fastcal


@on_every_engine
@given(
    st.integers(2, 6),
    st.integers(2, 9),
    st.integers(1, 70),
    st.floats(0.01, 30),
    st.integers(0, 2**31),
    st.randoms(use_true_random=False),
)
def test_maps_are_unchanged_when_members_are_permuted(
    n_members, n_classes, size, scale, seed, random
):
    members = logits(n_members, n_classes, (size,), batch=1, scale=scale, seed=seed)
    shuffled = random.sample(members, n_members)
    a = fastcal.ensemble_statistics(members, maps=MAPS)
    b = fastcal.ensemble_statistics(shuffled, maps=MAPS)
    for name in FLOATS:
        if name != "disagreement":
            torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=0, atol=2e-6)
    assert torch.equal(a.disagreement, b.disagreement)


@on_every_engine
@given(st.integers(1, 6), st.integers(2, 9), st.integers(1, 70), st.integers(0, 2**31))
def test_maps_keep_their_bounds(n_members, n_classes, size, seed):
    members = logits(n_members, n_classes, (size,), batch=1, scale=20, seed=seed)
    got = fastcal.ensemble_statistics(members, maps=MAPS)
    assert (got.mutual_information >= 0).all()
    assert (got.entropy <= math.log(n_classes) + 1e-6).all()
    assert (got.entropy >= -1e-6).all()
    assert (got.confidence >= 1 / n_classes - 1e-6).all()
    assert (got.confidence <= 1 + 1e-6).all()
    assert (got.variance >= 0).all()
    assert ((got.disagreement >= 0) & (got.disagreement <= 1 - 1 / n_members + 1e-6)).all()
    assert torch.equal(got.confidence, got.mean.amax(1))
    assert torch.equal(got.label, got.mean.argmax(1))


@on_every_engine
@given(st.integers(2, 6), st.integers(1, 5), st.integers(0, 2**31))
def test_permuting_classes_permutes_the_mean_and_leaves_the_entropy(n_classes, n_members, seed):
    members = logits(n_members, n_classes, (40,), batch=1, seed=seed)
    order = torch.randperm(n_classes, generator=torch.Generator().manual_seed(seed))
    a = fastcal.ensemble_statistics(members, maps=MAPS)
    b = fastcal.ensemble_statistics([m[:, order] for m in members], maps=MAPS)
    torch.testing.assert_close(b.mean, a.mean[:, order], rtol=0, atol=1e-6)
    torch.testing.assert_close(b.entropy, a.entropy, rtol=0, atol=2e-6)
    torch.testing.assert_close(b.confidence, a.confidence, rtol=0, atol=1e-6)


@on_every_engine
def test_weights_are_relative():
    members = logits(3, 4, (50,))
    a = fastcal.ensemble_entropy(members, weights=[1.0, 2.0, 4.0])
    b = fastcal.ensemble_entropy(members, weights=[0.25, 0.5, 1.0])
    assert torch.equal(a, b)


@on_every_engine
def test_a_weight_of_zero_leaves_a_member_out():
    members = logits(3, 4, (50,))
    a = fastcal.ensemble_mean(members, weights=[1.0, 0.0, 1.0])
    b = fastcal.ensemble_mean([members[0], members[2]])
    assert torch.equal(a, b)
