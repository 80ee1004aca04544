"""The commands of a tutorial, run from its first line to its last."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from cohort import write_cohort, write_dataset_json
from test_docs import ROOT, blocks

from fastcal.cli import main
from fastcal.data.phantom import write_dataset

TUTORIALS = ROOT / "docs" / "tutorials"


def commands(page: str) -> list[list[str]]:
    lines = "\n".join(blocks(TUTORIALS / page, "sh")).replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("fastcal ")]


def run(words: list[str]) -> None:
    try:
        main(words)
        code: object = 0
    except SystemExit as ended:
        code = ended.code
    assert not code, words


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What three folds of an nnU-Net have written for new cases and for validation."""
    for part, n_cases, prefix in (("Ts", 3, ""), ("Val", 20, "val_")):
        made = tmp_path / f"cases{part}"
        names = [f"{prefix}case_{number:02d}" for number in range(n_cases)]
        folders, labels, _, _ = write_cohort(made, cases=names, seed=n_cases)
        for folder in folders:
            write_dataset_json(folder)
            folder.rename(tmp_path / f"{prefix}{folder.name}")
        labels.rename(tmp_path / f"labels{part}")
        shutil.rmtree(made)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_an_nnu_net_gets_its_uncertainty_and_its_list_of_cases(place: Path) -> None:
    for page in ("nnunet.md", "cases.md"):
        for words in commands(page):
            if words[:2] == ["quality", "fit"]:
                run([*words, "--dataset-json", "val_fold_0/dataset.json"])
            else:
                run(words)
    assert (place / "ensembled" / "entropy" / "case_00.nii.gz").is_file()
    promised = re.findall(
        r"^\| `([\w./]+)`(?:, `([\w./]+)`)? \|", _table("nnunet.md"), re.MULTILINE
    )
    names = {name.replace("CASE", "case_00") for row in promised for name in row if name}
    assert len(names) == 7
    assert [name for name in sorted(names) if not (place / "ensembled" / name).exists()] == []
    assert (place / "temperature.json").is_file()
    assert list((place / "looked").glob("*.csv"))


@pytest.mark.slow
def test_an_ensemble_is_trained_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_dataset("Dataset001_Mine", kind="heart", n_cases=6, n_test=2, shape=(32, 32, 8))
    short = ["--set", "loop.max_epochs=1", "--set", "loop.iterations_per_epoch=2"]
    small = ["--set", "sampling.patch=[16,16,8]", "--set", "network.widths=[4,8]"]
    for words in commands("train.md"):
        run([*words, *short, *small] if words[0] == "train" else words)
    for folder in ("predicted", "single"):
        assert (tmp_path / folder / "summary.json").is_file()


def _table(page: str) -> str:
    text = (TUTORIALS / page).read_text()
    return text[text.index("| in `ensembled`") : text.index("`--space logit`")]
