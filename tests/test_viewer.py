"""Cases as a viewer sees them: layers, where to look, the list, pictures, other programs."""

from __future__ import annotations

import json
import math
import shlex
import subprocess
import sys
import types
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from viewer_cases import AFFINE, CASES, SHAPE, Made, make

import fastcal
from fastcal.cli import main
from fastcal.core.errors import DataError
from fastcal.viewer import ViewedFolder, write_png
from fastcal.viewer.landmarks import APART_MM, first_voxel, landmarks
from fastcal.viewer.niivue import niivue_file
from fastcal.viewer.page import asset
from fastcal.viewer.payload import INVALID, case_payload, values_at, volume_bytes
from fastcal.viewer.programs import napari_command, slicer_command


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("viewer"))


def opened(made: Made) -> ViewedFolder:
    return ViewedFolder(made.out, made.images, made.labels)


def to_ras(array: np.ndarray) -> np.ndarray:
    """Independently of the package: both flipped axes turned."""
    return array[::-1, ::-1]


def test_layers_hold_the_files_turned_to_ras(made: Made) -> None:
    case = opened(made).open("beta")
    keys = [layer.key for layer in case.layers]
    assert keys == [
        *("image/0", "prediction", "reference", "error", "entropy", "disagreement"),
        *("probability/0", "probability/1"),
    ]
    np.testing.assert_array_equal(case.layers[0].voxels, to_ras(made.image["beta"]))
    np.testing.assert_array_equal(case.layers[1].voxels, to_ras(made.prediction["beta"]))
    np.testing.assert_array_equal(case.layers[4].voxels, to_ras(made.entropy["beta"]))
    np.testing.assert_array_equal(case.layers[7].voxels, to_ras(made.mean["beta"][1]))
    p, r = to_ras(made.prediction["beta"]), to_ras(made.reference["beta"])
    np.testing.assert_array_equal(case.layers[3].voxels == 1, (r == 1) & (p == 0))
    np.testing.assert_array_equal(case.layers[3].voxels == 2, (r == 0) & (p == 1))
    assert case.layers[0].title == "T2"
    assert case.members == 5


def test_volumes_for_the_page_lie_where_the_files_do(made: Made) -> None:
    case = opened(made).open("alpha")
    layer = case.layer("entropy")
    assert layer is not None
    image = nibabel.Nifti1Image.from_bytes(volume_bytes(case, layer))
    want = nibabel.as_closest_canonical(nibabel.load(made.out / "entropy" / "alpha.nii.gz"))
    np.testing.assert_allclose(image.affine, want.affine)
    assert nibabel.aff2axcodes(image.affine) == ("R", "A", "S")
    values = np.nan_to_num(np.asarray(want.dataobj), nan=INVALID)
    np.testing.assert_array_equal(np.asarray(image.dataobj), values)


def test_a_voxel_of_the_layers_is_named_as_in_the_file(made: Made) -> None:
    case = opened(made).open("alpha")
    at = case.frame.in_file((1, 2, 3))
    assert at == (SHAPE[0] - 2, SHAPE[1] - 3, 3)
    world = case.frame.turned_affine @ [1, 2, 3, 1]
    np.testing.assert_allclose(world, AFFINE @ [*at, 1])
    found = values_at(case.layers, (1, 2, 3))
    assert found["entropy"] == pytest.approx(float(made.entropy["alpha"][at]))
    assert values_at(case.layers, (19, 15, 0))["entropy"] is None  # NaN in the file


def test_a_case_opens_where_the_errors_are_most_uncertain(made: Made) -> None:
    case = opened(made).open("alpha")
    error = (made.prediction["alpha"] != made.reference["alpha"]) * 1.0
    weight = to_ras(error * np.nan_to_num(made.entropy["alpha"]))
    x, y, z = first_voxel(case)
    assert z == weight.sum((0, 1)).argmax()
    assert weight[x, y, z] == weight[:, :, z].max()


