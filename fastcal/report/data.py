"""The numbers behind a page as plain data, which the page holds as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastcal.calibration.metrics import METRICS
from fastcal.core.arrays import Floats
from fastcal.report.chosen import Chosen
from fastcal.report.claims import Sign
from fastcal.report.cohort import Cohort
from fastcal.report.gaps import Gaps
from fastcal.report.measured import Measured
from fastcal.report.quantities import Numbers, outcome

VERSION = 1


def page_data(
    numbers: Numbers,
    gaps: Mapping[str, Mapping[str, Gaps]],
    signs: Sequence[Sign],
    chosen: Sequence[Chosen],
    sentences: Sequence[str],
) -> dict[str, Any]:
    """Return everything that a page says, for programs.

    Args:
        numbers: What the models scored.
        gaps: Reliability by region and title of the model.
        signs: The paper's claims.
        chosen: Cases that are singled out.
        sentences: The verdict.

    Returns:
        Plain values: errors are fractions, NLL is in nats, NaN is None.
    """
    cohort = numbers.cohort
    return {
        "version": VERSION,
        "title": cohort.title,
        "verdict": list(sentences),
        "structures": list(cohort.structures),
        "classes": list(cohort.classes),
        "cases": list(cohort.cases),
        "models": [
            {"title": m.title, "group": m.group, "kind": m.kind, "size": m.size}
            for m in cohort.models
        ],
        "numbers": [
            {"model": model, "measure": measure, "region": region, **_number(found)}
            for (model, measure, region), found in numbers.table.items()
        ],
        "dice_of_structures": [
            {"model": model, "structure": structure, **_number(found)}
            for (model, structure), found in numbers.by_structure.items()
        ],
        "differences": _differences(numbers),
        "reliability": [
            {"region": region, "model": title, **_bins(one)}
            for region, found in gaps.items()
            for title, one in found.items()
        ],
        "entropy": {m.title: _rows(m.entropy) for m in cohort.models if m.entropy is not None},
        "dice": {m.title: _rows(m.dice) for m in cohort.models},
        "chosen": [{"case": c.case, "role": c.role, "reason": c.reason} for c in chosen],
        "findings": [
            {
                "claim": sign.claim,
                "verdict": sign.verdict,
                "tests": [
                    {
                        "name": test.name,
                        "numbers": test.numbers,
                        "value": _finite(test.value),
                        "low": _finite(test.low),
                        "high": _finite(test.high),
                        "limit": test.limit,
                        "verdict": test.verdict,
                    }
                    for test in sign.tests
                ],
            }
            for sign in signs
        ],
        "provenance": _provenance(cohort),
    }


def as_script(data: Mapping[str, Any]) -> str:
    r"""Return data as JSON that may stand between the tags of a script.

    Example:
        >>> as_script({"a": "</script>"})
        '{"a":"\\u003c/script\\u003e"}'
    """
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _number(found: Measured) -> dict[str, Any]:
    low, high = found.interval
    return {"estimate": _finite(found.estimate), "low": _finite(low), "high": _finite(high)}


def _differences(numbers: Numbers) -> list[dict[str, Any]]:
    found = []
    for first, second in numbers.pairs:
        for region in numbers.regions:
            for measure in numbers.measures:
                between = numbers.difference(first, second, measure, region)
                if between is None or (measure == "dice" and region):
                    continue
                found.append(
                    {
                        "first": first.title,
                        "second": second.title,
                        "measure": measure,
                        "region": region,
                        "estimate": _finite(between.estimate),
                        "low": _finite(between.low),
                        "high": _finite(between.high),
                        "p_value": _finite(between.p_value),
                        "better": METRICS[measure].better,
                        "outcome": outcome(measure, between),
                    }
                )
    return found


def _bins(gaps: Gaps) -> dict[str, Any]:
    return {
        "edges": gaps.curve.edges.tolist(),
        "count": gaps.curve.count.tolist(),
        "confidence": _list(gaps.curve.mean_confidence),
        "accuracy": _list(gaps.curve.accuracy),
        "part": _list(gaps.parts),
        "part_low": _list(gaps.low),
        "part_high": _list(gaps.high),
    }


def _provenance(cohort: Cohort) -> dict[str, Any]:
    about = cohort.about
    return {
        "command": about.command,
        "software": about.software,
        "settings": {name: str(value) for name, value in about.settings.items()},
        "inputs": dict(about.inputs),
    }


def _rows(values: Floats) -> list[list[float | None]]:
    return [_list(row) for row in values]


def _list(values: Floats) -> list[float | None]:
    return [_finite(float(value)) for value in np.asarray(values)]


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
