"""The command line: errors are one line, exit codes are kept, values are spread over flags."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
import typer

import fastcal
from fastcal.cli import main
from fastcal.cli.app import app
from fastcal.cli.outcome import print_statistics
from fastcal.cli.values import spread


def raising(error: BaseException) -> Callable[..., None]:
    def stand_in(*_: object, **__: object) -> None:
        raise error

    return stand_in


def write_member(folder: Path, cases: dict[str, np.ndarray]) -> Path:
    """nnU-Net's ``--save_probabilities``: npz (C, Z, Y, X) beside the label map."""
    folder.mkdir(parents=True)
    for case, values in cases.items():
        image = nib.Nifti1Image(values.argmax(0).astype(np.uint8), np.diag([1.0, 2.0, 3.0, 1.0]))
        nib.save(image, folder / f"{case}.nii.gz")
        np.savez_compressed(folder / f"{case}.npz", probabilities=values.transpose(0, 3, 2, 1))
    return folder


@pytest.fixture
def folds(tmp_path: Path) -> list[Path]:
    """Three members' folders with two cases each, and no dataset.json."""
    rng = np.random.default_rng(3)
    return [
        write_member(
            tmp_path / f"fold_{k}",
            {
                case: np.moveaxis(rng.dirichlet(np.ones(3), (5, 4, 3)), -1, 0).astype(np.float32)
                for case in ("case_a", "case_b")
            },
        )
        for k in range(3)
    ]


# --- help and version -----------------------------------------------------------------------------


def test_without_arguments_the_help_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    printed = capsys.readouterr().out
    for command in ("train", "predict", "ensemble", "merge", "evaluate", "demo", "info"):
        assert f" {command} " in printed


def test_version_is_the_package_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"fastcal {fastcal.__version__}\n"


def options() -> list[Any]:
    group: Any = typer.main.get_command(app)
    return [
        pytest.param(option, id=f"{name} {option.opts[-1]}")
        for name, command in group.commands.items()
        for option in command.params
    ]


@pytest.mark.parametrize("option", options())
def test_every_option_explains_itself(option: Any) -> None:
    assert option.help.endswith((".", "]"))


def test_the_region_of_the_prediction_is_offered_where_it_is_taken() -> None:
    group: Any = typer.main.get_command(app)
    offers = {
        name: "prediction" in option.help
        for name, command in group.commands.items()
        for option in command.params
        if "--region" in option.opts
    }
    assert offers == {
        "predict": False,
        "ensemble": False,
        "evaluate": True,
        "demo": False,
        "report": False,
    }


# --- errors ---------------------------------------------------------------------------------------

