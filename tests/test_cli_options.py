"""The command line: every option reaches its function, settings come from where they should."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest

import fastcal
from fastcal.cases.settings import MAP_TYPES
from fastcal.cli import main, mapping, predict, recalibrate
from fastcal.cli.settings import parse_split, training_config
from fastcal.core.bins import Closed
from fastcal.core.problem import MAPS, Space
from fastcal.models import Exported
from fastcal.predict import InferenceAugmentation
from fastcal.predict.members import PRECISIONS, RESAMPLINGS
from fastcal.recalibrate import METHODS
from fastcal.recalibrate.ensemble import ORDERS

EVALUATE = ["evaluate", "-g", "labels", "-p", "predictions", "-o", "scores.json"]

INPUTS = ["data", "run", "images", "labels", "predictions", "a", "b", "c", "d.json"]


@pytest.fixture(autouse=True)
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the commands of this file read: they refuse what is not there."""
    monkeypatch.chdir(tmp_path)
    for name in INPUTS:
        (tmp_path / name).mkdir()


Recorder = Callable[..., dict[str, Any]]


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Replaces a function; returns the dict that its next call's arguments go into."""

    def replace(name: str, result: object) -> dict[str, Any]:
        call: dict[str, Any] = {}

        def stand_in(*args: object, **kwargs: object) -> object:
            call.update(kwargs, args=args)
            return result

        monkeypatch.setattr(name, stand_in)
        return call

    return replace


def summary(out: str = "out", failed: tuple[Any, ...] = ()) -> SimpleNamespace:
    return SimpleNamespace(
        out=Path(out), done=("a", "b"), skipped=("c",), failed=failed, statistics=None, journal=None
    )


def test_train_passes_every_option_on(recorded: Recorder, tmp_path: Path) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text(
        "preset: standard\nnetwork: {widths: [4, 8]}\nsampling: {batch_size: 3, oversample: 0.5}\n"
    )
    call = recorded("fastcal.train.train_ensemble", SimpleNamespace(members=[1, 2]))
    arguments = (
        "train -d data -o run --loss dice --members 2 --seed 7 --split 5,2,1 --epochs 9 "
        "--iterations 11 --batch-size 4 --learning-rate 0.01 --dropout 0.5 --device cpu --jobs 2 "
        "-q --fold 1 --dims 3 --snapshots 2 --strategy vectorised --ddp --prepared cache "
        "--set loop.ema=9e-1 sampling.patch=[8,8,8]"
    )
    assert main([*arguments.split(), "--config", str(settings)]) == 0
    config = call.pop("config")
    assert config.network["preset"] == "standard"
    assert (config.network["widths"], config.network["dropout"]) == ([4, 8], 0.5)
    sampling, loop, schedule = config.sampling, config.loop, config.schedule
    assert (sampling.batch_size, sampling.oversample, sampling.patch) == (4, 0.5, (8, 8, 8))
    assert (loop.max_epochs, loop.iterations_per_epoch, loop.ema) == (9, 11, 0.9)
    assert (schedule.name, schedule.cycles, loop.snapshots) == ("cyclic", 2, True)
    assert (config.optimiser.learning_rate, config.preprocessing.dims) == (0.01, 3)
    assert call == {
        "args": (Path("data"), Path("run")),
        "loss": "dice",
        "members": 2,
        "seed": 7,
        "split": (5, 2, 1),
        "device": "cpu",
        "strategy": "vectorised",
        "fold": 1,
        "jobs": 2,
        "ddp": True,
        "prepared": Path("cache"),
        "progress": False,
    }


def test_train_takes_a_file_as_split(recorded: Recorder) -> None:
    call = recorded("fastcal.train.train_ensemble", SimpleNamespace(members=[]))
    assert main(["train", "-d", "data", "-o", "run", "--split", "splits.json"]) == 0
    assert call["split"] == Path("splits.json")


SHARED = (
    "--space logit --bins 20 --bin-edge left --dtype uint8 --save-probabilities --num-parts 3 "
    "--part-id 1 --workers 3 --overwrite --keep-going --map entropy variance -g labels -q "
    "--region box:8:2 foreground --fine-bins 64 --no-segments"
)
SHARED_OPTIONS = {
    "space": "logit",
    "n_bins": 20,
    "closed": "left",
    "dtype": "uint8",
    "save_probabilities": True,
    "segments": False,
    "num_parts": 3,
    "part_id": 1,
    "scheduler": None,
    "workers": 3,
    "overwrite": True,
    "keep_going": True,
    "maps": ["entropy", "variance"],
    "labels": Path("labels"),
    "regions": ["box:8:2", "foreground"],
    "fine_bins": 64,
    "progress": False,
}


