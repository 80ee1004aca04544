"""Scores of made-up structures whose Dice follows from them, and folders that hold them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastcal.scores import ScoreTable

STRUCTURES = ("anterior", "posterior")


def table(n: int = 40, *, seed: int = 0, structures: Sequence[str] = STRUCTURES) -> ScoreTable:
    """Dice with logit ``3 - 6 H`` and noise, for every case and structure."""
    rng = np.random.default_rng(seed)
    cases = tuple(f"case_{k:03d}" for k in range(n) for _ in structures)
    entropy = rng.uniform(0.02, 0.6, len(cases))
    dice = 1 / (1 + np.exp(-(3 - 6 * entropy + rng.normal(0, 0.4, len(cases)))))
    scores = {
        "binary_entropy": entropy,
        "pairwise_dice": np.clip(1 - entropy + rng.normal(0, 0.05, len(cases)), 0, 1),
        "volume": rng.uniform(900, 1100, len(cases)),
    }
    return ScoreTable(cases, tuple(structures) * n, scores, dice)


def write_folder(folder: Path, made: ScoreTable) -> Path:
    """A prediction folder's ``segments.json``, and the ``summary.json`` of its evaluation."""
    folder.mkdir(parents=True, exist_ok=True)
    structures = made.structures_present
    keys = {name: str(number) for number, name in enumerate(structures, start=1)}
    cases: dict[str, dict[str, dict[str, float | None]]] = {}
    for row, (case, structure) in enumerate(zip(made.cases, made.structures, strict=True)):
        found = {name: float(column[row]) for name, column in made.scores.items()}
        cases.setdefault(case, {})[keys[structure]] = {
            name: None if np.isnan(value) else value for name, value in found.items()
        }
    names = {key: name for name, key in keys.items()}
    content = {"version": 1, "structures": ["0", *names], "names": names, "cases": cases}
    (folder / "segments.json").write_text(json.dumps(content))
    if made.dice is not None:
        metrics: dict[str, dict[str, dict[str, float]]] = {}
        for case, structure, dice in zip(made.cases, made.structures, made.dice, strict=True):
            metrics.setdefault(case, {})[keys[structure]] = {"Dice": float(dice)}
        summary = {
            "metric_per_case": [{"case": case, "metrics": one} for case, one in metrics.items()],
            "labels": names,
        }
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder
