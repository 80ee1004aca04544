"""A run folder is data, not code: no file of it chooses what is imported or called."""

from __future__ import annotations

import io
import json
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from cohort import write_run
from safetensors.torch import save_file

import fastcal
from fastcal.cli import main
from fastcal.core.errors import DataError
from fastcal.data.dataset import Case
from fastcal.models import export_run
from fastcal.models.run import load_member
from fastcal.models.trust import UntrustedNetworkError
from fastcal.models.weights import read_weights
from fastcal.predict import predict_cases

EVIL = """
from pathlib import Path
import torch

Path(__file__).with_name("imported").touch()

class Net(torch.nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.layer = torch.nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, image):
        return self.layer(image)
"""
NETWORK = {"name": "evil_lab:Net", "in_channels": 1, "num_classes": 3, "dims": 2}


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that leaves a file where it is imported; returns the name of that file."""
    folder = tmp_path / "path"
    folder.mkdir()
    (folder / "evil_lab.py").write_text(EVIL)
    monkeypatch.syspath_prepend(folder)
    yield folder / "imported"
    sys.modules.pop("evil_lab", None)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_run(tmp_path / "run", members=1)
    return tmp_path / "run"


def name_in_metadata(run: Path, network: dict[str, Any]) -> Path:
    file = run / "member_00/best.safetensors"
    text = json.dumps({"format": 1, "network": network, "details": {}})
    state = {"body.layer.weight": torch.zeros(3, 1, 1, 1), "body.layer.bias": torch.zeros(3)}
    save_file(state, file, metadata={"fastcal": text})
    (run / "member_00/best.pt").unlink(missing_ok=True)
    return file


def name_in_checkpoint(run: Path, network: dict[str, Any]) -> Path:
    file = run / "member_00/best.pt"
    state = {"body.layer.weight": torch.zeros(3, 1, 1, 1), "body.layer.bias": torch.zeros(3)}
    torch.save({"network": network, "model": state}, file)
    (run / "member_00/best.safetensors").unlink(missing_ok=True)
    return file


@pytest.mark.parametrize("name", [name_in_metadata, name_in_checkpoint])
def test_weights_do_not_choose_what_is_imported(name: Any, run: Path, evil: Path, tmp_path: Path):
    file = name(run, NETWORK)
    words = f"{file} would import evil_lab and call its Net; .* --trust evil_lab"
    with pytest.raises(UntrustedNetworkError, match=words):
        fastcal.load_ensemble(run, device="cpu")
    with pytest.raises(UntrustedNetworkError, match=words):
        load_member(file)
    with pytest.raises(UntrustedNetworkError, match=words):
        export_run(run, tmp_path / "x.pt")
    case = Case("a", (tmp_path / "a_0000.nii.gz",), None)
    with pytest.raises(UntrustedNetworkError, match=words):
        predict_cases(run, [case], tmp_path / "out", device="cpu", trust=["torch"])
    assert not evil.exists()
    assert "evil_lab" not in sys.modules


@pytest.mark.parametrize("name", [name_in_metadata, name_in_checkpoint])
def test_the_users_word_allows_it(name: Any, run: Path, evil: Path):
    name(run, NETWORK)
    ensemble = fastcal.load_ensemble(run, device="cpu", trust=["evil_lab"])
    assert ensemble(torch.zeros(1, 1, 8, 8)).mean.shape == (1, 3, 8, 8)
    assert evil.exists()


def test_commands_say_what_would_have_been_imported(
    run: Path, evil: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    name_in_metadata(run, NETWORK)
    words = ["export", "-m", str(run), "-o", str(tmp_path / "x.pt")]
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "would import evil_lab and call its Net" in line
    assert not evil.exists()
    assert main([*words, "--trust", "evil_lab"]) == 0
    assert evil.exists()


def test_the_configuration_of_a_run_imports_nothing(run: Path, evil: Path):
    config = json.loads((run / "config.json").read_text())
    config["network"]["name"] = "evil_lab:Net"
    (run / "config.json").write_text(json.dumps(config))
    fastcal.load_ensemble(run, device="cpu")
    assert not evil.exists()


def test_settings_of_a_file_import_nothing_without_trust(
    evil: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    settings = tmp_path / "settings.yaml"
    settings.write_text("network: {name: 'evil_lab:Net'}\n")
    for command in ("train", "demo"):
        words = [command, "-d", str(tmp_path), "-o", str(tmp_path / "out"), "--split", "1,1,1"]
        words += ["--config", str(settings)]
        assert main(words) == 2
        assert f"{settings} would import evil_lab" in capsys.readouterr().err
    assert not evil.exists()


@pytest.mark.parametrize("name", [name_in_metadata, name_in_checkpoint])
@pytest.mark.parametrize(
    "network",
    [
        {"in_channels": 1, "num_classes": 3, "dims": 2, "widths": [8192] * 12},
        {"in_channels": 1, "num_classes": 10**9, "dims": 2},
        {"in_channels": 1, "num_classes": 3, "dims": 2, "preset": ["paper"]},
        {"name": 3, "in_channels": 1, "num_classes": 3, "dims": 2},
        {"name": "UNet"},
    ],
)
def test_arguments_are_checked_before_a_constructor_sees_them(
    name: Any, network: dict[str, Any], run: Path
):
    file = name(run, network)
    with pytest.raises(DataError, match="is not the checkpoint of a member"):
        load_member(file)


class Code:
    """What a pickle calls when it is loaded."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch called",)


@pytest.mark.parametrize("name", ["best.pt", "last.pt"])
@pytest.mark.parametrize("plain", [False, True])
def test_checkpoints_call_nothing(
    name: str, plain: bool, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    file = run / "member_00" / name
    if plain:
        file.write_bytes(pickle.dumps(Code()))
    else:
        torch.save({"network": {}, "model": Code()}, file)
    with pytest.raises(DataError, match=name):
        load_member(file)
    assert not (tmp_path / "called").exists()


def test_a_flipped_bit_in_weights_is_an_error(tmp_path: Path):
    network = fastcal.models.build_network({}, in_channels=1, num_classes=2, dims=2)
    file = tmp_path / "best.safetensors"
    fastcal.models.save_weights(file, network)
    content = bytearray(file.read_bytes())
    content[-5] ^= 4
    file.write_bytes(content)
    with pytest.raises(DataError, match="the weights differ from those that were written"):
        read_weights(file)
    buffer = io.BytesIO()
    torch.save({"network": network.spec, "model": network.state_dict()}, buffer)
    content = bytearray(buffer.getvalue())
    content[len(content) // 2] ^= 4
    (tmp_path / "best.pt").write_bytes(content)
    with pytest.raises(DataError, match=r"best\.pt: damaged"):
        load_member(tmp_path / "best.pt")
