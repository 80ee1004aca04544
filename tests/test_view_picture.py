"""The picture of ``fastcal view --png``, and what it never takes the place of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from viewer_cases import Made, make

from fastcal.cli import main


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
