"""Parts of a study: ensembles drawn from a pool, slabs, cases, scores, claims, stages."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcal import CalibrationStatistics, EnsembleAccumulator, ensemble_statistics
from fastcal.core.errors import DataError
from fastcal.data.dataset import Case, Dataset
from fastcal.data.nifti import Geometry
from fastcal.data.preprocess import Preprocessing
from fastcal.report.claims import CONTRADICTED, SUPPORTED, UNDECIDED, Evidence, Sign
from fastcal.report.measured import Measured, difference, mean_of_cases
from fastcal.study import slabs as slabs_module
from fastcal.study import streaming
from fastcal.study.claim import claim
from fastcal.study.comparison import ENSEMBLE, SINGLE, Model, undefined_of
from fastcal.study.design import LOSSES, STUDIES, design
from fastcal.study.markdown import left_out
from fastcal.study.quality import detection
from fastcal.study.records import CaseRecord, Streamed, is_current
from fastcal.study.sets import EvaluationSet
from fastcal.study.slabs import slabs
from fastcal.study.split import chosen_split
from fastcal.study.stages import Stages
from fastcal.study.subsets import Subset, SubsetSums, draw_subsets, most_open

# --- ensembles out of a pool ----------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 6), st.integers(0, 3))
def test_ensembles_are_different_and_of_members_of_the_pool(
    pool: int, draws: int, seed: int
) -> None:
    sizes = sorted({1, min(2, pool), pool})
    found = draw_subsets(pool, sizes, draws=draws, seed=seed)
    for size in sizes:
        members = [subset.members for subset in found if subset.size == size]
        assert len(set(members)) == len(members) <= draws
        assert all(len(set(one)) == size and max(one) < pool for one in members)
        assert all(list(one) == sorted(one) for one in members)


def test_every_ensemble_is_drawn_where_there_are_not_more() -> None:
    assert len(draw_subsets(5, (2,), draws=10)) == 10
    assert [subset.members for subset in draw_subsets(4, (4,), draws=10)] == [(0, 1, 2, 3)]


def test_ensembles_share_no_member_until_all_members_are_used() -> None:
    members = [one.members for one in draw_subsets(25, (5,), draws=5, seed=3)]
    assert sorted(member for one in members for member in one) == list(range(25))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pool": 0, "sizes": (1,), "draws": 1}, "pool must be at least 1, got 0"),
        ({"pool": 3, "sizes": (4,), "draws": 1}, "sizes must be from 1 to 3, the members, got 4"),
        ({"pool": 3, "sizes": (1,), "draws": 0}, "draws must be at least 1, got 0"),
    ],
)
def test_bad_numbers_of_members_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_subsets(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_side_by_side_sums_equal_each_ensemble_on_its_own_bit_for_bit(activation: str) -> None:
    generator = torch.Generator().manual_seed(0)
    members = [torch.randn(1, 3, 4, 5, 6, generator=generator) for _ in range(7)]
    target = torch.randint(0, 3, (1, 4, 5, 6), generator=generator)
    subsets = draw_subsets(7, (1, 2, 5, 7), draws=4, seed=1)
    maps = ("mean", "entropy", "label")
    sums = SubsetSums(subsets, lambda _: EnsembleAccumulator(maps, activation=activation))  # type: ignore[arg-type]
    seen = []
    for number, member in enumerate(members):
        for subset, accumulator in sums.add(number, member):
            seen.append(subset)
            found = accumulator.finalize(target)
            alone = ensemble_statistics(
                [members[one] for one in subset.members],
                target,
                maps=maps,
                activation=activation,  # type: ignore[arg-type]
            )
            assert all(torch.equal(getattr(found, name), getattr(alone, name)) for name in maps)
            assert found.calibration == alone.calibration
    assert sorted(seen, key=subsets.index) == list(subsets)


def test_sums_are_freed_as_soon_as_an_ensemble_is_complete() -> None:
    subsets = draw_subsets(10, (1, 2, 5, 10), draws=3, seed=0)
    open_now: set[Subset] = set()
    most = 0
    sums = SubsetSums(subsets, lambda subset: (open_now.add(subset), EnsembleAccumulator())[1])
    for number in range(10):
        for subset, _ in sums.add(number, torch.zeros(1, 2, 3)):
            most = max(most, len(open_now))
            open_now.discard(subset)
    assert not open_now
    assert most <= most_open(subsets) < len(subsets)


# --- slabs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slabs_hold_every_slice_once_where_it_lies_in_the_world(
    axis: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    affine = np.array([[0.0, -2.0, 0.0, 5.0], [1.5, 0, 0, -7], [0.3, 0, 4.0, 11], [0, 0, 0, 1]])
    like = Geometry.from_affine(affine, (5, 6, 7))
    extents = [n for other, n in enumerate((5, 6, 7)) if other != axis]
    items = torch.arange(like.shape[axis]).reshape(-1, 1, 1, 1).expand(-1, 1, *extents)
    monkeypatch.setattr(slabs_module, "MOST_BYTES", 2 * 100 * 5 * 6 * 7 // like.shape[axis])
    parts = list(slabs(items, like, Preprocessing(slice_axis=axis), 100))
    assert [len(part.items) for part in parts] == [2] * (like.shape[axis] // 2) + [1] * (
        like.shape[axis] % 2
    )
    assert torch.equal(torch.cat([part.items for part in parts]), items)
    for part in parts:
        start = part.place[axis].start
        corner = np.zeros(3)
        corner[axis] = start
        assert np.allclose(part.like.affine[:3, 3], affine[:3, :3] @ corner + affine[:3, 3])
        assert part.like.shape[axis] == part.place[axis].stop - start


def test_volumes_for_networks_in_three_dimensions_stay_whole() -> None:
    like = Geometry.from_affine(np.eye(4), (5, 6, 7))
    (part,) = slabs(torch.zeros(1, 1, 5, 6, 7), like, Preprocessing(dims=3), 1 << 40)
    assert part.items.shape == (1, 1, 5, 6, 7)


# --- scores ---------------------------------------------------------------------------------------


def test_a_paired_difference_is_that_of_the_cases() -> None:
    random = np.random.default_rng(0)
    hard = random.normal(0, 5, 30)
    first, second = (mean_of_cases(hard + shift) for shift in (0.0, 0.1))
    found = difference(first, second)
    assert found.estimate == pytest.approx(-0.1)
    assert found.low == pytest.approx(-0.1)
    assert found.high == pytest.approx(-0.1)
    assert found.p_value < 1e-5
    assert found.n_cases == 30
    apart = first.interval
    assert apart[1] - apart[0] > 1


def test_an_interval_of_a_mean_is_that_of_theory() -> None:
    values = np.random.default_rng(1).normal(3, 2, 200)
    low, high = mean_of_cases(values).interval
    half = 1.96 * values.std() / np.sqrt(200)
    assert (low, high) == (
        pytest.approx(values.mean() - half, abs=0.05),
        pytest.approx(values.mean() + half, abs=0.05),
    )


def test_cases_without_a_value_are_left_out_of_a_mean() -> None:
    found = mean_of_cases(np.array([1.0, np.nan, 3.0]))
    assert found.estimate == 2.0
    assert difference(found, found).n_cases == 2


def test_a_mean_distance_says_how_many_structures_it_leaves_out() -> None:
    """Two draws, two cases, two structures: of one model, three are missed, of the other none."""
    nan = np.nan
    missed = [np.array([[1.0, nan], [nan, 2.0]]), np.array([[1.0, 2.0], [nan, 2.0]])]
    assert undefined_of(missed) == (3, 8)

    def model(kind: str, hd95: tuple[int, int]) -> Model:
        undefined = {"dice": (0, 8), "hd95": hd95}
        return Model("ce", kind, 1, 2, {}, CalibrationStatistics(2), undefined)

    said = left_out([model(SINGLE, (3, 8)), model(ENSEMBLE, (0, 8))])
    assert "cross entropy, single (mean of 2): 3 of 8)" in said.lower()
    assert "is defined for every" in left_out([model(ENSEMBLE, (0, 8))])


def streamed_of(scores: np.ndarray, cases: tuple[str, ...], subset: Subset) -> Streamed:
    """Records of one structure whose entropy is given, case by case."""
    records = tuple(
        CaseRecord(
            "",
            np.zeros((1, 1, 1), np.int64),
            np.array([[0.5]]),
            np.array([[np.nan]]),
            {"binary_entropy": np.array([[score]])},
        )
        for score in scores
    )
    return Streamed(Path(), cases, ("organ",), (subset,), (subset,), {}, records)


def test_detection_is_the_chance_that_a_case_from_outside_is_less_sure() -> None:
    subset = Subset(1, 0, (0,))
    within, beyond = np.array([0.1, 0.2, 0.3]), np.array([0.3, 0.9, np.nan, 0.05])
    found = detection(
        streamed_of(within, ("a", "b", "c"), subset),
        streamed_of(beyond, ("d", "e", "f", "g"), subset),
        subset,
        "binary_entropy",
        labels=("ce", "single", "outside"),
    )
    # A case without any predicted structure is flagged first; a tie counts half.
    pairs = [(np.inf if np.isnan(b) else b) > w or 0.5 * (b == w) for b in beyond for w in within]
    assert found.auroc.value == pytest.approx(np.mean(pairs))
    assert found.auroc.low <= found.auroc.value <= found.auroc.high
    assert found.within == pytest.approx(0.2)
    assert not found.paired


def test_shifted_twins_are_drawn_together() -> None:
    subset = Subset(1, 0, (0,))
    cases = tuple(f"case_{number}" for number in range(12))
    hard = np.random.default_rng(0).random(12)
    found = detection(
        streamed_of(hard, cases, subset),
        streamed_of(hard, cases, subset),
        subset,
        "binary_entropy",
        labels=("ce", "single", "noise"),
    )
    # Whatever cases are drawn, a shift that changes nothing cannot be detected.
    assert found.paired
    assert (found.auroc.low, found.auroc.value, found.auroc.high) == (0.5, 0.5, 0.5)


# --- claims ---------------------------------------------------------------------------------------


def claimed(low: float, high: float, limit: float = 0.0) -> Evidence:
    return Evidence("a", "", (low + high) / 2, low, high, float("nan"), limit)


def test_a_claim_is_decided_by_the_interval_of_every_comparison() -> None:
    below, above, across = claimed(-2, -1), claimed(1, 2), claimed(-1, 1)
    assert [one.verdict for one in (below, above, across)] == [SUPPORTED, CONTRADICTED, UNDECIDED]
    assert claimed(-0.9, -0.6, limit=-0.5).verdict == SUPPORTED
    assert claimed(-0.9, -0.4, limit=-0.5).verdict == UNDECIDED
    assert claimed(float("nan"), float("nan")).verdict == UNDECIDED
    assert Sign("c", (below, below)).verdict == SUPPORTED
    assert Sign("c", (below, across)).verdict == UNDECIDED
    assert Sign("c", (below, across, above)).verdict == CONTRADICTED


# --- stages, settings, records --------------------------------------------------------------------


def test_stages_keep_their_times_when_one_is_interrupted(tmp_path: Path) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    stages = Stages(tmp_path, ["first", "second"], shown=False)
    stages.run("first", lambda: None)
    with pytest.raises(KeyboardInterrupt):
        stages.run("second", stop)
    kept = Stages(tmp_path, ["first", "second"], shown=False)
    assert [stage.name for stage in kept.times] == ["first", "second"]
    assert all(stage.seconds >= 0 and not stage.finished for stage in kept.times)
    kept.run("second", lambda: None)
    assert kept.times[1].finished


def test_a_folder_is_one_experiments_own(tmp_path: Path) -> None:
    file = tmp_path / "study.json"
    assert claim(file, {"seed": 0, "members": 2}) is None
    assert claim(file, {"seed": 0, "members": 3}, free=("members",)) == {"seed": 0, "members": 2}
    with pytest.raises(DataError, match="seed must be 1, got 0"):
        claim(file, {"seed": 1, "members": 2})


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    record = CaseRecord(
        "key",
        np.arange(12).reshape(2, 2, 3),
        np.array([[0.5, np.nan]]),
        np.array([[1.5, 2.0]]),
        {"entropy": np.array([[0.25, 0.5]])},
        "files",
    )
    file = tmp_path / "case.npz"
    record.write(file)
    found = CaseRecord.read(file)
    assert found.key == "key"
    assert np.array_equal(found.rows, record.rows)
    assert np.array_equal(found.dice, record.dice, equal_nan=True)
    assert np.array_equal(found.scores["entropy"], record.scores["entropy"])
    assert is_current(file, "key", "files")
    assert not is_current(file, "other", "files")
    assert not is_current(file, "key", "other files")
    assert not is_current(tmp_path / "none.npz", "key", "files")
    replace(record, inputs="").write(tmp_path / "older.npz")
    assert is_current(tmp_path / "older.npz", "key", "files")
    file.write_bytes(file.read_bytes()[:-40])
    assert not is_current(file, "key", "files")
    with pytest.raises(DataError, match=r"case\.npz"):
        CaseRecord.read(file)


@pytest.mark.parametrize("changed", ["labelsTr/b.nii", "imagesTr/b_0000.nii"])
def test_a_case_whose_file_was_rewritten_in_its_size_is_streamed_again(
    changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = []
    for name in ("a", "b"):
        image, label = tmp_path / f"imagesTr/{name}_0000.nii", tmp_path / f"labelsTr/{name}.nii"
        for path in (image, label):
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(name.encode() * 400)
        cases.append(Case(name, (image,), label))
    done = []

    def record(_stream: object, _evaluation: object, case: Case, key: str) -> CaseRecord:
        done.append(case.name)
        rows, nothing = np.zeros((1, 1, 1), np.int64), np.zeros((1, 1))
        scores = {"entropy": nothing}
        return CaseRecord(key, rows, nothing, nothing, scores, streaming.inputs_of(case))

    monkeypatch.setattr(streaming, "_record", record)
    stream = SimpleNamespace(
        key=lambda _: "key", structures=("s",), subsets=(), scored=(), settings={}
    )
    for expected in (["a", "b"], []):
        done.clear()
        streaming.stream_set(stream, EvaluationSet("test", tuple(cases)), tmp_path / "streamed")
        assert done == expected
    (tmp_path / changed).write_bytes(b"c" * 400)
    streaming.stream_set(stream, EvaluationSet("test", tuple(cases)), tmp_path / "streamed")
    assert done == ["b"]


@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.parametrize("fast", [False, True])
def test_every_design_can_be_trained(name: str, fast: bool) -> None:
    found = design(name, fast=fast)
    for loss in LOSSES:
        for part in ("pool", "dropout", "length"):
            config = found.config(loss, part)
            assert config.loss.name == loss
            assert config.head == ("sigmoid" if loss == "dice" else "softmax")
    assert found.config("ce", "dropout").network["dropout"] == 0.5
    length = found.config("ce", "length").loop
    assert length.early_stopping is None
    assert length.keep_epochs[-1] == length.max_epochs
    assert found.sizes(found.members)[-1] == found.members


def test_the_paper_s_numbers_are_those_of_the_full_designs() -> None:
    assert design("brain").split == (66, 22, 102)
    assert design("heart").split == (40, 10, 50)
    assert design("prostate").split == (16, 4, 20)
    assert design("prostate").config("ce").sampling.batch_size == 16
    assert design("brain").config("dice").sampling.batch_size == 32
    assert design("heart").config("ce").preprocessing.size == (224, 224)
    assert design("prostate").sizes(50) == (1, 2, 5, 10, 25, 50)


def test_measured_without_values_has_no_interval() -> None:
    nothing = Measured(np.nan, np.full(3, np.nan), np.full(10, np.nan))
    assert np.isnan(nothing.interval).all()
    assert np.isnan(difference(nothing, nothing).p_value)


# --- which cases ----------------------------------------------------------------------------------


def dataset_of(folder: Path, names: list[str]) -> Dataset:
    """A dataset whose files are empty: splits look at names alone."""
    described = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "organ": 1}}
    text = json.dumps({**described, "file_ending": ".nii.gz", "numTraining": len(names)})
    for place in ("imagesTr", "labelsTr"):
        (folder / place).mkdir()
    (folder / "dataset.json").write_text(text)
    for name in names:
        (folder / "imagesTr" / f"{name}_0000.nii.gz").touch()
        (folder / "labelsTr" / f"{name}.nii.gz").touch()
    return Dataset.open(folder)


def test_a_split_of_the_dataset_goes_before_the_papers(tmp_path: Path) -> None:
    names = [f"case_{number}" for number in range(8)]
    dataset = dataset_of(tmp_path, names)
    own = {"train": names[4:], "val": names[2:4], "test": names[:2]}
    (tmp_path / "splits.json").write_text(json.dumps(own))
    plan = replace(design("heart"), split=(3, 1, 4))
    assert chosen_split(dataset, plan, given=False) == own
    assert chosen_split(dataset, plan, given=True)["test"] == names[4:]
    (tmp_path / "splits.json").write_text(json.dumps({"train": names[4:], "val": names[:4]}))
    assert chosen_split(dataset, plan, given=False)["test"] == names[4:]


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("case,phase\ncase_0,ED\ncase_0,ES\n", "must have one row per case, got two of case_0"),
        ("case,phase\ncase_0," + "x" * 200_000 + "\n", "not a CSV file .*field limit"),
        ("name,phase\ncase_0,ED\n", "must have a column named case"),
    ],
)
def test_a_table_of_cases_that_is_damaged_is_named(
    tmp_path: Path, table: str, problem: str
) -> None:
    dataset = dataset_of(tmp_path, ["case_0", "case_1", "case_2"])
    (tmp_path / "cases.csv").write_text(table)
    plan = replace(design("heart"), split=(1, 1, 1))
    with pytest.raises(DataError, match=rf"cases\.csv: .*{problem}"):
        chosen_split(dataset, plan, given=False)


def test_centres_of_the_brain_and_phases_of_the_heart_are_the_papers(tmp_path: Path) -> None:
    names = [f"case_{number}" for number in range(8)]
    dataset = dataset_of(tmp_path, names)
    rows = [
        *("case,grade,institution", "case_0,HGG,2013", "case_1,HGG,CBICA", "case_2,LGG,CBICA"),
        *("case_3,HGG,TCIA", "case_4,HGG,CBICA", "case_5,HGG,CBICA", "case_6,HGG,TCIA"),
        "case_7,LGG,TCIA",
    ]
    (tmp_path / "cases.csv").write_text("\n".join(rows) + "\n")
    found = chosen_split(dataset, replace(design("brain"), split=(2, 1, 2)), given=False)
    assert found == {
        "train": ["case_1", "case_4"],
        "val": ["case_5"],
        "test": ["case_3", "case_6"],
    }
    with pytest.raises(ValueError, match=r"split must hold at most .*: \(3, 0, 2\) of .*, got"):
        chosen_split(dataset, replace(design("brain"), split=(4, 1, 2)), given=False)
    with pytest.raises(DataError, match=r"cases\.csv: must have a column named phase"):
        chosen_split(dataset, replace(design("heart"), split=(2, 1, 2)), given=False)
