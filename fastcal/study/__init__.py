"""Experiments from data to report: the paper's studies and comparisons, and the demo."""

from fastcal.study.demo import run_demo
from fastcal.study.experiment import compare_losses
from fastcal.study.run import run_study

__all__ = ["compare_losses", "run_demo", "run_study"]
