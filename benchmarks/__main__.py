"""``python -m benchmarks``: the kernel benchmark, as ``fastcal bench``."""

import sys

from fastcal.cli import main

sys.exit(main(["bench", *sys.argv[1:]]))
