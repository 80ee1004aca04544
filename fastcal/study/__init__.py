"""Experiments from data to report: the paper's comparisons, and the demo."""

from fastcal.study.demo import run_demo
from fastcal.study.experiment import compare_losses

__all__ = ["compare_losses", "run_demo"]
