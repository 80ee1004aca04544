"""``python -m fastcal`` is ``fastcal``."""

import sys

from fastcal.cli import main

if __name__ == "__main__":
    sys.exit(main())
