"""Compiles the Triton launches of `test_triton_aot` for one GPU and prints what became of each.

    PYTHONPATH=FOLDER:tests python tests/triton_oldest.py NAME...

FOLDER holds the Triton that is tried. Without names every launch is compiled. Prints one JSON
object: the version of Triton, and per launch the names of its kernels or the error.
"""

from __future__ import annotations

import json
import sys
import tempfile

import triton
from test_triton_aot import LAUNCHES, ONE
from triton_aot import compile_kernels


def main(names: list[str]) -> None:
    found: dict[str, list[str] | str] = {}
    with tempfile.TemporaryDirectory() as cache:
        triton.knobs.cache.dir = cache
        for name in names or LAUNCHES:
            try:
                found[name] = [kernel.name for kernel in compile_kernels(ONE, LAUNCHES[name])]
            except Exception as error:  # whatever the compiler raises is the finding
                found[name] = f"{type(error).__name__}: {str(error)[-500:]}"
    print(json.dumps({"triton": triton.__version__, "launches": found}))


if __name__ == "__main__":
    main(sys.argv[1:])
