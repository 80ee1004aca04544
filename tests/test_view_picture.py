"""The picture of ``fastcal view --png``, what it never takes the place of, and scales of maps."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from viewer_cases import Made, make

import fastcal
from fastcal.cli import main
from fastcal.viewer import ViewedFolder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("viewer"))


@pytest.mark.parametrize("kind", ["image of another case", "quality", "link"])
def test_the_picture_never_takes_the_place_of_an_input(
    made: Made, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    quality = tmp_path / "listed.json"
    quality.write_text(json.dumps({"structures": [{"case": "alpha", "dice": 0.5}]}))
    image = next(path for path in sorted(made.images.iterdir()) if "alpha" in path.name)
    link = tmp_path / "beta.png"
    link.symlink_to(image)
    target = {"image of another case": image, "quality": quality, "link": link}[kind]
    before = target.read_bytes()
    words = ["view", str(made.out), "beta", "-i", str(made.images), "--quality", str(quality)]
    assert main([*words, "--png", str(target)]) == 2
    assert "is an input" in capsys.readouterr().err
    assert target.read_bytes() == before


def test_the_scale_of_summed_entropies_reaches_their_largest(tmp_path: Path) -> None:
    made = make(tmp_path)
    described = {
        "channel_names": {"0": "T1"},
        "labels": {"background": 0, "whole": [1, 2], "core": [2], "edge": [3]},
        "regions_class_order": [1, 2, 3],
    }
    (made.out / "dataset.json").write_text(json.dumps(described))
    case = ViewedFolder(made.out, made.images).open("alpha")
    assert case.layer("entropy").high == pytest.approx(3 * math.log(2))
    members = torch.full((2, 1, 3, 4, 4, 4), 0.5)
    result = fastcal.ensemble_statistics(
        list(members), maps=("label", "entropy"), from_logits=False, multilabel=True
    )
    shown = fastcal.view(result, np.zeros((4, 4, 4), np.float32))
    assert shown.case.layer("entropy").high == pytest.approx(3 * math.log(2))
    assert float(result.entropy.max()) == pytest.approx(3 * math.log(2))
