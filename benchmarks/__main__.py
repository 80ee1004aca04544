"""``python -m benchmarks``: the ensemble pass."""

from benchmarks.bench_ensemble import main

main()
