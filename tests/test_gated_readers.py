"""Readers of JSON, YAML and pickles: no kind of bad file hangs them or ends in a traceback."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastcal.calibration import CalibrationStatistics
from fastcal.cases import segments
from fastcal.cases.record import FolderRecord
from fastcal.cli.settings import training_config
from fastcal.core.errors import DataError
from fastcal.data import description, properties
from fastcal.models.run import Run
from fastcal.ood import file as ood_file
from fastcal.quality import file as quality_file
from fastcal.recalibrate.calibrator import build
from fastcal.report.scores import Comparison
from fastcal.report.warnings_of_cases import case_warnings
from fastcal.train.log import read_log
from fastcal.train.strategy import Execution

READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "dataset": ("dataset.json", description.read),
    "prediction": ("prediction.json", lambda file: FolderRecord.read(file.parent)),
    "configuration": ("config.json", lambda file: Run.open(file.parent)),
    "split": ("splits.json", lambda file: Run(file.parent, {}).split),
    "execution": ("execution.json", lambda file: Execution.read(file.parent)),
    "log": ("log.jsonl", lambda file: read_log(file.parent)),
    "calibrator": ("calibrator.json", lambda file: build(file, dict)),
    "statistics": ("calibration.json", CalibrationStatistics.load),
    "state": ("calibration.npz", CalibrationStatistics.load),
    "results": ("results.json", Comparison.load),
    "settings": ("settings.yaml", lambda file: training_config(None, file=file)),
    "properties": ("case.pkl", properties.read),
    "segments": ("segments.json", segments.read),
    "predictor": ("predictor.json", quality_file.load),
    "detectors": ("ood.json", ood_file.load),
    "warnings of quality": ("quality.json", lambda file: case_warnings([file])),
    "warnings of detection": ("ood.json", lambda file: case_warnings([file])),
}
BAD = {
    "empty list": b"[]\n",
    "binary": bytes(range(256)) + b"\n",
    "deep": b"[" * 100_000 + b"\n",
    "long number": b'{"a": 1' + b"0" * 10_000 + b"}\n",
    "twice": b'{"labels": {"a": 1, "a": 2}, "labels": {}}\n',
    "bomb": b"a: &a [1,1,1,1,1,1,1,1,1,1]\n"
    + b"".join(
        b"%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 10)) for c in range(98, 112)
    ),
    "pickle": pickle.dumps(os.getcwd),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("reader", READERS)
def test_bad_content_is_one_line_that_names_the_file(reader: str, bad: str, tmp_path: Path):
    name, read = READERS[reader]
    (tmp_path / name).write_bytes(BAD[bad])
    with pytest.raises(DataError) as caught:
        read(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are of POSIX")
@pytest.mark.parametrize("reader", READERS)
def test_a_pipe_is_refused_and_not_waited_for(reader: str, tmp_path: Path):
    name, read = READERS[reader]
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match="regular file"):
        read(tmp_path / name)


def test_a_setting_may_not_be_nested_without_end():
    with pytest.raises(ValueError, match="--set must be NAME=VALUE"):
        training_config(None, values=["loop.ema=" + "[" * 1000])


def test_a_header_that_claims_terabytes_is_refused_before_memory_is_taken(tmp_path: Path):
    file = tmp_path / "calibration.npz"
    header = b"{'descr': '<i8', 'fortran_order': False, 'shape': (1000000000000,), }"
    array = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    names = ("header", "total", "case_rows", "case_ids")
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as opened:
        for name in names:
            opened.writestr(f"{name}.npy", array)
    with pytest.raises(DataError, match=r"calibration\.npz: "):
        CalibrationStatistics.load(file)
