"""What the numbers depend on: processor, GPU, driver, versions, commit."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import fastcal
from fastcal.info import collect

_PACKAGES = ("fastcal", "torch", "triton", "torchmetrics", "monai", "exacta", "numpy")


def machine(*, gpu: bool = False) -> dict[str, Any]:
    """Describe the machine. ``gpu`` adds the devices and the driver, which initialises CUDA."""
    info = collect(gpu=gpu)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cpu": info.cpu.model,
        "cores": info.cpu.logical_cores,
        "isa": info.cpu.isa,
        "torch_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": info.cpu.threads,
        "gpu": None if info.gpu is None else asdict(info.gpu),
        "backends": {b.name: b.available or b.reason for b in info.backends},
        "system": f"{platform.system()} {platform.machine()}",
        "python": info.python,
        "versions": {name: _version(name) for name in _PACKAGES},
        "commit": commit(),
    }


def commit() -> str | None:
    """Name the commit of the source tree that fastcal runs from.

    ``FASTCAL_COMMIT`` names it for an installed package.
    """
    if named := os.environ.get("FASTCAL_COMMIT"):
        return named
    tree = Path(fastcal.__file__).resolve().parents[1]
    if not (tree / "pyproject.toml").exists():
        return None
    try:
        run = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=tree,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    return run.stdout.strip() or None


def headline(about: dict[str, Any]) -> str:
    """Format one line with device, threads, versions, commit and date."""
    versions = ", ".join(f"{name} {v}" for name, v in about["versions"].items() if v)
    gpus = (about["gpu"] or {}).get("devices") or ()
    device = "; ".join([*gpus, about["cpu"]])
    if gpus:
        device += f"; driver {about['gpu']['driver']}, CUDA {about['gpu']['torch_cuda']}"
    return (
        f"{device}, threads {about['threads']}, {about['isa'] or 'no native module'}; "
        f"{versions}; commit {about['commit'] or 'unknown'}; {about['date']}"
    )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
