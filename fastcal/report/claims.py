"""Claims, and whether numbers support them: by intervals of paired differences alone."""

from __future__ import annotations

from dataclasses import dataclass

SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"


@dataclass(frozen=True, slots=True)
class Evidence:
    """One comparison behind a claim: what must be below 0, with its 95 % interval over cases."""

    name: str
    numbers: str
    value: float
    low: float
    high: float
    p_value: float
    limit: float = 0.0
    """What the value must lie below."""

    @property
    def verdict(self) -> str:
        """By the interval: wholly below the limit, wholly above it, or neither."""
        if self.high < self.limit:
            return SUPPORTED
        return CONTRADICTED if self.low > self.limit else UNDECIDED


@dataclass(frozen=True, slots=True)
class Sign:
    """A claim with its comparisons."""

    claim: str
    tests: tuple[Evidence, ...]

    @property
    def verdict(self) -> str:
        """Contradicted where one comparison is; supported where all of them are."""
        found = {test.verdict for test in self.tests}
        if CONTRADICTED in found:
            return CONTRADICTED
        return SUPPORTED if found == {SUPPORTED} else UNDECIDED
