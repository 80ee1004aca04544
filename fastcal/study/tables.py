"""The numbers of a study as rows for CSV files, and as one JSON document."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from fastcal.study.comparison import DROPOUT, ENSEMBLE, QUANTITIES, SINGLE, Comparison
from fastcal.study.design import LOSSES

if TYPE_CHECKING:
    from fastcal.study.found import Results

Row = Mapping[str, Any]


def tables(results: Results) -> dict[str, list[Row]]:
    """Return the rows of every table by its name."""
    return {
        "scores": list(_scores(results.comparison)),
        "cases": list(_cases(results.comparison)),
        "differences": list(_differences(results.comparison)),
        "segments": list(_entropy(results)),
        "entropy_fits": list(_fits(results)),
        "failures": list(_failures(results)),
        "coverage": list(_coverages(results)),
        "outside": list(_outside(results)),
        "lengths": list(_lengths(results)),
        "claims": list(_claims(results)),
        "stages": [asdict(stage) for stage in results.times],
    }


def csv_text(rows: Sequence[Row]) -> str:
    """Return rows as CSV; NaN is an empty cell."""
    out = io.StringIO()
    names = list(rows[0]) if rows else []
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(value) for name, value in row.items()})
    return out.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.6g}"
    return value


def as_json(results: Results) -> dict[str, Any]:
    """Return everything but the numbers of single cases, which are in the CSV files."""
    found = tables(results)
    held = (
        "scores",
        "differences",
        "entropy_fits",
        "failures",
        "coverage",
        "outside",
        "lengths",
        "stages",
    )
    return {
        "version": 1,
        "title": results.title,
        "split": dict(zip(("train", "val", "test"), results.split, strict=True)),
        "from_outside": results.outside,
        "members": results.members,
        **asdict(results.origin),
        "claims": [
            {
                "claim": sign.claim,
                "verdict": sign.verdict,
                "tests": [{**asdict(test), "verdict": test.verdict} for test in sign.tests],
            }
            for sign in results.signs
        ],
        **{name: found[name] for name in held},
    }


def _scores(comparison: Comparison) -> Iterator[Row]:
    for model in comparison.models:
        for quantity in QUANTITIES:
            measured = model.measured[quantity]
            low, high = measured.interval
            undefined, of = model.undefined.get(
                quantity.measure,
                (int(np.isnan(measured.per_case).sum()), len(measured.per_case)),
            )
            yield {
                "loss": model.loss,
                "model": model.kind,
                "size": model.size,
                "draws": model.draws,
                "measure": quantity.measure,
                "region": quantity.region,
                "value": measured.estimate,
                "low": low,
                "high": high,
                "values": of - undefined,
                "undefined": undefined,
            }


def _cases(comparison: Comparison) -> Iterator[Row]:
    for model in comparison.shown:
        for place, case in enumerate(comparison.cases):
            values = {
                f"{quantity.measure}{' ' + quantity.region if quantity.region else ''}": float(
                    model.measured[quantity].per_case[place]
                )
                for quantity in QUANTITIES
            }
            yield {"loss": model.loss, "model": model.kind, "case": case, **values}


def _differences(comparison: Comparison) -> Iterator[Row]:
    pairs = [
        *((ENSEMBLE, loss, SINGLE, loss) for loss in LOSSES),
        *((ENSEMBLE, loss, DROPOUT, loss) for loss in LOSSES),
        *((kind, "dice", kind, "ce") for kind in (SINGLE, DROPOUT, ENSEMBLE)),
    ]
    for kind, loss, other_kind, other_loss in pairs:
        first, second = comparison.of(loss, kind), comparison.of(other_loss, other_kind)
        for quantity in QUANTITIES:
            found = comparison.difference(quantity, first, second)
            yield {
                "first": f"{loss} {kind}",
                "second": f"{other_loss} {other_kind}",
                "measure": quantity.measure,
                "region": quantity.region,
                "difference": found.estimate,
                "low": found.low,
                "high": found.high,
                "wilcoxon_p": found.p_value,
                "cases": found.n_cases,
            }


def _entropy(results: Results) -> Iterator[Row]:
    for fit in results.fits:
        table = fit.table
        assert table.dice is not None
        for place, (case, structure) in enumerate(zip(table.cases, table.structures, strict=True)):
            yield {
                "loss": fit.loss,
                "model": fit.model,
                "case": case,
                "structure": structure,
                "dice": float(table.dice[place]),
                **{name: float(values[place]) for name, values in table.scores.items()},
            }


def _fits(results: Results) -> Iterator[Row]:
    for fit in results.fits:
        yield {
            "loss": fit.loss,
            "model": fit.model,
            "n": fit.line.n,
            "slope": fit.line.slope,
            "intercept": fit.line.intercept,
            "residual_sd": fit.line.spread,
            "r": fit.r.value,
            "low": fit.r.low,
            "high": fit.r.high,
            "p": fit.line.p_value,
        }


def _failures(results: Results) -> Iterator[Row]:
    for one in results.failures:
        for name, found in one.measures.items():
            yield {
                "loss": one.loss,
                "score": one.score,
                "measure": name,
                "value": found.value,
                "low": found.low,
                "high": found.high,
                "reason": found.reason or "",
            }


def _coverages(results: Results) -> Iterator[Row]:
    for one in results.coverages:
        yield {
            "loss": one.loss,
            "level": one.level,
            "covered": one.covered.value,
            "low": one.covered.low,
            "high": one.covered.high,
            "width": one.width,
            "reason": one.reason,
        }


def _outside(results: Results) -> Iterator[Row]:
    for one in results.detections:
        yield {
            "loss": one.loss,
            "model": one.model,
            "set": one.name,
            "score": one.score,
            "auroc": one.auroc.value,
            "low": one.auroc.low,
            "high": one.auroc.high,
            "mean_held_out": one.within,
            "mean_set": one.beyond,
            "dice_held_out": one.dice_within,
            "dice_set": one.dice_beyond,
        }


def _lengths(results: Results) -> Iterator[Row]:
    for point in results.lengths:
        yield {
            "loss": point.loss,
            "epoch": point.epoch,
            "steps": point.steps,
            "region": point.region,
            "dice_single": point.dice,
            "ece_single": point.single.estimate,
            "ece_ensemble": point.ensemble.estimate,
            "ece_difference": point.change.estimate,
            "low": point.change.low,
            "high": point.change.high,
            "nll_single": point.single_nll,
            "nll_ensemble": point.ensemble_nll,
            **{f"single_{name}": value for name, value in asdict(point.single_gap).items()},
            **{f"ensemble_{name}": value for name, value in asdict(point.ensemble_gap).items()},
        }


def _claims(results: Results) -> Iterator[Row]:
    for sign in results.signs:
        for test in sign.tests:
            yield {
                "claim": sign.claim,
                "verdict": sign.verdict,
                "test": test.name,
                "test_verdict": test.verdict,
                "numbers": test.numbers,
                "value": test.value,
                "low": test.low,
                "high": test.high,
                "limit": test.limit,
                "p": test.p_value,
            }
