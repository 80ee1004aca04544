"""Kernels give what they gave when these digests were saved, bit for bit."""

from __future__ import annotations

import json

import pytest
from engines import ENGINES, Engine, using
from saved_integers import FILE, compiler, from_logits, from_probabilities

SAVED = json.loads(FILE.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "engine",
    # The reference takes as long as the others together, and they are put to it in any run.
    [it if it.isa else pytest.param(it, marks=pytest.mark.slow) for it in ENGINES],
    ids=str,
)
def test_integers_counted_from_probabilities_are_those_saved(engine: Engine) -> None:
    with using(engine):
        assert dict(from_probabilities()) == SAVED["probabilities"]


@pytest.mark.parametrize("engine", [engine for engine in ENGINES if engine.isa], ids=str)
def test_maps_and_sums_from_logits_are_those_saved(engine: Engine) -> None:
    if engine.isa not in SAVED["logits"]:
        pytest.skip(f"nothing was saved for {engine.isa}: the machine that saved it has none")
    if compiler() != SAVED["compiler"]:
        pytest.skip(
            f"saved by {SAVED['compiler']}, built here by {compiler()}: it may contract otherwise"
        )
    with using(engine):
        assert dict(from_logits()) == SAVED["logits"][engine.isa]
