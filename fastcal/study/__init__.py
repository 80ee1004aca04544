"""Experiments from data to report: the paper's comparisons, and the demo."""
