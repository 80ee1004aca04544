"""What every wheel must do where only its own requirements are installed, without test packages.

python tests/release_smoke.py
"""

from __future__ import annotations

import subprocess
import sys

import torch

import fastcal


def check_entropy() -> None:
    """One pass of the compiled CPU backend, against the formula."""
    torch.manual_seed(0)
    members = [torch.rand(1, 3, 7, 5, 4, dtype=torch.float64).softmax(1) for _ in range(3)]
    mean = torch.stack(members).mean(0)
    expected = -(mean * mean.log()).sum(1)
    with fastcal.backend("cpu"):
        found = fastcal.ensemble_entropy(members, from_logits=False)
    torch.testing.assert_close(found.squeeze(), expected.squeeze(), rtol=1e-9, atol=1e-9)


def check_commands() -> None:
    for words in (["--version"], ["--help"], ["info", "--no-gpu"]):
        subprocess.run([sys.executable, "-m", "fastcal", *words], check=True, timeout=300)


if __name__ == "__main__":
    check_entropy()
    check_commands()
    print(f"fastcal {fastcal.__version__} works")
