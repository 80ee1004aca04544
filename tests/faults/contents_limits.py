"""One class alone, values beyond what a probability can be, targets beyond a class."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

# A class axis of 1


def _one_class(where: str) -> Callable[[Path], str | None]:
    def run(_: Path) -> str | None:
        from fastcal import EnsembleAccumulator, ensemble_entropy, ensemble_mean
        from fastcal import ensemble_statistics as statistics
        from fastcal.functional import predictive_entropy
        from fastcal.monai import EnsembleUncertainty, UncertaintyInferer

        logits = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))

        def accumulated() -> Any:
            accumulator = EnsembleAccumulator(from_logits=True)
            accumulator.update(logits)
            return accumulator.finalize()

        calls: dict[str, Callable[[], Any]] = {
            "ensemble_statistics": lambda: statistics([logits]),
            "ensemble_entropy": lambda: ensemble_entropy([logits]),
            "ensemble_mean": lambda: ensemble_mean([logits]),
            "predictive_entropy": lambda: predictive_entropy(logits, from_logits=True),
            "EnsembleAccumulator": accumulated,
            "EnsembleUncertainty": lambda: EnsembleUncertainty(from_logits=True)([logits[0]]),
            "UncertaintyInferer": lambda: UncertaintyInferer()(logits, torch.nn.Identity()),
        }
        try:
            calls[where]()
        except (ValueError, TypeError) as error:
            text = str(error)
            said = "sigmoid" in text or "multilabel" in text
            return None if said else f"refused without the reading that is meant: {text[:100]}"
        return "softmax over one class is accepted: entropy 0 and label 0 everywhere"

    return run


# Values beyond what a probability can be


def _told(run: Callable[[], Any], words: tuple[str, ...]) -> str | None:
    """A call must be refused, or warn, with one of the words; what it returns may say so too."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            found = run()
        except (ValueError, TypeError) as error:
            return None if any(word in str(error) for word in words) else f"refused: {error}"
    if any(any(word in str(one.message) for word in words) for one in said):
        return None
    if getattr(found, "n_invalid", 0):
        return None
    return "accepted without a word"


def _marked(members: list[torch.Tensor]) -> str | None:
    """Invalid voxels are NaN in float maps and -1 in labels, as docs/numerics.md has it."""
    from fastcal import ensemble_statistics

    found = ensemble_statistics(members, from_logits=False, maps=("label", "expected_entropy"))
    assert found.label is not None
    assert found.expected_entropy is not None
    marked = bool((found.label < 0).all()) and bool(found.expected_entropy.isnan().all())
    return None if marked else "accepted without a word"


def _maps_of(values: str) -> Callable[[Path], str | None]:
    def run(_: Path) -> str | None:
        from fastcal import ensemble_statistics

        p = torch.full((1, 2, 8), 0.5)
        members = [p, p]
        if values == "sums of 0.5":
            members = [p / 2, p / 2]
        elif values == "zeros":
            members = [p * 0, p * 0]
        elif values == "one member 1.4 and -0.4":
            odd = torch.tensor([1.4, -0.4]).reshape(1, 2, 1).expand(1, 2, 8).contiguous()
            return _marked([odd, 1 - odd])
        words = ("sum", "probabilities", "invalid", "range")
        return _told(lambda: ensemble_statistics(members, from_logits=False), words)

    return run


def _targets(value: int) -> Callable[[Path], str | None]:
    """Targets of 2^32 + k are not k."""

    def run(_: Path) -> str | None:
        from fastcal import CalibrationStatistics

        p = torch.full((1, 2, 8), 0.5)
        target = torch.full((1, 8), value, dtype=torch.int64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                CalibrationStatistics(2).update(p, target)
            except (ValueError, TypeError, OverflowError) as error:
                return None if "target" in str(error) else f"refused: {error}"
        return f"a target of {value} is counted"

    return run
