"""`fastcal.load_ensemble`, and the export of networks to files for other programs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import oracle
import pytest
import torch
from cohort import write_run

import fastcal
from fastcal.cli.app import main
from fastcal.core.errors import DataError
from fastcal.models import Ensemble, UNet, export_run, sliding_window
from fastcal.models.export import PlainEnsemble
from fastcal.models.trust import UntrustedNetworkError

OUTPUTS = ("mean", "entropy", "mutual_information")


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 1, 13, 10, generator=torch.Generator().manual_seed(3))


def assert_close(made: object, expected: object) -> None:
    for one, other in zip(made, expected, strict=True):
        torch.testing.assert_close(torch.as_tensor(one), other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_ensemble_of_a_run_gives_mean_entropy_and_mutual_information(
    tmp_path: Path, images: torch.Tensor, head: str
) -> None:
    networks = write_run(tmp_path, members=3, head=head)
    ensemble = fastcal.load_ensemble(tmp_path, device="cpu")
    assert ensemble.train().training is False
    with torch.no_grad():
        logits = [network(images).double().numpy() for network in networks]
    expected = oracle.maps(logits, activation=head)
    made = ensemble(images)
    assert made._fields == OUTPUTS
    for name in OUTPUTS:
        np.testing.assert_allclose(getattr(made, name), getattr(expected, name), atol=2e-6)
    assert_close(PlainEnsemble(ensemble)(images), made)
    chosen = fastcal.load_ensemble(tmp_path, members=[2, 0], device="cpu")
    assert_close(chosen(images), Ensemble([networks[2], networks[0]])(images))


def test_ensemble_trained_on_patches_sees_larger_images_through_windows(
    tmp_path: Path, images: torch.Tensor
) -> None:
    (network,) = write_run(tmp_path, members=1, patch=(8, 8))
    logits = sliding_window(network, images, patch=(8, 8), overlap=0.25)
    ensemble = fastcal.load_ensemble(tmp_path, device="cpu")
    torch.testing.assert_close(ensemble(images, overlap=0.25).mean, logits.softmax(1))


def test_members_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="members must agree in their number of axes"):
        Ensemble([UNet(1, 2), UNet(1, 3)])
    with pytest.raises(ValueError, match="members must hold at least one network, got none"):
        Ensemble([])
    write_run(tmp_path, members=0)
    with pytest.raises(DataError, match="has no member whose training is finished"):
        fastcal.load_ensemble(tmp_path)
    with pytest.raises(AttributeError, match="no attribute 'load_ensembles'"):
        _ = fastcal.load_ensembles


def test_asking_fastcal_for_an_ensemble_is_what_loads_networks() -> None:
    program = (
        "import sys, fastcal; print('fastcal.models' in sys.modules); "
        "fastcal.load_ensemble; print('fastcal.models' in sys.modules, 'monai' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["False", "True", "False"]


def test_torchscript_takes_any_size_and_says_where_it_comes_from(
    tmp_path: Path, images: torch.Tensor, capsys: pytest.CaptureFixture[str]
) -> None:
    networks = write_run(tmp_path / "run")
    assert main(["export", "-m", f"{tmp_path}/run", "-o", f"{tmp_path}/all.pt"]) == 0
    shown = capsys.readouterr().out
    assert "all.pt: images -> mean, entropy, mutual_information (within" in shown
    extra = {"fastcal": ""}
    loaded = torch.jit.load(tmp_path / "all.pt", _extra_files=extra)
    ensemble = fastcal.load_ensemble(tmp_path / "run", device="cpu")
    for size in (images, images[:1, :, :8, :7], torch.rand(3, 1, 16, 24)):
        assert_close(loaded(size), ensemble(size))
    described = json.loads(extra["fastcal"])
    assert described["members"] == ["member_00", "member_01"]
    assert described["outputs"] == list(OUTPUTS)
    assert described["labels"] == {"background": 0, "organ_1": 1, "organ_2": 2}

    made = export_run(tmp_path / "run", tmp_path / "one", member=1, format="torchscript")
    assert made.outputs == ("logits",)
    assert_close([torch.jit.load(tmp_path / "one")(images)], [networks[1](images)])


def test_onnx_takes_any_size_and_says_where_it_comes_from(
    tmp_path: Path, images: torch.Tensor
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime runs what was exported")
    write_run(tmp_path / "run")
    made = export_run(tmp_path / "run", tmp_path / "all.onnx")
    assert made.difference is not None
    assert made.difference < 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "all.onnx")
    ensemble = fastcal.load_ensemble(tmp_path / "run", device="cpu")
    for size in (images, torch.rand(1, 1, 16, 7)):
        assert_close(session.run(list(OUTPUTS), {"images": size.numpy()}), ensemble(size))
    described = json.loads(session.get_modelmeta().custom_metadata_map["fastcal"])
    assert described["head"] == "softmax"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.onnx", "run"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"out": "x.bin"},
            r"out must be a name that ends in \.pt, \.pth, \.ts or .*, got .*x\.bin",
        ),
        ({"format": "tflite"}, "format must be torchscript or onnx, got 'tflite'"),
        ({"member": 7}, r"members must be among \[0, 1\], got 7"),
        ({"member": 0, "members": [1]}, "member must be None where members are given, got 0"),
        ({"size": (8,)}, r"size must be 2 positive extents, got \(8,\)"),
    ],
)
def test_bad_option_of_an_export_is_named(
    tmp_path: Path, options: dict[str, object], message: str
) -> None:
    write_run(tmp_path / "run")
    out = tmp_path / str(options.get("out", "x.pt"))
    rest = {name: value for name, value in options.items() if name != "out"}
    with pytest.raises(ValueError, match=message):
        export_run(tmp_path / "run", out, **rest)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_network_that_a_trace_does_not_follow_is_not_exported(tmp_path: Path) -> None:
    write_run(tmp_path / "run", members=1)
    config = json.loads((tmp_path / "run/config.json").read_text())
    network = fastcal.models.build_network(
        {"name": "test_export:Branching"}, in_channels=1, num_classes=3, dims=2
    )
    fastcal.models.save_weights(tmp_path / "run/member_00/best.safetensors", network)
    (tmp_path / "run/config.json").write_text(json.dumps(config))
    with pytest.raises(UntrustedNetworkError, match="would import test_export and call its Bran"):
        export_run(tmp_path / "run", tmp_path / "x.pt")
    trust = ["test_export"]
    with pytest.raises(
        ValueError, match=r"x\.pt: the exported network differs by .* from the run's"
    ):
        export_run(tmp_path / "run", tmp_path / "x.pt", trust=trust)
    fixed = export_run(tmp_path / "run", tmp_path / "x.pt", size=(40, 21), trust=trust)
    assert (fixed.size, fixed.difference) == ((40, 21), 0)


class Branching(torch.nn.Module):
    """Does something else for small images."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits = self.layer(image)
        return logits if image.shape[2] > 16 else -logits
