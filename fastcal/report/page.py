"""The page itself: what its sections hold, put into one HTML file that loads nothing."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcal.cases.loop import ProgressOption
from fastcal.core import atomic
from fastcal.core.arguments import real_number, whole_number
from fastcal.report import style
from fastcal.report.calibration_view import diagram_sets, shown_gaps
from fastcal.report.case_view import (
    Pictured,
    anchor,
    case_rows,
    columns,
    draw_cases,
    scatters,
    top_entropy,
)
from fastcal.report.chosen import choose, main_model
from fastcal.report.cohort import Cohort
from fastcal.report.comparison_view import region_views, series_of, structure_rows, tiles
from fastcal.report.data import as_script, page_data
from fastcal.report.findings import Untested, findings
from fastcal.report.measured import mean_of_known
from fastcal.report.quantities import Numbers
from fastcal.report.slices import ADDED, CONFUSED, MISSED, entropy_gradient
from fastcal.report.uncertainty_view import uncertainty_view
from fastcal.report.verdict import red_flags, shown_region, verdict

if TYPE_CHECKING:
    from fastcal.report.claims import Sign

_FOR_NUMBERS = 1_500_000
"""Bytes of a page that are kept for everything but pictures."""


@dataclass(frozen=True, slots=True)
class PageSettings:
    """How a page is made.

    Raises:
        TypeError, ValueError: A number is out of range.
    """

    min_count: int = 1000
    """Bins of this many voxels or fewer are hidden in reliability diagrams at first."""
    megabytes: float = 15.0
    """Largest size of the file."""
    progress: ProgressOption = False
    """True says on stderr which case is being drawn; a function is called with a `Progress`."""

    def __post_init__(self) -> None:
        """Check every number."""
        if whole_number(self.min_count, "min_count") < 0:
            raise ValueError(f"min_count must be at least 0, got {self.min_count}")
        if not real_number(self.megabytes, "megabytes") > 0:
            raise ValueError(f"megabytes must be above 0, got {self.megabytes:g}")


def write_page(out: Path | str, numbers: Numbers, settings: PageSettings | None = None) -> Path:
    """Write the page of a cohort, whole or not at all.

    Args:
        out: The HTML file.
        numbers: What its models scored.
        settings: How the page is made.

    Returns:
        The file written.

    Raises:
        DataError: A file of a case that is shown cannot be read.
        ImportError: Jinja2 or Pillow is not installed (the ``report`` extra has them).
        OSError: The file cannot be written.
    """
    target = Path(out)
    content = render(numbers, settings or PageSettings())
    target.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_text(target, content)
    return target


def check_packages() -> None:
    """Refuse to count for hours what could not be shown.

    Raises:
        ImportError: A package of the ``report`` extra is missing.
    """
    for package in ("jinja2", "PIL", "scipy"):
        if find_spec(package) is None:
            raise ImportError(f"a report needs {package}: pip install 'fastcal[report]'")


def render(numbers: Numbers, settings: PageSettings) -> str:
    """Return the page of a cohort as HTML."""
    import jinja2
    from markupsafe import Markup

    loader = jinja2.PackageLoader("fastcal.report")
    environment = jinja2.Environment(
        loader=loader,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # What we draw or write ourselves is markup; names and texts of users never are.
    environment.filters["ours"] = Markup
    environment.globals["anchor"] = anchor
    assets = {
        name: Markup(loader.get_source(environment, f"page.{name}")[0]) for name in ("css", "js")
    }
    return environment.get_template("page.html.j2").render(**assets, **_context(numbers, settings))


def _context(numbers: Numbers, settings: PageSettings) -> dict[str, Any]:
    cohort, box = numbers.cohort, numbers.box
    gaps = {region: shown_gaps(cohort, region) for region in numbers.regions}
    sentences = verdict(numbers, gaps[box])
    main = main_model(cohort)
    chosen = choose(cohort, main)
    budget = max(int(1e6 * settings.megabytes) - _FOR_NUMBERS, 0)
    pictured, too_large = draw_cases(
        numbers, chosen, main, budget=budget, progress=_said(settings.progress)
    )
    signs, untested = _findings(numbers)
    names = [case.name for case in pictured]
    return {
        "cohort": cohort,
        "box": box,
        "box_title": shown_region(box),
        "regions": region_views(numbers),
        "sentences": sentences,
        "tiles": tiles(numbers),
        "flags": red_flags(numbers, cohort.flags),
        "structures": structure_rows(numbers),
        "diagrams": diagram_sets(cohort, min_count=settings.min_count),
        "min_count": settings.min_count,
        "columns": columns(numbers),
        "rows": case_rows(numbers, names),
        "scatters": scatters(numbers, names),
        "chosen": chosen,
        "main": main,
        "pictured": pictured,
        "names": names,
        "too_large": too_large,
        "shown": cohort.shown,
        "series": {model.title: series_of(cohort, model) for model in cohort.models},
        "sprites": _sprites(pictured),
        "legend": _legend(cohort),
        "errors": (("missed", MISSED), ("added", ADDED), ("other structure", CONFUSED)),
        "entropy_gradient": entropy_gradient(),
        "top_entropy": top_entropy(cohort),
        "uncertainty": uncertainty_view(numbers, mean_of_known(main.dice)),
        "signs": signs,
        "untested": untested,
        "data": as_script(page_data(numbers, gaps, signs, chosen, sentences)),
    }


def _said(progress: ProgressOption) -> ProgressOption:
    """Tell the pictures of cases from their numbers, which were counted before."""
    if progress is not True:
        return progress
    return lambda state: print(f"pictures: {state}", file=sys.stderr, flush=True)


def _findings(numbers: Numbers) -> tuple[Sequence[Sign], Sequence[Untested]]:
    given = numbers.cohort.findings
    return (given, ()) if given is not None else findings(numbers)


def _sprites(pictured: Sequence[Pictured]) -> list[tuple[str, str]]:
    """Return the class of every layer and its data, which the style sheet holds once."""
    return [
        (f"i{case.number}-{name.replace(' ', '-')}", uri)
        for case in pictured
        for name, uri in case.pictures.layers.items()
    ]


def _legend(cohort: Cohort) -> Mapping[str, str]:
    """Return the colour of every structure by its name."""
    painted = cohort.painted or range(1, len(cohort.structures) + 1)
    return {
        name: style.segment_colour(value)
        for name, value in zip(cohort.structures, painted, strict=True)
    }