def test_a_case_without_reference_opens_where_it_is_most_uncertain(made: Made) -> None:
    case = ViewedFolder(made.out, made.images).open("alpha")
    entropy = to_ras(np.nan_to_num(made.entropy["alpha"]))
    assert first_voxel(case)[2] == entropy.sum((0, 1)).argmax()
    assert case.layer("error") is None


def test_places_are_errors_apart_from_one_another_the_most_uncertain_first(made: Made) -> None:
    case = opened(made).open("beta")
    found = landmarks(case)
    error, entropy = case.layer("error"), case.layer("entropy")
    assert error is not None
    assert entropy is not None
    assert len(found.errors) > 1
    assert all(error.voxels[voxel] > 0 for voxel in found.errors)
    spacing = np.array(case.frame.spacing)
    for places in (found.errors, found.uncertain):
        for n, one in enumerate(places):
            for other in places[:n]:
                assert np.max(np.abs(np.subtract(one, other)) * spacing) > APART_MM - spacing.max()
    nearest = np.abs(np.subtract(found.uncertain[0], np.argwhere(entropy.voxels > 0.5))) * spacing
    assert nearest.max(1).min() <= 5


def test_cases_are_listed_by_uncertainty_quality_and_dice(made: Made, tmp_path: Path) -> None:
    folder = opened(made)
    assert [row.case for row in folder.rows] == ["beta", "alpha"]  # entropies 1.1 and 0.1
    p, r = made.prediction["beta"], made.reference["beta"]
    assert folder.dice("beta") == pytest.approx(2 * (p & r).sum() / (p.sum() + r.sum()))
    assert math.isnan(ViewedFolder(made.out, made.images).dice("beta"))
    rows = [{"case": "beta", "structure": "1", "dice": 0.9, "low": 0, "high": 1, "reason": ""}]
    rows += [dict(rows[0], case="alpha", dice=dice) for dice in (0.2, 0.4)]
    quality = tmp_path / "quality.json"
    quality.write_text(json.dumps({"version": 1, "structures": rows}))
    listed = ViewedFolder(made.out, made.images, quality=quality).rows
    assert [(row.case, row.quality) for row in listed] == [
        ("alpha", pytest.approx(0.3)),
        ("beta", 0.9),
    ]


def test_a_folder_of_label_maps_alone_is_shown(made: Made, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "images").mkdir()
    (tmp_path / "out" / "a.nii.gz").write_bytes((made.out / "alpha.nii.gz").read_bytes())
    image = made.images / "alpha_0000.nii.gz"
    (tmp_path / "images" / "a.nii.gz").write_bytes(image.read_bytes())  # without a channel
    case = ViewedFolder(tmp_path / "out", tmp_path / "images").open("a")
    assert [layer.key for layer in case.layers] == ["image/0", "prediction"]
    assert case.layers[1].names == {1: "label 1"}
    payload = case_payload(case, landmarks(case))
    assert (payload["errors"], payload["uncertain"], payload["members"]) == ((), (), None)


@pytest.mark.parametrize("kind", ["out", "images", "labels", "entropy"])
def test_a_link_that_leads_out_of_the_folders_is_refused(
    made: Made, tmp_path: Path, kind: str
) -> None:
    copy = make(tmp_path / "copy")
    target = {
        "out": copy.out / "alpha.nii.gz",
        "images": copy.images / "alpha_0000.nii.gz",
        "labels": copy.labels / "alpha.nii.gz",
        "entropy": copy.out / "entropy" / "alpha.nii.gz",
    }[kind]
    elsewhere = tmp_path / "secret.nii.gz"
    target.replace(elsewhere)
    target.symlink_to(elsewhere)

    def shown() -> None:
        case = ViewedFolder(copy.out, copy.images, copy.labels).open("alpha")
        case_payload(case, landmarks(case))

    with pytest.raises(DataError, match="is a link that leads out of the folders") as caught:
        shown()
    assert str(caught.value).startswith(str(target))
    del made


