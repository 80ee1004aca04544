"""The report of prediction folders: its numbers, what it says of them, and what it refuses."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_cases import (
    AFFINE,
    CASES,
    SHAPE,
    labels_of,
    probabilities_of,
    write_cohort,
    write_member,
)

from fastcal.cli import main
from fastcal.core.errors import DataError
from fastcal.report import build
from fastcal.report.case_view import anchor
from fastcal.report.quantities import WHOLE
from fastcal.report.segment_entropy import binary_entropies


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    return write_cohort(tmp_path_factory.mktemp("report") / "data")


@pytest.fixture(scope="module")
def page(folders: Mapping[str, Path]) -> str:
    out = folders["labels"].parent / "new" / "report.html"
    built = build(
        [folders["ce"], folders["dice"]],
        folders["labels"],
        out,
        images=folders["images"],
        fine_bins=256,
        min_count=20,
        command="fastcal report",
    )
    assert built == out
    return out.read_text(encoding="utf-8")


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found is not None
    content: dict[str, Any] = json.loads(found[1])
    return content


def number(data: Mapping[str, Any], model: str, measure: str, region: str = WHOLE) -> float:
    (found,) = [
        one
        for one in data["numbers"]
        if (one["model"], one["measure"], one["region"]) == (model, measure, region)
    ]
    return float(found["estimate"])


# --- numbers --------------------------------------------------------------------------------------


def test_numbers_are_those_of_the_probabilities(page: str) -> None:
    data = data_of(page)
    truth = [labels_of(k) for k in range(6)]
    mean = [
        np.mean([probabilities_of(k, 1 + m, 1.0) for m in range(2)], 0, np.float64)
        for k in range(6)
    ]
    p = np.concatenate([one.reshape(3, -1) for one in mean], 1)
    y = np.concatenate([one.ravel() for one in truth]).astype(int)
    nll = -np.log(np.take_along_axis(p, y[None], 0)).mean()
    confidence, right = p.max(0), p.argmax(0) == y
    place = np.clip(np.ceil(confidence * 15).astype(int) - 1, 0, 14)
    ece = sum(abs((right[place == b] - confidence[place == b]).sum()) for b in range(15)) / y.size
    model = "Cross entropy, ensemble of 2"
    assert number(data, model, "nll") == pytest.approx(nll, abs=1e-6)
    assert number(data, model, "ece") == pytest.approx(ece, abs=1e-6)
    dice = np.array(
        [
            [
                2 * ((q.argmax(0) == k) & (t == k)).sum()
                / ((q.argmax(0) == k).sum() + (t == k).sum())
                for k in (1, 2)
            ]
            for q, t in zip(mean, truth, strict=True)
        ]
    )  # fmt: skip
    assert number(data, model, "dice") == pytest.approx(dice.mean(), abs=1e-9)
    assert np.allclose(data["dice"][model], dice)
    members = [
        np.concatenate([probabilities_of(k, 1 + m, 1.0).reshape(3, -1) for k in range(6)], 1)
        for m in range(2)
    ]
    singles = [-np.log(np.take_along_axis(one, y[None], 0).astype(float)).mean() for one in members]
    assert number(data, "Cross entropy, single (mean of 2)", "nll") == pytest.approx(
        np.mean(singles), abs=1e-6
    )
    assert {one["region"] for one in data["numbers"]} == {"", "box:8:2", "band:3"}


def test_the_parts_of_the_bins_add_up_to_the_error(page: str) -> None:
    data = data_of(page)
    assert len(data["reliability"]) == 6
    for one in data["reliability"]:
        error = number(data, one["model"], "ece", one["region"])
        assert sum(map(abs, one["part"])) == pytest.approx(error, abs=1e-12)
        for part, confidence, accuracy in zip(
            one["part"], one["confidence"], one["accuracy"], strict=True
        ):
            assert confidence is None or (part > 0) == (confidence > accuracy) or abs(part) < 1e-12


def test_segment_entropy_is_that_of_the_formula() -> None:
    p = probabilities_of(3, 1, 1.0)
    label = p.argmax(0)
    masks = [label == 1, label == 2]
    for found, k in zip(binary_entropies(p[1:], masks), (1, 2), strict=True):
        q = p[k][label == k].astype(np.float64)
        assert found == pytest.approx(-(q * np.log(q) + (1 - q) * np.log1p(-q)).mean(), rel=1e-6)
    assert math.isnan(binary_entropies(p[1:], [label > 9, label == 2])[0])


def test_nnunet_folders_and_those_of_fastcal_have_the_same_entropy(
    folders: Mapping[str, Path], tmp_path: Path
) -> None:
    """One is computed from npz, the other read from ``segments.json``."""
    for file in folders["ce"].iterdir():
        if file.suffix in (".npz", ".gz"):
            (tmp_path / "plain").mkdir(exist_ok=True)
            (tmp_path / "plain" / file.name).write_bytes(file.read_bytes())
    described = folders["labels"].parent / "dataset.json"
    out = build(
        [folders["ce"], tmp_path / "plain"],
        folders["labels"],
        tmp_path / "r.html",
        names=["fastcal", "nnU-Net"],
        dataset_json=described,
        members=False,
        regions=(),
        fine_bins=0,
    )
    found = data_of(out.read_text())["entropy"]
    assert np.allclose(found["fastcal"], found["nnU-Net"], atol=1e-6)


def test_pictures_fit_the_size_that_is_given(folders: Mapping[str, Path], tmp_path: Path) -> None:
    sizes = []
    for megabytes in (1.51, 1.53, 15):
        out = build(
            folders["ce member"], folders["labels"], tmp_path / "r.html", images=folders["images"],
            megabytes=megabytes, regions=(), fine_bins=0,
        )  # fmt: skip
        text = out.read_text()
        assert len(text) < 1e6 * megabytes
        sizes.append((text.count("<article"), text.count("url(data:")))
    assert sizes[0] <= sizes[1] <= sizes[2]
    assert sizes[0] < sizes[2]
    assert sizes[2][0] == 6


# --- the page -------------------------------------------------------------------------------------


def test_page_asks_the_network_for_nothing_and_escapes_names(page: str) -> None:
    assert "Cohort &lt;1&gt;" in page
    assert "Cohort <1>" not in page
    assert not re.search(r"""(src|href)\s*=\s*["'](?!#|data:)""", page)
    assert not re.search(r"url\((?!data:)", page)
    assert not re.search(r"https?://", page)


