"""Datasets whose ``file_ending`` is not NIfTI's, through all that reads or writes them."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from blobs import same, train, weights, write_blobs
from cohort import (
    CASES,
    write_cohort,
    write_dataset_json,
    write_images,
    write_references,
    write_run,
)

from fastcal.data import Dataset, images, nifti
from fastcal.data.prepared import prepare_cases
from fastcal.data.preprocess import Preprocessing
from fastcal.evaluate import evaluate_folder
from fastcal.predict import ensemble_folders, predict_cases
from fastcal.recalibrate import apply_folders, fit_folders

for _package in ("SimpleITK", "tifffile", "PIL"):
    pytest.importorskip(_package)

VOLUMES = (".nii", ".nrrd", ".mha", ".mhd")
FLAT = (".png", ".tif")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def reformat(folder: Path, ending: str, *, depth: int | None = None) -> None:
    """Write every NIfTI file below a folder in another format, the labels in it as integers.

    With a depth, only the slice of that number is kept, as a picture holds one.
    """
    for path in sorted(folder.rglob("*.nii.gz")):
        volume = nifti.read(path)
        data = np.rint(np.abs(volume.data)) if ending in FLAT else volume.data
        data = data.astype(np.int16) if ending in FLAT else data
        if depth is not None:
            data = data[:, :, depth : depth + 1]
        like = nifti.Geometry.from_affine(volume.affine, data.shape)
        kind = "int" if data.dtype.kind in "iu" else "float32"
        path.unlink()
        images.write(path.with_name(path.name.replace(".nii.gz", ending)), data, like, dtype=kind)


def describe(folder: Path, ending: str) -> None:
    """Say the ending in every description below a folder."""
    for path in folder.rglob("dataset.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"file_ending": ending}))
    for path in folder.rglob("config.json"):
        content = json.loads(path.read_text())
        content["dataset"]["file_ending"] = ending
        path.write_text(json.dumps(content))


def same_image(path: Path, other: Path, *, located: bool = True) -> None:
    """Two files hold the same voxels in the same place."""
    made, wanted = images.read(path), images.read(other)
    np.testing.assert_array_equal(made.data, wanted.data)
    if located:
        np.testing.assert_allclose(made.affine, wanted.affine, atol=1e-4)


@pytest.mark.parametrize("ending", [*VOLUMES, *FLAT])
def test_predictions_are_those_of_the_same_images_as_nifti(tmp_path: Path, ending: str) -> None:
    depth = 2 if ending in FLAT else None
    write_run(tmp_path / "run")
    for place in ("a", "b"):
        write_images(tmp_path / place / "images")
        write_references(tmp_path / place / "labels")
    reformat(tmp_path / "a", ".png" if ending in FLAT else ".nii", depth=depth)
    for path in sorted((tmp_path / "a").rglob("*.png")):  # back again: rounded, and one slice
        volume = images.read(path)
        nifti.write(path.with_suffix(".nii"), volume.data, volume, dtype="int")
        path.unlink()
    reformat(tmp_path / "b", ending, depth=depth)
    summaries = []
    for place, kind in (("a", ".nii"), ("b", ending)):
        describe(tmp_path / "run", kind)
        summaries.append(
            predict_cases(
                tmp_path / "run",
                tmp_path / place / "images",
                tmp_path / place / "out",
                labels=tmp_path / place / "labels",
                maps=("entropy", "mean"),
                save_probabilities=True,
            )
        )
    for case in CASES:
        out, wanted = tmp_path / "b/out", tmp_path / "a/out"
        same_image(out / f"{case}{ending}", wanted / f"{case}.nii", located=depth is None)
        kind = images.map_ending(ending, "float32")
        for name in ("entropy", "mean"):
            same_image(
                out / name / f"{case}{kind}",
                wanted / name / f"{case}.nii",
                located=depth is None,
            )
    assert summaries[0].statistics is not None
    assert summaries[1].statistics is not None
    counts = [one.statistics.state_dict()["total"].numpy() for one in summaries]
    np.testing.assert_array_equal(*counts)
    described = json.loads((tmp_path / "b/out/dataset.json").read_text())
    assert described["file_ending"] == ending


@pytest.mark.parametrize("ending", [".nrrd", pytest.param(".mhd", marks=pytest.mark.slow)])
def test_training_sees_the_same_numbers_as_from_nifti(tmp_path: Path, ending: str) -> None:
    blobs = write_blobs(tmp_path / "blobs")
    shutil.copytree(blobs, tmp_path / "other")
    reformat(tmp_path / "other", ending)
    describe(tmp_path / "other", ending)
    runs = [
        train(folder, tmp_path / f"run_{folder.name}") for folder in (blobs, tmp_path / "other")
    ]
    assert same(*(weights(run.members[0]) for run in runs))
    assert runs[1].file_ending == ending


@pytest.mark.parametrize(
    ("ending", "part"), [(".mhd", "labelsTr/blob_00.zraw"), (".tif", "imagesTr/blob_00.json")]
)
def test_a_cache_is_made_again_when_a_part_of_an_image_changes(
    tmp_path: Path, ending: str, part: str
) -> None:
    data = write_blobs(tmp_path / "blobs", n_cases=1)
    reformat(data, ending)
    describe(data, ending)
    changed = data / part
    if ending == ".tif":
        changed.write_text('{"spacing": [3, 1, 1]}')
    dataset = Dataset.open(data)

    def fingerprint() -> str:
        plan = Preprocessing()
        return prepare_cases(dataset, dataset.cases, plan, tmp_path / "cache").fingerprint

    first = fingerprint()
    assert fingerprint() == first
    if ending == ".tif":
        changed.write_text('{"spacing": [3.01, 1, 1]}')  # so near that it fits the label map
    else:
        label = data / "labelsTr/blob_00.mhd"
        volume, header = images.read(label), label.read_bytes()
        images.write(label, volume.data[::-1], volume, dtype="int")
        label.write_bytes(header)
    assert fingerprint() != first


def test_pictures_in_colour_are_trained_on_and_predicted(tmp_path: Path) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    data = tmp_path / "data"
    for folder in ("imagesTr", "labelsTr"):
        (data / folder).mkdir(parents=True)
    for number in range(4):
        label = np.zeros((16, 20), np.uint8)
        label[4:12, 5 + number : 12 + number] = 1
        colours = rng.integers(0, 100, (16, 20, 3)) + 100 * label[:, :, None]
        Image.fromarray(colours.astype(np.uint8)).save(data / f"imagesTr/p{number}_0000.png")
        Image.fromarray(label).save(data / f"labelsTr/p{number}.png")
    content = {
        "channel_names": {"0": "R", "1": "G", "2": "B"},
        "labels": {"background": 0, "road": 1},
        "numTraining": 4,
        "file_ending": ".png",
    }
    (data / "dataset.json").write_text(json.dumps(content))
    run = train(data, tmp_path / "run")
    predict_cases(run, data / "imagesTr", tmp_path / "out", labels=data / "labelsTr")
    made = np.asarray(Image.open(tmp_path / "out/p3.png"))
    assert made.shape == (16, 20)
    assert (tmp_path / "out/entropy/p3.nii.gz").is_file()
    scores = evaluate_folder(
        data / "labelsTr", tmp_path / "out", tmp_path / "scores.json", surface=False
    )
    wanted = np.asarray(Image.open(data / "labelsTr/p3.png"))
    overlap = 2 * (made & wanted).sum() / (made.sum() + wanted.sum())
    found = next(one for one in scores["metric_per_case"] if one["case"] == "p3")
    assert found["metrics"]["1"]["Dice"] == pytest.approx(overlap)


@pytest.mark.parametrize("ending", [*VOLUMES, ".tif"])
def test_ensembles_and_calibrated_folders_keep_the_ending(tmp_path: Path, ending: str) -> None:
    folders, labels, *_ = write_cohort(tmp_path / "a")
    write_dataset_json(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    if ending == ".tif":
        reformat(tmp_path / "a", ".nii")
        for path in sorted((tmp_path / "a").rglob("*.nii")):  # a TIFF keeps the spacing alone
            volume = images.read(path)
            plain = nifti.Geometry.from_affine(np.diag([*volume.spacing, 1]), volume.data.shape)
            nifti.write(path.with_suffix(".nii.gz"), volume.data, plain, dtype="int")
            path.unlink()
    reformat(tmp_path / "b", ending)
    describe(tmp_path / "b", ending)
    for place, kind in (("a", ".nii.gz"), ("b", ending)):
        root = tmp_path / place
        inputs = [root / folder.name for folder in folders]
        reference = root / labels.name
        ensemble_folders(inputs, root / "out", labels=reference, save_probabilities=True)
        fit_folders(inputs[:1], reference, root / "fitted.json")
        apply_folders(
            root / "fitted.json", inputs[:1], root / "calibrated", save_probabilities=True
        )
        evaluate_folder(reference, root / "out", root / "scores.json", surface=False)
        for folder in ("out", "calibrated"):
            assert json.loads((root / folder / "dataset.json").read_text())["file_ending"] == kind
            for case in CASES:
                found = root / folder / f"{case}{kind}"
                same_image(found, tmp_path / "a" / folder / f"{case}.nii.gz")
                entropy = root / folder / "entropy" / f"{case}{images.map_ending(kind, 'float32')}"
                same_image(entropy, tmp_path / "a" / folder / "entropy" / f"{case}.nii.gz")
    scores = [json.loads((tmp_path / place / "scores.json").read_text()) for place in ("a", "b")]
    for one, other in zip(*(score["metric_per_case"] for score in scores), strict=True):
        assert (one["case"], one["calibration"]) == (other["case"], other["calibration"])
        for key, metrics in one["metrics"].items():
            assert other["metrics"][key] == pytest.approx(metrics, rel=1e-5)
    assert (tmp_path / "a/fitted.json").read_text() == (tmp_path / "b/fitted.json").read_text()


@pytest.mark.parametrize(
    ("ending", "dtype", "labels", "maps"),
    [
        (".gipl", "float32", ".nii.gz", ".nii.gz"),
        (".nrrd", "uint8", ".nrrd", ".nii.gz"),
        (".nii", "uint8", ".nii", ".nii"),
    ],
)
def test_what_a_format_cannot_hold_goes_to_nifti(
    tmp_path: Path, ending: str, dtype: str, labels: str, maps: str
) -> None:
    folders, *_ = write_cohort(tmp_path)
    given = {"file_ending": ending, "overwrite_image_reader_writer": "SimpleITKIO"}
    write_dataset_json(tmp_path, **given)
    ensemble_folders(folders, tmp_path / "out", dtype=dtype)
    assert (tmp_path / f"out/{CASES[0]}{labels}").is_file()
    assert (tmp_path / f"out/entropy/{CASES[0]}{maps}").is_file()
    described = json.loads((tmp_path / "out/dataset.json").read_text())
    kept = labels == ending
    assert described["file_ending"] == labels
    assert ("overwrite_image_reader_writer" in described) == kept


def test_a_description_of_version_1_becomes_one_of_version_2(tmp_path: Path) -> None:
    folders, *_ = write_cohort(tmp_path)
    content = {"modality": {"0": "T1"}, "labels": {"0": "background", "2": "b", "1": "a"}}
    (tmp_path / "dataset.json").write_text(json.dumps(content | {"numTraining": 3}))
    ensemble_folders(folders, tmp_path / "out")
    described = json.loads((tmp_path / "out/dataset.json").read_text())
    assert described["labels"] == {"background": 0, "a": 1, "b": 2}
    assert described["channel_names"] == {"0": "T1"}
    assert (described["file_ending"], described["numTraining"]) == (".nii.gz", 3)


def test_pictures_beside_label_maps_are_figures(tmp_path: Path) -> None:
    from PIL import Image

    folders, labels, *_ = write_cohort(tmp_path)
    for folder in (labels, *folders):
        Image.new("L", (3, 3)).save(folder / "overview.png")
    ensemble_folders(folders, tmp_path / "out", labels=labels)
    Image.new("L", (3, 3)).save(tmp_path / "out/overview.png")
    scores = evaluate_folder(
        labels, tmp_path / "out", tmp_path / "s.json", num_classes=3, surface=False
    )
    assert [one["case"] for one in scores["metric_per_case"]] == list(CASES)


# --- nnU-Net's own programs ---


def saved(folder: Path, ending: str, **options: object) -> Path:
    """An ensemble with its probabilities, of cases whose images end in ``ending``."""
    folders, *_ = write_cohort(folder)
    write_dataset_json(folder)
    reformat(folder, ending)
    describe(folder, ending)
    ensemble_folders(folders, folder / "out", save_probabilities=True, **options)
    return folder / "out"


@pytest.mark.parametrize(
    ("ending", "key", "reader"),
    [
        (".nii.gz", "nibabel_stuff", "NibabelIO"),
        (".nii", "nibabel_stuff", "NibabelIO"),
        (".nrrd", "sitk_stuff", "SimpleITKIO"),
        (".mha", "sitk_stuff", "SimpleITKIO"),
        (".tif", "spacing", "Tiff3DIO"),
    ],
)
def test_saved_probabilities_have_the_files_of_nnunet(
    tmp_path: Path, ending: str, key: str, reader: str
) -> None:
    out = saved(tmp_path, ending)
    assert json.loads((out / "plans.json").read_text())["image_reader_writer"] == reader
    for case in CASES:
        content = pickle.loads((out / f"{case}.pkl").read_bytes())
        volume = images.read(out / f"{case}{ending}")
        assert key in content
        np.testing.assert_allclose(content["spacing"], volume.spacing[::-1], rtol=1e-6)
    # They are members in turn, also where only the pkl says where they lie.
    if ending != ".tif":
        (tmp_path / "again").mkdir()
        for path in (*out.glob("*.npz"), *out.glob("*.pkl")):
            shutil.copy(path, tmp_path / "again")
        ensemble_folders([tmp_path / "again"], tmp_path / "twice")
        same_image(tmp_path / f"twice/{CASES[0]}{ending}", out / f"{CASES[0]}{ending}")


def test_probabilities_without_a_description_get_one_for_nnunet(tmp_path: Path) -> None:
    folders, *_ = write_cohort(tmp_path)
    ensemble_folders(folders, tmp_path / "out", save_probabilities=True)
    described = json.loads((tmp_path / "out/dataset.json").read_text())
    assert described["labels"] == {"background": 0, "label 1": 1, "label 2": 2}
    ensemble_folders([tmp_path / "out"], tmp_path / "twice")
    same_image(tmp_path / f"twice/{CASES[0]}.nii.gz", tmp_path / f"out/{CASES[0]}.nii.gz")


def test_a_pkl_without_geometry_says_so_and_gets_voxels_of_1_mm(tmp_path: Path) -> None:
    folders, labels, drawn, _ = write_cohort(tmp_path)
    for folder in folders:
        for case in CASES:
            (folder / f"{case}.nii.gz").unlink()
            (folder / f"{case}.pkl").write_bytes(pickle.dumps({"note": [1, 2, 3]}))
    with pytest.warns(UserWarning, match=r"case_a\.pkl: says no geometry; .* 1 mm"):
        ensemble_folders(folders, tmp_path / "out", cases=["case_a"])
    made = images.read(tmp_path / "out/case_a.nii.gz")
    np.testing.assert_array_equal(made.affine, np.eye(4))
    mean = np.mean(drawn["case_a"], axis=0)
    np.testing.assert_array_equal(made.data, mean.argmax(0))
    # With labels there is a place to take.
    ensemble_folders(folders, tmp_path / "placed", labels=labels)
    wanted = images.geometry(labels / "case_a.nii.gz")
    np.testing.assert_array_equal(
        images.geometry(tmp_path / "placed/case_a.nii.gz").affine, wanted.affine
    )


@pytest.mark.filterwarnings("default")  # theirs
@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".tif"])
def test_nnunet_averages_our_folders_and_scores_them(tmp_path: Path, ending: str) -> None:
    """The steps of ``nnUNetv2_ensemble`` and ``nnUNetv2_evaluate_folder``, without their pools."""
    pytest.importorskip("nnunetv2", reason="nnunetv2 is not installed")
    from nnunetv2.ensembling.ensemble import merge_files
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    out = saved(tmp_path, ending)
    plans = PlansManager(str(out / "plans.json"))
    described = json.loads((out / "dataset.json").read_text())
    (tmp_path / "theirs").mkdir()
    for case in CASES:
        merge_files(
            [str(out / f"{case}.npz")] * 2,
            str(tmp_path / "theirs" / case),
            described["file_ending"],
            plans.image_reader_writer_class(),
            plans.get_label_manager(described),
        )
        same_image(tmp_path / f"theirs/{case}{ending}", out / f"{case}{ending}")
    labels = tmp_path / "labels"
    ours = evaluate_folder(labels, out, tmp_path / "scores.json", surface=False)
    example = str(labels / f"{CASES[0]}{ending}")
    reader = determine_reader_writer_from_dataset_json(described, example, verbose=False)()
    for score in ours["metric_per_case"]:
        pair = (labels / f"{score['case']}{ending}", out / f"{score['case']}{ending}")
        theirs = compute_metrics(*map(str, pair), reader, [1, 2])["metrics"]
        for label in (1, 2):
            assert theirs[label]["Dice"] == pytest.approx(score["metrics"][str(label)]["Dice"])
