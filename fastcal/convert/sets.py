"""The datasets that can be converted: one row each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from fastcal.convert import acdc, brats, decathlon, mnms, multisite, promise12, prostatex
from fastcal.convert.found import FoundSet, Search


@dataclass(frozen=True, slots=True)
class ConvertedSet:
    """A dataset that can be converted."""

    read: Callable[[Search], FoundSet]
    """Finds its cases."""
    layout: str
    """An example of the files that are looked for, for the message when there are none."""


_BRATS_LAYOUT = {
    2017: "HGG/Brats17_CBICA_AAB_1/Brats17_CBICA_AAB_1_t1.nii.gz",
    2018: "HGG/Brats18_CBICA_AAM_1/Brats18_CBICA_AAM_1_t1.nii.gz",
    2019: "HGG/BraTS19_CBICA_AAB_1/BraTS19_CBICA_AAB_1_t1.nii.gz",
    2020: "BraTS20_Training_001/BraTS20_Training_001_t1.nii",
    2021: "BraTS2021_00000/BraTS2021_00000_t1.nii.gz",
    2022: "BraTS2021_00000/BraTS2021_00000_t1.nii.gz",
    2023: "BraTS-GLI-00000-000/BraTS-GLI-00000-000-t1n.nii.gz",
}

SETS = {
    **{
        f"brats{year}": ConvertedSet(partial(brats.read, year=year), _BRATS_LAYOUT[year])
        for year in brats.YEARS
    },
    "acdc": ConvertedSet(acdc.read, "training/patient001/patient001_frame01.nii.gz"),
    "mnms": ConvertedSet(mnms.read, "Training/Labeled/ID/ID_sa.nii.gz"),
    "promise12": ConvertedSet(promise12.read, "training_data/Case00.mhd"),
    "prostatex": ConvertedSet(prostatex.read, "ProstateX-0004/t2_tse_tra.nrrd"),
    "msd": ConvertedSet(decathlon.read, "imagesTr/prostate_16.nii.gz"),
    "multisite-prostate": ConvertedSet(multisite.read, "SITE/Case00.nii.gz"),
}
"""What `convert_dataset` takes, by name."""