def test_names_cannot_become_markup(folders: Mapping[str, Path], tmp_path: Path) -> None:
    nasty = '"><script>alert(1)</script>'
    out = build(
        folders["ce member"], folders["labels"], tmp_path / "r.html", names=[nasty],
        title=nasty, regions=(), fine_bins=0, command=nasty,
    )  # fmt: skip
    text = out.read_text()
    assert "alert(1)" in text
    assert "<script>alert" not in text


def test_page_holds_every_section_and_the_numbers_of_its_tables(page: str) -> None:
    for section in (
        *("verdict", "comparison", "calibration", "cases"),
        *("uncertainty", "findings", "provenance"),
    ):
        assert f'<section id="{section}"' in page
    data = data_of(page)
    value = number(data, "Dice loss, ensemble of 2", "nll", "box:8:2")
    assert f"{value:.4f}" in page
    assert page.count("<svg") > 20
    assert "sha256" in page
    for case in CASES:
        assert f'id="{anchor(case)}"' in page


def test_folders_of_label_maps_alone_give_dice_and_say_what_is_missing(
    folders: Mapping[str, Path], tmp_path: Path
) -> None:
    bare = write_member(tmp_path / "bare", 1, 1.0, npz=False)
    out = build(
        bare, folders["labels"], tmp_path / "r.html",
        dataset_json=folders["labels"].parent / "dataset.json",
    )  # fmt: skip
    text = out.read_text()
    assert "has no probabilities" in text
    assert 'id="calibration"' not in text
    assert {one["measure"] for one in data_of(text)["numbers"]} == {"dice"}


def test_cases_that_a_folder_lacks_are_left_out_and_flagged(
    folders: Mapping[str, Path], tmp_path: Path
) -> None:
    fewer = write_member(tmp_path / "fewer", 3, 1.0, cases=range(1, 6))
    (fewer / "case_2.npz").unlink()
    out = build(
        [folders["ce member"], fewer], folders["labels"], tmp_path / "r.html", regions=(),
        fine_bins=0,
    )  # fmt: skip
    text = out.read_text()
    assert data_of(text)["cases"] == ["case_1", "case_3", "case_4", "case_5"]
    assert "case_0 left out: no prediction" in text
    assert "case_2 left out: no probabilities" in text


def test_missed_structures_are_red_flags(folders: Mapping[str, Path], tmp_path: Path) -> None:
    from report_cases import save

    blind = write_member(tmp_path / "blind", 1, 1.0, npz=False)
    label = labels_of(2)
    save(blind / "case_2.nii.gz", np.where(label == 1, 2, label).astype(np.uint8))
    out = build(
        blind, folders["labels"], tmp_path / "r.html",
        dataset_json=folders["labels"].parent / "dataset.json",
    )  # fmt: skip
    assert "blind misses core entirely in case_2" in out.read_text()