def test_predict_passes_every_option_on(recorded: Recorder) -> None:
    call = recorded("fastcal.predict.predict_cases", summary())
    arguments = (
        "predict -m run -i images -o out --case a b --member 0 2 --mc-dropout 5 --seed 3 "
        "--mirror 0 1 --rotate --noise 0.1 --draws 2 --views-as-members --resample logits "
        "--overlap 0.25 --precision bf16 --temperature 1.5 --device cpu --batch-size 4 "
        f"--trust mylab other.networks --allow-duplicates {SHARED}"
    )
    assert main(arguments.split()) == 0
    assert call == SHARED_OPTIONS | {
        "args": (Path("run"), Path("images"), Path("out")),
        "cases": ["a", "b"],
        "members": [0, 2],
        "mc_dropout": 5,
        "seed": 3,
        "augmentation": InferenceAugmentation((0, 1), True, 0.1, 2, True),
        "resample": "logits",
        "overlap": 0.25,
        "precision": "bf16",
        "temperature": 1.5,
        "device": "cpu",
        "batch_size": 4,
        "trust": ["mylab", "other.networks"],
        "allow_duplicates": True,
    }


def test_export_passes_every_option_on(recorded: Recorder) -> None:
    call = recorded("fastcal.models.export_run", Exported(Path("x"), "onnx", ("mean",), None, None))
    arguments = "export -m run -o x --member 0 2 --format onnx --size 32 48 --trust mylab"
    assert main([*arguments.split(), "--allow-duplicates"]) == 0
    assert call == {
        "args": (Path("run"), Path("x")),
        "member": None,
        "members": [0, 2],
        "format": "onnx",
        "size": [32, 48],
        "trust": ["mylab"],
        "allow_duplicates": True,
    }
    assert main(["export", "-m", "run", "-o", "x.pt", "--member", "3"]) == 0
    assert (call["member"], call["members"], call["format"], call["size"]) == (3, None, None, None)
    assert call["allow_duplicates"] is False


def test_predict_takes_a_part_of_the_split_as_cases(recorded: Recorder) -> None:
    call = recorded("fastcal.predict.predict_cases", summary())
    assert main(["predict", "-m", "run", "-i", "images", "-o", "out", "--case", "test"]) == 0
    assert call["cases"] == "test"
    assert main(["predict", "-m", "run", "-i", "images", "-o", "out"]) == 0
    assert call["cases"] is None


def test_ensemble_passes_every_option_on(recorded: Recorder) -> None:
    call = recorded("fastcal.predict.ensemble_folders", summary())
    arguments = (
        "ensemble -i a b -i c -o out --weight 1 2 0.5 --temperature 1 2 3 --from-logits "
        f"--case x --dataset-json d.json --device cuda:1 --allow-duplicates {SHARED}"
    )
    assert main(arguments.split()) == 0
    assert call == SHARED_OPTIONS | {
        "args": ([Path("a"), Path("b"), Path("c")], Path("out")),
        "weights": [1.0, 2.0, 0.5],
        "temperature": [1.0, 2.0, 3.0],
        "from_logits": True,
        "cases": ["x"],
        "dataset_json": Path("d.json"),
        "device": "cuda:1",
        "allow_duplicates": True,
        "memory": None,
    }


def test_evaluate_passes_every_option_on(recorded: Recorder) -> None:
    scores: dict[str, Any] = {
        "mean": {},
        "foreground_mean": {"Dice": 0.5},
        "failed": [],
        "labels": {},
    }
    call = recorded("fastcal.evaluate.evaluate_folder", scores | {"calibration": None})
    arguments = (
        "--dataset-json d.json --num-classes 3 --no-probabilities --no-surface --tolerance 2 "
        "--bins 20 --bin-edge left --chill --keep-going -q --region band:2 --fine-bins 8 "
        "--missed-hd95 diagonal --scheduler tcp://node1:8786"
    )
    assert main([*EVALUATE, *arguments.split()]) == 0
    assert call == {
        "args": (Path("labels"), Path("predictions"), Path("scores.json")),
        "dataset_json": Path("d.json"),
        "num_classes": 3,
        "probabilities": False,
        "surface": False,
        "tolerance_mm": 2.0,
        "missed_hd95": "diagonal",
        "regions": ["band:2"],
        "fine_bins": 8,
        "n_bins": 20,
        "closed": "left",
        "allow_missing": True,
        "keep_going": True,
        "scheduler": "tcp://node1:8786",
        "workers": None,
        "progress": False,
    }