def test_a_folder_that_is_a_link_itself_is_shown(made: Made, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(made.images)
    assert ViewedFolder(made.out, tmp_path / "link").open("alpha").layers[0].voxels.shape == SHAPE


def test_files_of_another_grid_are_refused_by_name(tmp_path: Path) -> None:
    copy = make(tmp_path)
    path = copy.out / "entropy" / "alpha.nii.gz"
    image = nibabel.load(path)
    moved = image.affine + np.array([[0, 0, 0, 5.0]] * 3 + [[0] * 4])
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), moved), path)
    case = ViewedFolder(copy.out, copy.images).open("alpha")
    with pytest.raises(DataError, match="its affine differs from that of") as caught:
        landmarks(case)
    assert str(caught.value).startswith(str(path))


# --- pictures -------------------------------------------------------------------------------------


def test_png_draws_every_plane_and_column_the_same_each_time(made: Made, tmp_path: Path) -> None:
    from fastcal.viewer.picture import case_picture

    case = opened(made).open("alpha")
    figure = case_picture(case, (3, 4, 2))
    titles = [ax.get_title() for ax in figure.axes[:5]]
    assert titles == ["T2", "Prediction", "Reference", "Entropy", "Error"]
    axial = figure.axes[0].images[0].get_array()
    plane = to_ras(made.image["alpha"])[:, :, 2]
    np.testing.assert_array_equal(axial, plane[::-1, ::-1].T)  # patient's right on the left
    letters = [text.get_text() for text in figure.axes[0].texts]
    assert letters == ["R", "L", "A", "P"]
    assert figure.axes[0].get_ylabel() == "Axial, slice 2"
    assert figure.axes[10].get_ylabel() == f"Sagittal, slice {SHAPE[0] - 1 - 3}"
    one, two = (write_png(tmp_path / name, case) for name in ("a.png", "sub/b.png"))
    assert one.read_bytes() == two.read_bytes()
    assert one.read_bytes().startswith(b"\x89PNG")


def test_png_of_a_single_slice_has_one_plane(tmp_path: Path) -> None:
    from fastcal.viewer.picture import case_picture

    result = fastcal.ensemble_statistics(torch.randn(3, 1, 2, 9, 7), maps=("label", "entropy"))
    view = fastcal.view(result, torch.randn(9, 7))
    figure = case_picture(view.case)
    assert [ax.get_ylabel()[:5] for ax in figure.axes if ax.get_ylabel()] == ["Axial"]
    assert view.png(tmp_path / "case.png").is_file()


# --- notebooks ------------------------------------------------------------------------------------


def statistics(
    shape: tuple[int, ...] = (8, 9, 10), **options: object
) -> fastcal.EnsembleStatistics:
    torch.manual_seed(0)
    maps = ("mean", "label", "entropy")
    return fastcal.ensemble_statistics(torch.randn(3, 2, 3, *shape), maps=maps, **options)


def test_view_shows_an_item_of_a_batch_with_reference_and_names() -> None:
    result = statistics()
    image = torch.randn(2, 1, 8, 9, 10)
    names = ["background", "<script>", "tumour"]
    reference = torch.randint(0, 3, (2, 8, 9, 10))
    view = fastcal.view(result, image, reference=reference, names=names, item=1)
    layers = {layer.key: layer for layer in view.case.layers}
    assert list(layers) == [
        *("image/0", "prediction", "entropy", "mean/0", "mean/1", "mean/2", "reference", "error")
    ]
    np.testing.assert_array_equal(layers["image/0"].voxels, image[1, 0])
    np.testing.assert_array_equal(layers["entropy"].voxels, result.entropy[1])
    np.testing.assert_array_equal(layers["mean/2"].voxels, result.mean[1, 2])
    np.testing.assert_array_equal(layers["reference"].voxels, reference[1])
    assert layers["prediction"].names[1] == "<script>"
    assert layers["entropy"].scale[1] == pytest.approx(math.log(3))


