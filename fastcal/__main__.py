"""``python -m fastcal`` is ``fastcal``."""

from fastcal.cli import run

if __name__ == "__main__":
    run()