HERE = str(Path(__file__).parent)
EVALUATE = ["evaluate", "-g", HERE, "-p", HERE, "-o", "scores.json"]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("n_bins: got 0, expected 1 or more"), "n_bins: got 0, expected 1 or more"),
        (TypeError("probs: got str, expected a tensor"), "probs: got str, expected a tensor"),
        (
            OSError(errno.ENOSPC, "No space left on device", "out/case.nii.gz"),
            "out/case.nii.gz: No space left on device",
        ),
        (FileNotFoundError(errno.ENOENT, "No such file", "a.json"), "a.json: No such file"),
        (ImportError("MONAI is missing"), "MONAI is missing"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_bad_input_is_one_line_and_exit_code_2(
    error: Exception,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("FASTCAL_DEBUG", raising=False)
    monkeypatch.setattr("fastcal.evaluate.evaluate_folder", raising(error))
    assert main(EVALUATE) == 2
    assert capsys.readouterr().err == f"fastcal: {line}\n"


def test_debug_shows_where_an_error_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTCAL_DEBUG", "1")
    monkeypatch.setattr("fastcal.evaluate.evaluate_folder", raising(ValueError("bad")))
    with pytest.raises(ValueError, match="bad"):
        main(EVALUATE)


def test_an_error_that_is_no_bad_input_is_one_line_and_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FASTCAL_DEBUG", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fastcal.evaluate.evaluate_folder", raising(AssertionError("a bug")))
    assert main(EVALUATE) == 3
    (line,) = capsys.readouterr().err.splitlines()
    (file,) = tmp_path.iterdir()
    assert line == (
        "fastcal: this is a bug; please report it (AssertionError: a bug); "
        f"the traceback is in {file.name}"
    )
    assert "Traceback (most recent call last)" in file.read_text()


def test_a_broken_pipe_is_not_blamed_on_the_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FASTCAL_DEBUG", raising=False)
    monkeypatch.chdir(tmp_path)
    error = BrokenPipeError(errno.EPIPE, "Broken pipe")
    monkeypatch.setattr("fastcal.evaluate.evaluate_folder", raising(error))
    assert main(EVALUATE) == 3
    assert "this is a bug" in capfd.readouterr().err


def test_an_output_that_nobody_reads_to_its_end_is_no_error(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "fastcal", "train", "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
    )
    assert process.stdout is not None
    process.stdout.close()
    _, error = process.communicate(timeout=120)
    assert (process.returncode, error) == (141, b"")
    assert list(tmp_path.iterdir()) == []


def test_interrupt_is_one_line_and_exit_code_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fastcal.evaluate.evaluate_folder", raising(KeyboardInterrupt()))
    assert main(EVALUATE) == 130
    assert capsys.readouterr().err == "fastcal: interrupted; the same command resumes from here\n"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["predict", "--no-such"], "--no-such"),
        (["launch"], "launch"),
        (["evaluate", "-g", "labels"], "--predictions"),
        (["ensemble", "-i", "a", "-o", "b", "--map", "entropie"], "entropie"),
        (["train", "-d", "a", "-o", "b", "--members", "many"], "--members"),
    ],
)
def test_wrong_usage_is_one_line_that_names_it(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    printed = capsys.readouterr().err
    assert named in printed
    assert printed.count("\n") == 1
    assert "--help" in printed or f"{arguments[-2]} must be " in printed


def test_missing_folders_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = str(tmp_path / "nowhere")
    assert main(["train", "-d", missing, "-o", str(tmp_path / "run")]) == 2
    assert main(["predict", "-m", missing, "-i", missing, "-o", str(tmp_path / "out")]) == 2
    assert main(["ensemble", "-i", missing, "-o", str(tmp_path / "out")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith(f"fastcal: {missing}") for line in lines)
    assert list(tmp_path.iterdir()) == []


def test_python_m_fastcal_is_the_command_with_its_exit_code(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "fastcal", "merge", "-i", str(tmp_path), "-o", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr.startswith(f"fastcal: {tmp_path}")
    assert result.stderr.count("\n") == 1


# --- several values after one flag ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("-i a b c -o d", "-i a -i b -i c -o d"),
        ("-i a -i b -o d", "-i a -i b -o d"),
        ("--input=a b", "--input=a --input b"),
        ("-o d e", "-o d e"),
        ("-w 1 -2 3 -q", "-w 1 -w -2 -w 3 -q"),
        ("", ""),
    ],
)
def test_values_are_spread_over_repeated_flags(words: str, expected: str) -> None:
    assert spread(words.split(), {"-i", "--input", "-w"}) == expected.split()


def test_folders_may_follow_one_flag_or_have_one_each(folds: list[Path], tmp_path: Path) -> None:
    together, each = tmp_path / "together", tmp_path / "each"
    assert main(["ensemble", "-i", *map(str, folds), "-o", str(together)]) == 0
    repeated = [word for folder in folds for word in ("-i", str(folder))]
    assert main(["ensemble", *repeated, "-o", str(each)]) == 0
    for name in ("case_a.nii.gz", "entropy/case_b.nii.gz"):
        first, second = nib.load(together / name), nib.load(each / name)
        np.testing.assert_array_equal(first.get_fdata(), second.get_fdata())
        np.testing.assert_array_equal(first.affine, np.diag([1.0, 2.0, 3.0, 1.0]))


# --- failures of single cases ---------------------------------------------------------------------


def test_failed_cases_are_listed_and_exit_code_is_1_with_keep_going(
    folds: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = folds[1] / "case_a.npz"
    damaged.write_bytes(damaged.read_bytes()[:100])
    out = tmp_path / "out"
    command = ["ensemble", "-i", *map(str, folds), "-o", str(out), "-q"]
    assert main([*command, "--keep-going"]) == 1
    failures = capsys.readouterr().err.splitlines()
    assert failures[0] == "fastcal: 1 case failed:"
    assert failures[1].startswith(f"  case_a: {damaged}")
    assert (out / "case_b.nii.gz").exists()
    assert not (out / "case_a.nii.gz").exists()


def test_first_failed_case_ends_a_run_without_keep_going(
    folds: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = folds[0] / "case_b.npz"
    damaged.write_bytes(b"")
    assert main(["ensemble", "-i", *map(str, folds), "-o", str(tmp_path / "out"), "-q"]) == 2
    assert capsys.readouterr().err.startswith(f"fastcal: {damaged}")


def test_parts_are_merged_to_the_numbers_of_one_run(
    folds: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = ["-i", *map(str, folds)]
    labels = ["-g", str(folds[0]), "-q"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main(["ensemble", *inputs, "-o", str(whole), *labels]) == 0
    for part in ("0", "1"):
        sharding = ["--num-parts", "2", "--part-id", part]
        assert main(["ensemble", *inputs, "-o", str(parts), *labels, *sharding]) == 0
    assert main(["merge", "-i", str(parts), "-o", str(parts)]) == 0
    assert "2 parts added" in capsys.readouterr().out
    one, added = (json.loads((f / "calibration.json").read_text()) for f in (whole, parts))
    assert one == added


def test_evaluate_prints_what_it_wrote(
    folds: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scores.json"
    arguments = ["-g", str(folds[0]), "-p", str(folds[1]), "-o", str(out), "--num-classes", "3"]
    assert main(["evaluate", *arguments, "--no-surface", "-q"]) == 0
    scores = json.loads(out.read_text())
    printed = capsys.readouterr().out
    assert f"{scores['foreground_mean']['Dice']:.4f}" in printed
    assert f"{scores['calibration']['pooled']['Brier']:.4f}" in printed


def test_the_table_of_all_measures_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    statistics = fastcal.CalibrationStatistics(2, fine_bins=64)
    probs = torch.tensor([[[0.75, 0.25], [0.25, 0.75]]])
    statistics.update(probs, torch.tensor([[0, 0]]), case_id=["a"])
    print_statistics(statistics)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "AUROC" in lines[1]
    assert "pooled voxels" in lines[3]


@pytest.mark.parametrize("multilabel", [False, True])
def test_the_dice_of_channels_is_called_so(
    multilabel: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    statistics = fastcal.CalibrationStatistics(2, multilabel=multilabel)
    target = torch.tensor([[[0, 1], [1, 0]]]) if multilabel else torch.tensor([[0, 0]])
    statistics.update(torch.tensor([[[0.75, 0.25], [0.25, 0.75]]]), target, case_id=["a"])
    print_statistics(statistics)
    assert ("Dice of p > 0.5" in capsys.readouterr().out) == multilabel


@pytest.mark.parametrize(
    "words",
    [
        ["--version"],
        ["--help"],
        ["no-such-command"],
        ["ensemble", "--help"],
        ["predict", "--no-such-option"],
        ["evaluate", "--bins", "many"],
        ["train"],
        ["recalibrate", "fit", "--help"],
    ],
    ids=" ".join,
)
def test_help_and_errors_of_arguments_come_before_torch_is_loaded(words: list[str]) -> None:
    program = (
        "import sys; from fastcal.cli import main\n"
        f"try: main({words!r})\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'scipy', 'nibabel'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_public_names_are_listed_and_open_when_they_are_asked_for() -> None:
    program = (
        "import sys, fastcal\n"
        "assert 'torch' not in sys.modules\n"
        "names = dir(fastcal)\n"
        "assert {'ensemble_entropy', 'load_ensemble', 'recalibrate', 'regions'} <= set(names)\n"
        "assert not [name for name in names if name.startswith('_') and name != '__version__']\n"
        "for name in names: getattr(fastcal, name)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_operators_are_registered_for_whoever_has_torch_already() -> None:
    program = "import torch, fastcal; torch.ops.fastcal.ensemble_statistics"
    subprocess.run([sys.executable, "-c", program], check=True)
