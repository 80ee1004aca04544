"""Public datasets as they are downloaded, in small: exact names and folders, drawn voxels."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE = (7, 6, 5)


def oblique(spacing: Sequence[float] = (1.2, 0.8, 2.5), shift: float = 0.0) -> np.ndarray:
    """An affine that is turned about every axis and moved."""
    affine = np.eye(4)
    turn = np.eye(3)
    for axis, angle in enumerate((0.2, -0.4, 0.9)):
        i, j = [k for k in range(3) if k != axis]
        one = np.eye(3)
        one[[i, i, j, j], [i, j, i, j]] = (
            np.cos(angle),
            -np.sin(angle),
            np.sin(angle),
            np.cos(angle),
        )
        turn = turn @ one
    affine[:3, :3] = turn * spacing
    affine[:3, 3] = (10.0 + shift, -20.0, 30.0)
    return affine


def image(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).integers(-100, 1000, shape).astype(np.int16)


def labels(seed: int, values: Sequence[int], shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Labels in which every value occurs."""
    drawn = np.random.default_rng(seed).choice(np.array(values), shape)
    drawn.flat[: len(values)] = values
    return drawn.astype(np.uint8)


def save(path: Path, data: np.ndarray, affine: np.ndarray | None = None) -> Path:
    """Write NIfTI, NRRD or MetaImage by nibabel or SimpleITK alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = oblique() if affine is None else affine
    if path.name.endswith((".nii", ".nii.gz")):
        made = nib.Nifti1Image(data, affine)
        made.header.set_xyzt_units("mm", "sec")
        made.set_qform(affine, code=1)
        made.set_sform(affine, code=1)
        made.to_filename(path)
        return path
    import SimpleITK as sitk

    itk = sitk.GetImageFromArray(data.transpose())
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    steps = np.linalg.norm(lps[:3, :3], axis=0)
    itk.SetSpacing(steps.tolist())
    itk.SetOrigin(lps[:3, 3].tolist())
    itk.SetDirection((lps[:3, :3] / steps).ravel().tolist())
    sitk.WriteImage(itk, str(path))
    return path


BRATS = {
    2017: (
        "HGG/Brats17_CBICA_AAB_1",
        "HGG/Brats17_TCIA01_101_1",
        "LGG/Brats17_2013_0_1",
        "HGG/Brats17_CBICA_ABC_1",
    ),
    2018: ("HGG/Brats18_CBICA_AAM_1", "HGG/Brats18_TCIA02_117_1", "LGG/Brats18_2013_0_1"),
    2019: ("HGG/BraTS19_CBICA_AAB_1", "LGG/BraTS19_TCIA09_141_1", "HGG/BraTS19_2013_2_1"),
    2020: ("BraTS20_Training_001", "BraTS20_Training_002", "BraTS20_Training_355"),
    2021: ("BraTS2021_00000", "BraTS2021_00002", "BraTS2021_00003"),
    2022: ("BraTS2021_00000", "BraTS2021_00002", "BraTS2021_00003"),
    2023: ("BraTS-GLI-00000-000", "BraTS-GLI-00000-001", "BraTS-GLI-00002-000"),
}
TOPS = {
    **{2017: "Brats17TrainingData", 2018: "MICCAI_BraTS_2018_Data_Training"},
    **{2019: "MICCAI_BraTS_2019_Data_Training", 2020: "MICCAI_BraTS2020_TrainingData"},
    **{2021: "RSNA_ASNR_MICCAI_BraTS2021_TrainingData", 2022: "TrainingData"},
    2023: "ASNR-MICCAI-BraTS2023-GLI-Challenge-TrainingData",
}


def brats(root: Path, year: int) -> Path:
    """Training cases of a year, and one of validation without labels."""
    mark, words, top = (
        ("-", ("t1n", "t1c", "t2w", "t2f"), 3)
        if year == 2023
        else (
            "_",
            ("t1", "t1ce", "t2", "flair"),
            4,
        )
    )
    ending = ".nii" if year in (2019, 2020) else ".nii.gz"
    for number, folder in enumerate(BRATS[year]):
        name = Path(folder).name
        place = root / TOPS[year] / folder
        for channel, word in enumerate(words):
            save(place / f"{name}{mark}{word}{ending}", image(10 * number + channel))
        seg = labels(number, (0, 1, 2, top))
        odd = name == "BraTS20_Training_355"
        save(place / ("W39_1998.09.19_Segm.nii" if odd else f"{name}{mark}seg{ending}"), seg)
    name = {2020: "BraTS20_Validation_001", 2023: "BraTS-GLI-00001-000"}.get(year)
    if name:
        place = root / TOPS[year].replace("Training", "Validation") / name
        for channel, word in enumerate(words):
            save(place / f"{name}{mark}{word}{ending}", image(90 + channel))
    if year in (2019, 2020):
        rows = ["Grade,BraTS_2019_subject_ID,BraTS_2020_subject_ID"]
        rows += ["HGG,BraTS19_CBICA_AAB_1,BraTS20_Training_001"]
        rows += ["LGG,BraTS19_TCIA09_141_1,BraTS20_Training_002", "HGG,NA,BraTS20_Training_355"]
        (root / TOPS[year] / "name_mapping.csv").write_text("\n".join(rows) + "\n")
    return root


def acdc(root: Path, *, patients: int = 6) -> Path:
    """Training patients and a test patient; one has no file of its own for a frame."""
    for number in range(1, patients + 1):
        part = "testing" if number == patients else "training"
        name = f"patient{number:03d}"
        place = root / "database" / part / name
        ed, es = (4, 12) if number == 2 else (1, 10 + number)
        whole = image(number, (*SHAPE, 20))
        save(place / f"{name}_4d.nii.gz", whole)
        for frame in (ed, es):
            if (number, frame) != (3, es):
                save(place / f"{name}_frame{frame:02d}.nii.gz", whole[..., frame - 1])
            seg = labels(100 * number + frame, (0, 1, 2, 3))
            save(place / f"{name}_frame{frame:02d}_gt.nii.gz", seg)
        group = ("DCM", "NOR")[number % 2]
        info = f"ED: {ed}\nES: {es}\nGroup: {group}\nHeight: 184.0\nNbFrame: 20\nWeight: 95.0\n"
        (place / "Info.cfg").write_text(info)
        (place / "MANDATORY_CITATION.md").write_text("cite\n")
    return root / "database"


MNMS = {
    "A0S9V9": ("Training/Labeled", "A", 0, 3),
    "B2C4D5": ("Training/Labeled", "B", 1, 3),
    "D4D4D4": ("Training/Labeled", "B", 1, 2),
    "E5F6F7": ("Training/Labeled", "A", 0, 2),
    "C9Z8Y7": ("Training/Unlabeled", "C", 0, 3),
    "H1J2K3": ("Validation", "A", 2, 0),
    "T4T5T6": ("Testing", "D", 0, 1),
}


def mnms(root: Path) -> Path:
    """Patients of four vendors; the cosines of one are not orthonormal."""
    rows = [",External code,VendorName,Vendor,Centre,ED,ES,Age,Pathology,Sex,Height,Weight"]
    for number, (name, (part, vendor, ed, es)) in enumerate(MNMS.items()):
        place = root / "OpenDataset" / part / name
        affine = oblique()
        if name == "B2C4D5":
            affine[:3, :3] += 3e-4 * np.random.default_rng(7).normal(size=(3, 3))
        path = save(place / f"{name}_sa.nii.gz", image(number, (*SHAPE, 4)), affine)
        assert path.exists()
        if "Unlabeled" not in part:
            seg = np.zeros((*SHAPE, 4), np.uint8)
            for frame in (ed, es):
                seg[..., frame] = labels(10 * number + frame, (0, 1, 2, 3))
            save(place / f"{name}_sa_gt.nii.gz", seg, affine)
        rows.append(f"{number},{name},Siemens,{vendor},1,{ed},{es},40,NOR,M,180,80")
    table = root / "OpenDataset" / "211230_M&Ms_Dataset_information_diagnosis_opendataset.csv"
    table.write_text("\n".join(rows) + "\n", encoding="utf-8-sig")
    return root / "OpenDataset"


def promise12(root: Path) -> Path:
    for folder, numbers in (
        ("training_data", (0, 1, 2)),
        ("test_data", (0,)),
        ("livechallenge_test_data", (0,)),
    ):
        for number in numbers:
            seed = number + 10 * len(folder)
            save(root / folder / f"Case{number:02d}.mhd", image(seed), oblique(shift=number))
            if folder == "training_data":
                seg = labels(seed, (0, 1))
                save(
                    root / folder / f"Case{number:02d}_segmentation.mhd", seg, oblique(shift=number)
                )
    return root


FINE = oblique((0.5, 0.5, 0.5))
FINE_SHAPE = (17, 10, 25)


def prostatex(root: Path) -> Path:
    """Three patients: labels of 0.5 mm, labels of the same grid, and none."""
    for number in (4, 7, 9):
        place = root / f"PROSTATEx/ProstateX-{number:04d}/07-08-2011"
        save(place / "t2_tse_tra.nrrd", image(number))
        save(place / "t2_tse_sag.nrrd", image(number + 50))
    fine = np.zeros(FINE_SHAPE, np.uint8)
    fine[4:13, 2:8, 5:20] = 1
    save(root / "PROSTATEx-Seg-HiRes/ProstateX-0004/1.nrrd", fine, FINE)
    masks = root / "PROSTATEx_masks/Files"
    save(masks / "prostate/mask_prostate/ProstateX-0007.nii.gz", labels(7, (0, 1, 2)))
    save(
        masks / "lesions/Masks/T2/ProstateX-0007-Finding1-t2_tse_tra_ROI.nii.gz", labels(8, (0, 1))
    )
    return root


def decathlon(root: Path, *, channels: int = 2) -> Path:
    task = root / ("Task05_Prostate" if channels == 2 else "Task02_Heart")
    stack = () if channels == 1 else (channels,)
    names = ("prostate_00", "prostate_16", "prostate_46")
    for seed, name in enumerate(names):
        folder = "imagesTs" if name == "prostate_46" else "imagesTr"
        save(task / folder / f"{name}.nii.gz", image(seed, (*SHAPE, *stack)))
        (task / folder / f"._{name}.nii.gz").write_bytes(b"macOS")
        if folder == "imagesTr":
            save(task / "labelsTr" / f"{name}.nii.gz", labels(seed, (0, 1, 2)))
    modality = {"0": "T2", "1": "ADC"} if channels == 2 else {"0": "MRI"}
    content = {
        "name": "PROSTATE",
        "modality": modality,
        "labels": {"0": "background", "1": "PZ", "2": "TZ"},
        "numTraining": 2,
        "training": [
            {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"}
            for name in names[:2]
        ],
        "test": ["./imagesTs/prostate_46.nii.gz"],
    }
    (task / "dataset.json").write_text(json.dumps(content))
    return task


def multisite(root: Path) -> Path:
    for seed, (site, number) in enumerate(
        (site, number) for site in ("RUNMC", "BMC", "UCL") for number in (0, 1)
    ):
        save(root / site / f"Case{number:02d}.nii.gz", image(seed))
        word = "Segmentation" if site == "UCL" else "segmentation"
        values = (0, 1, 2) if site == "BMC" else (0, 1)
        save(root / site / f"Case{number:02d}_{word}.nii.gz", labels(seed, values))
    return root


TREES: dict[str, Callable[[Path], Path]] = {
    **{f"brats{year}": lambda root, year=year: brats(root, year) for year in BRATS},  # type: ignore[misc]
    **{"acdc": acdc, "mnms": mnms, "promise12": promise12},
    **{"prostatex": prostatex, "msd": decathlon},
    "multisite-prostate": multisite,
}


def rows(out: Path) -> dict[str, dict[str, str]]:
    with (out / "cases.csv").open() as file:
        return {row["case"]: row for row in csv.DictReader(file)}