def test_view_takes_the_affine_of_a_meta_tensor_and_of_a_file(made: Made) -> None:
    from monai.data import MetaTensor

    image = MetaTensor(torch.from_numpy(made.image["alpha"])[None], affine=torch.tensor(AFFINE))
    result = statistics(SHAPE)
    for given in (image, made.images / "alpha_0000.nii.gz"):
        case = fastcal.view(result, given).case
        np.testing.assert_array_equal(case.layers[0].voxels, to_ras(made.image["alpha"]))
        np.testing.assert_array_equal(case.layers[1].voxels, to_ras(result.label[0].numpy()))


def test_view_of_a_folder_is_its_most_uncertain_case(made: Made) -> None:
    view = fastcal.view(made.out, made.images, reference=made.labels)
    assert view.case.name == "beta"
    assert fastcal.view(made.out, made.images, case="alpha").case.name == "alpha"


def test_view_is_one_page_that_asks_for_nothing_and_escapes_names(tmp_path: Path) -> None:
    view = fastcal.view(statistics(), torch.randn(8, 9, 10), names=["b", "</script><i>", "c"])
    page = view.save(tmp_path / "case.html").read_text()
    assert "</script><i>" not in page
    assert asset("page.js") in page
    assert 'src="' not in page.replace(
        niivue_file().read_text().replace("</script", r"<\/script"), ""
    )
    shown = view._repr_html_()
    assert shown.startswith("<iframe srcdoc=")
    assert "<script" not in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image": torch.zeros(8, 9, 11)}, r"image must have the spatial shape .*\(8, 9, 10\)"),
        ({"item": 2}, r"item must be in \[0, 2\), got 2"),
        ({"affine": np.zeros((4, 4))}, r"affine must be a regular matrix"),
        ({"reference": torch.zeros(2, 2, 8, 9, 10)}, "reference must be one label map"),
    ],
)
def test_view_names_the_argument_that_does_not_fit(arguments: dict, message: str) -> None:
    given = {"image": torch.zeros(8, 9, 10), **arguments}
    with pytest.raises(ValueError, match=message):
        fastcal.view(statistics(), **given)


def test_view_refuses_other_results() -> None:
    with pytest.raises(TypeError, match="result must be an EnsembleStatistics or a folder"):
        fastcal.view(torch.zeros(3), torch.zeros(3))  # type: ignore[arg-type]


# --- NiiVue and other programs --------------------------------------------------------------------


def test_niivue_is_found_wherever_the_package_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert niivue_file().stat().st_size > 1_000_000
    package = tmp_path / "nilearn"
    (package / "elsewhere").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    for name in [name for name in sys.modules if name.partition(".")[0] == "nilearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(ImportError, match=r"pip install 'fastcal\[view\]'; the nilearn .* has no"):
        niivue_file()
    (package / "elsewhere" / "niivue.umd.js").write_text("")
    assert niivue_file() == package / "elsewhere" / "niivue.umd.js"


def test_a_missing_nilearn_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"the viewer needs nilearn .* 'fastcal\[view\]'"):
        niivue_file()


class Recorder(types.ModuleType):
    """A module whose functions, and those of what they return, write down their calls."""

    def __init__(self, name: str, calls: list | None = None) -> None:
        super().__init__(name)
        self.calls = [] if calls is None else calls

    def __getattr__(self, name: str) -> Recorder:
        if name.startswith("__"):
            raise AttributeError(name)
        return Recorder(f"{self.__name__}.{name}", self.calls)

    def __call__(self, *args: object, **options: object) -> Recorder:
        self.calls.append((self.__name__, args, options))
        return Recorder(f"{self.__name__}()", self.calls)


