"""A study in miniature: every stage, killed and resumed, against independent computations."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from fastcal.core.errors import DataError
from fastcal.data.phantom import write_dataset
from fastcal.study.found import Results
from fastcal.study.run import run_study

SMALL: dict[str, Any] = {
    "members": 3,
    "split": (3, 1, 4),
    "fast": True,
    "shifts": ("noise",),
    "device": "cpu",
    "training": {
        "network.widths": [4, 8],
        "sampling.batch_size": 4,
        "loop.iterations_per_epoch": 3,
        "loop.max_epochs": 3,
    },
    "progress": False,
}


@pytest.fixture(scope="module", autouse=True)
def _small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    del tmp_path_factory
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        from fastcal.study import design

        patch.setattr(design, "_FAST", {**design._FAST, "passes": 3, "length_epochs": 2})
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("data")
    for name, seed in (("prostatex", 0), ("promise12", 1)):
        write_dataset(
            folder / name,
            kind="prostate",
            n_cases=8 if seed == 0 else 3,
            seed=seed,
            shape=(24, 24, 6),
            ood=bool(seed),
        )
    return folder, folder / "prostatex"


@pytest.fixture(scope="module")
def finished(
    data: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Results]:
    out = tmp_path_factory.mktemp("study") / "out"
    training = {**SMALL["training"], "preprocessing.size": [24, 24], "preprocessing.spacing": None}
    settings = {**SMALL, "training": training}
    return out, run_study("prostate", out, data=data[0], command="fastcal study", **settings)


def test_it_runs(finished: tuple[Path, Results]) -> None:
    out, results = finished
    print((out / "results.md").read_text())
    assert json.loads((out / "results.json").read_text())["members"] == 3