@pytest.mark.parametrize("word", ["--chill", "--allow-missing"])
def test_both_words_allow_missing_predictions(word: str, recorded: Recorder) -> None:
    scores = {"mean": {}, "foreground_mean": {}, "failed": [], "labels": {}, "calibration": None}
    call = recorded("fastcal.evaluate.evaluate_folder", scores)
    assert main(EVALUATE) == 0
    assert call["allow_missing"] is False
    assert main([*EVALUATE, word]) == 0
    assert call["allow_missing"] is True


def test_choices_are_those_of_the_functions() -> None:
    assert tuple(mapping.Map) == MAPS
    assert tuple(mapping.MapType) == MAP_TYPES
    assert tuple(mapping.Closed) == get_args(Closed)
    assert tuple(mapping.Space) == get_args(Space)
    assert tuple(predict.Resampling) == RESAMPLINGS
    assert tuple(predict.Precision) == PRECISIONS
    assert tuple(recalibrate.Method) == METHODS
    assert tuple(recalibrate.Order) == ORDERS


class _Rows:
    losses = ()


def test_demo_passes_every_option_on(recorded: Recorder) -> None:
    call = recorded("fastcal.study.demo.run_demo", _Rows())
    arguments = (
        "demo -o out --kind brain --split 4,2,2 --members 2 --loss dice --seed 5 --epochs 3 "
        "--iterations 6 --batch-size 7 --learning-rate 0.1 --device cpu --jobs 2 -q "
        "--region box:8:2 band:3 --fine-bins 128"
    )
    assert main(arguments.split()) == 0
    config = call.pop("config")
    assert (config.loop.max_epochs, config.loop.iterations_per_epoch) == (3, 6)
    assert (config.sampling.batch_size, config.optimiser.learning_rate) == (7, 0.1)
    assert call == {
        "args": (Path("out"),),
        "kind": "brain",
        "split": (4, 2, 2),
        "members": 2,
        "losses": ["dice"],
        "seed": 5,
        "device": "cpu",
        "jobs": 2,
        "regions": ["box:8:2", "band:3"],
        "fine_bins": 128,
        "progress": False,
    }


def test_demo_on_a_dataset_compares_losses_there(recorded: Recorder) -> None:
    call = recorded("fastcal.study.experiment.compare_losses", _Rows())
    assert (
        main(
            [
                "demo",
                "-o",
                "out",
                "-d",
                "data",
                "--split",
                "128,32,42",
                "--members",
                "5",
                "--epochs",
                "40",
            ]
        )
        == 0
    )
    assert call.pop("config").loop.max_epochs == 40
    assert call == {
        "args": (Path("data"), Path("out")),
        "split": (128, 32, 42),
        "members": 5,
        "losses": ["ce", "dice"],
        "seed": 0,
        "device": None,
        "jobs": 1,
        "regions": [],
        "fine_bins": 0,
        "progress": True,
    }


@pytest.mark.parametrize(
    ("arguments", "named"),
    [("--split 1,1,1 --kind brain", "--kind"), ("", "--split"), ("--split 1,2", "1,2")],
)
def test_demo_on_a_dataset_wants_a_split_and_no_phantom(
    arguments: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "-o", "out", "-d", "data", *arguments.split()]) == 2
    assert named in capsys.readouterr().err


def test_info_prints_text_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--no-gpu"]) == 0
    assert fastcal.__version__ in capsys.readouterr().out
    assert main(["info", "--no-gpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fastcal"] == fastcal.__version__


def test_options_come_before_the_settings_file(tmp_path: Path) -> None:
    from fastcal.train import TrainConfig

    file = tmp_path / "settings.json"
    file.write_text('{"loop": {"max_epochs": 5}, "sampling": {"batch_size": 8}}')
    base = TrainConfig().with_values({"network.dropout": 0.25})
    config = training_config(base, file=file, epochs=7, batch_size=None)
    found = config.loop.max_epochs, config.sampling.batch_size, config.network["dropout"]
    assert found == (7, 8, 0.25)


@pytest.mark.parametrize("text", ["no_such_setting: 1", "loop: {ema: 2}", "- a\n- b", "a: [", "x"])
def test_settings_file_that_makes_no_sense_is_named(text: str, tmp_path: Path) -> None:
    from fastcal.train import TrainConfig

    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"settings\.yaml: "):
        training_config(TrainConfig(), file=file)


def test_split_is_three_numbers() -> None:
    assert parse_split("128,32,42") == (128, 32, 42)
    for text in ("1,2", "a,b,c", "1,2,3,4", ""):
        with pytest.raises(ValueError, match="TRAIN,VAL,TEST"):
            parse_split(text)