def test_warnings_of_other_commands_stand_beside_the_cases(
    folders: Mapping[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "quality.json").write_text(
        json.dumps(
            {
                "version": 1,
                "structures": [
                    {"case": "case_5", "structure": "core", "dice": 0.4, "reason": "entropy high"}
                ],
            }
        )
    )
    (tmp_path / "ood.json").write_text(
        json.dumps({"version": 1, "cases": [{"case": "case_1", "flagged": ["binary_entropy"]}]})
    )
    out = build(
        folders["ce member"], folders["labels"], tmp_path / "r.html", warnings=[tmp_path],
        regions=(), fine_bins=0,
    )  # fmt: skip
    text = out.read_text()
    for words in ("predicted Dice 0.40 is low", "entropy high", "unlike the training"):
        assert words in text
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(DataError, match=r"other\.json: must be quality\.json or ood\.json"):
        build(
            folders["ce member"], folders["labels"], tmp_path / "x.html",
            warnings=[tmp_path / "other.json"],
        )  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"predictions": []}, "predictions must be at least one folder, got none"),
        ({"names": ["a", "b"]}, "names must hold one name per folder, 1, got 2"),
        ({"megabytes": 0}, "megabytes must be above 0, got 0"),
        ({"min_count": -1}, "min_count must be at least 0, got -1"),
        ({"regions": ["ball"]}, "region must be .*, got 'ball'"),
        ({"regions": ["prediction"]}, "regions must be made from the labels"),
        ({"fine_bins": 100}, "fine_bins must be 0 or a power of two"),
        ({"predictions": "nowhere"}, "nowhere: no such folder"),
        ({"images": "nowhere"}, "nowhere: no such folder"),
    ],
)
def test_bad_arguments_are_named_and_nothing_is_written(
    changed: dict[str, Any], message: str, folders: Mapping[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "r.html"
    given = {"predictions": folders["ce member"], "labels": folders["labels"], "out": out}
    with pytest.raises(ValueError, match=message):
        build(**(given | changed))
    assert not out.exists()


def test_the_page_never_takes_the_place_of_an_input(folders: Mapping[str, Path]) -> None:
    label = folders["labels"] / "case_0.nii.gz"
    before = label.read_bytes()
    with pytest.raises(DataError, match="is an input"):
        build(folders["ce member"], folders["labels"], label)
    assert label.read_bytes() == before


def test_the_page_never_takes_the_place_of_what_describes_or_warns(
    folders: Mapping[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "ood.json").write_text('{"version": 1, "cases": []}')
    described = tmp_path / "described.json"
    described.write_bytes((folders["labels"].parent / "dataset.json").read_bytes())
    for target in (tmp_path / "ood.json", described):
        before = target.read_bytes()
        with pytest.raises(DataError, match="is an input"):
            build(
                folders["ce member"], folders["labels"], target, dataset_json=described,
                warnings=[tmp_path],
            )  # fmt: skip
        assert target.read_bytes() == before


@pytest.mark.parametrize("way", ["itself", "hard link", "link"])
@pytest.mark.parametrize(
    "name",
    [
        "ce/ensemble/entropy/case_0.nii.gz",
        "ce/ensemble/prediction.json",
        "ce/ensemble/case_1.npz",
        "ce/member_1/case_5.nii.gz",
        "ce/member_0/case_0.npz",
        "images/case_2_0001.nii.gz",
        "labels/case_4.nii.gz",
    ],
)
def test_the_page_never_takes_the_place_of_maps_members_or_channels(
    folders: Mapping[str, Path], tmp_path: Path, name: str, way: str
) -> None:
    root = folders["labels"].parent
    channel = root / "images/case_2_0001.nii.gz"
    channel.write_bytes(b"a second channel, which no page shows")
    file, out = root / name, tmp_path / "page.html"
    before = file.read_bytes()
    try:
        if way == "itself":
            out = file
        else:
            (os.link if way == "hard link" else os.symlink)(file, out)
        with pytest.raises(DataError, match="is an input"):
            build(folders["ce"], folders["labels"], out, images=folders["images"])
        assert file.read_bytes() == before
    finally:
        channel.unlink()


def test_a_folder_is_not_compared_with_itself(folders: Mapping[str, Path], tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(folders["ce"])
    for second in (folders["ce"], tmp_path / "linked"):
        with pytest.raises(DataError, match=r"is compared with itself"):
            build([folders["ce"], folders["dice"], second], folders["labels"], tmp_path / "r.html")


def test_an_image_on_another_grid_is_named(folders: Mapping[str, Path], tmp_path: Path) -> None:
    from report_cases import save

    for case in CASES:
        save(tmp_path / "images" / f"{case}_0000.nii.gz", np.zeros((3, *SHAPE[1:]), np.float32))
    with pytest.raises(DataError, match=r"case_\d_0000\.nii\.gz: shape 3 x 12 x 6 differs"):
        build(
            folders["ce member"], folders["labels"], tmp_path / "r.html",
            images=tmp_path / "images", regions=(), fine_bins=0,
        )  # fmt: skip
    assert not (tmp_path / "r.html").exists()
    assert AFFINE.shape == (4, 4)


def test_command_line_writes_the_page_and_says_bad_input_in_a_line(
    folders: Mapping[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r.html"
    words = ["report", "-p", str(folders["ce"]), str(folders["dice member"])]
    words += ["-g", str(folders["labels"]), "-o", str(out), "--name", "one", "two"]
    assert main([*words, "--no-members", "--no-regions", "--fine-bins", "0"]) == 0
    said = capsys.readouterr()
    assert said.out == f"written: {out}\n"
    assert "6/6 case_5" in said.err
    assert [one["title"] for one in data_of(out.read_text())["models"]] == ["one", "two"]
    assert main([*words, "--no-regions", "--region", "box"]) == 2
    assert main(["report", "-p", str(tmp_path), "-g", str(folders["labels"]), "-o", str(out)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2