def test_the_command_of_slicer_loads_every_file(
    made: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    files = {**opened(made).paths("alpha"), "reference": [tmp_path / 'it\'s "a" {label}.nii.gz']}
    slicer = Recorder("slicer")
    monkeypatch.setitem(sys.modules, "slicer", slicer)
    program, option, code = slicer_command(files)
    assert (program, option) == ("Slicer", "--python-code")
    exec(code, {})
    loads = ("slicer.util.loadVolume", "slicer.util.loadSegmentation")
    loaded = [(name, args[0]) for name, args, _ in slicer.calls if name in loads]
    assert loaded == [
        ("slicer.util.loadVolume", str(made.images / "alpha_0000.nii.gz")),
        ("slicer.util.loadVolume", str(made.out / "entropy" / "alpha.nii.gz")),
        ("slicer.util.loadVolume", str(made.out / "disagreement" / "alpha.nii.gz")),
        ("slicer.util.loadSegmentation", str(made.out / "alpha.nii.gz")),
        ("slicer.util.loadSegmentation", str(files["reference"][0])),
    ]


def test_the_command_of_napari_shows_slices_as_radiologists_hang_them(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    napari = Recorder("napari")
    monkeypatch.setitem(sys.modules, "napari", napari)
    monkeypatch.setattr("fastcal.viewer.programs.find_spec", lambda _: None)
    program, _, code = napari_command(opened(made).paths("alpha"))
    assert program == "python"
    exec(code, {})
    (first, args, options), *_ = (call for call in napari.calls if "add_image" in call[0])
    want = to_ras(made.image["alpha"])[::-1, ::-1].transpose(2, 1, 0)
    np.testing.assert_array_equal(args[0], want)
    assert options["scale"] == (3.0, 2.0, 1.0)
    assert len([name for name, *_ in napari.calls if "add_labels" in name]) == 2
    assert napari.calls[-1][0] == "napari.run"
    del first


# --- the command ----------------------------------------------------------------------------------


def test_the_command_writes_a_picture_and_prints_commands(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("fastcal.viewer.programs.find_spec", lambda _: None)
    words = ["view", str(made.out), "-i", str(made.images), "-g", str(made.labels)]
    assert main([*words, "--png", str(tmp_path / "beta.png"), "--slicer", "--napari"]) == 0
    printed, slicer, napari = capsys.readouterr().out.split("\n", 2)[0], *_commands(made)
    assert printed == f"{tmp_path / 'beta.png'}: beta"
    assert main([*words, "--slicer"]) == 0
    assert shlex.split(capsys.readouterr().out) == slicer
    assert main([*words, "--napari"]) == 0
    assert shlex.split(capsys.readouterr().out) == napari


def _commands(made: Made) -> tuple[list[str], list[str]]:
    files = opened(made).paths("beta")
    return slicer_command(files), napari_command(files)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["OUT", "gamma", "-i", "IMAGES"], "has no prediction of case gamma"),
        (["OUT", "-i", "NOWHERE"], "no such folder"),
        (["OUT", "-i", "IMAGES", "--port", "70000"], "port must be from 0 to 65535, got 70000"),
        (["OUT"], "--images"),
        *(
            (["OUT", "-i", "IMAGES", *instead, *words], f"must be left out with {instead[0]}, got")
            for instead in (["--png", "OUT/x.png"], ["--slicer"], ["--napari"])
            for words in (["--port", "8080"], ["--port", "0"], ["--browser"], ["--no-browser"])
        ),
    ],
)
def test_the_command_tells_bad_input_in_one_line(
    made: Made, tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"OUT": made.out, "IMAGES": made.images, "NOWHERE": tmp_path / "nowhere"}
    assert main(["view", *(str(places.get(word, word)) for word in words)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


def test_control_c_ends_the_server_as_an_ordinary_end(made: Made) -> None:
    import signal

    words = ["view", str(made.out), "-i", str(made.images), "--no-browser"]
    # A process of a shell in the background ignores the signal.
    program = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from fastcal.cli import run; sys.exit(run())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, *words], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("http://127.0.0.1:")
    process.send_signal(signal.SIGINT)
    process.stdout.close()
    assert process.wait(timeout=60) == 0


def test_the_list_of_cases_is_that_of_both_folders(made: Made) -> None:
    assert opened(made).cases == list(CASES)
