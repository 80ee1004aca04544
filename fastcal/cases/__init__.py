"""A case on disk: what it is made of, where its members come from, and the one run over cases."""

from fastcal.cases.driver import run
from fastcal.cases.settings import Counted, MemberReading, Part, Written
from fastcal.cases.source import Member, Origin, Source
from fastcal.cases.summary import PredictionSummary

__all__ = [
    "Counted",
    "Member",
    "MemberReading",
    "Origin",
    "Part",
    "PredictionSummary",
    "Source",
    "Written",
    "run",
]
