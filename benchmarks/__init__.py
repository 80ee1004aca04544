"""Benchmarks: every result is checked before its time is printed."""
