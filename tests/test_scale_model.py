"""`benchmarks.scale_model`: the formula says what the simulation of the dealer finds."""

from __future__ import annotations

import pytest

from benchmarks.scale_model import Cohort, formula, of_soak, simulated


@pytest.mark.parametrize("workers", [1, 8, 64])
def test_the_formula_is_what_the_simulation_finds(workers: int) -> None:
    cohort = Cohort(cases=30 * workers, workers=workers, client=0.01)
    assert formula(cohort)["all"] == pytest.approx(simulated(cohort), rel=0.1)


def test_many_workers_wait_for_the_dealer() -> None:
    cohort = Cohort(cases=600, workers=128, client=0.5, computing=1.0, bytes=0.0)
    assert simulated(cohort) >= 600 * 0.5
    assert formula(cohort)["all"] == pytest.approx(simulated(cohort), rel=0.1)


def test_a_soak_is_predicted_from_its_own_numbers() -> None:
    # A soak of 100 cases on four workers, of which five were killed.
    found = {
        **{"cases": 100, "workers": 4, "repeated": 2, "starting": 73.7, "merging": 5.76},
        **{"case": 2.104, "dealing": 3.48, "client": 0.079},
    }
    cohort = of_soak(found)
    assert formula(cohort)["all"] == pytest.approx(219.1, rel=0.05)
    assert simulated(cohort) == pytest.approx(219.1, rel=0.05)
