"""Cases one after another, each of which is reported when it is done."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from fastcal.cases.loop import Progress, ProgressOption, reporter


def told(cases: Sequence[str], progress: ProgressOption, *, step: str = "") -> Iterator[str]:
    """Yield the names of cases, and report each when the next is asked for.

    Args:
        cases: Case names.
        progress: True prints one line per case to stderr; a function is called with a `Progress`.
        step: What is done with the cases, where a command reads them several times.

    Example:
        >>> for case in told(["a", "b"], lambda state: print(state.done, "of", state.total)):
        ...     print(case)
        a
        1 of 2
        b
        2 of 2
    """
    report = reporter(progress)
    start = time.monotonic()
    for number, case in enumerate(cases, start=1):
        yield case
        mean = (time.monotonic() - start) / number
        report(Progress(case, number, len(cases), mean * (len(cases) - number), step))
