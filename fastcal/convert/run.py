"""The conversion of a dataset: what is found, checked at once, then written case by case."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastcal.cases.case_record import FOLDER as RECORDS
from fastcal.cases.case_record import CaseRecord
from fastcal.cases.loop import Failure, ProgressOption
from fastcal.cases.pipeline import Stages, run_stages
from fastcal.cases.record import digests, first_change, versions
from fastcal.convert.case import (
    CasePaths,
    ConvertedCase,
    ReadCase,
    convert_case,
    read_case,
    write_case,
)
from fastcal.convert.found import FoundSet, Search
from fastcal.convert.listing import write_listing
from fastcal.convert.sets import SETS
from fastcal.core.atomic import write_json
from fastcal.core.doors import MissingFileError, read_json
from fastcal.core.errors import DataError
from fastcal.core.lock import LOCK, sole_use
from fastcal.data import checks
from fastcal.data.affines import affine_rule

RECORD = "conversion.json"


@dataclass(frozen=True, slots=True)
class Conversion:
    """What `convert_dataset` did."""

    out: Path
    done: tuple[str, ...]
    """Cases that were converted now."""
    skipped: tuple[str, ...]
    """Cases that an earlier call had converted, from the files that are there now."""
    failed: tuple[Failure, ...]
    """Cases that could not be converted, with ``keep_going``."""
    notes: tuple[str, ...]
    """What was changed in the cases converted now, beyond names: a sentence each."""


def convert_dataset(
    name: str,
    source: str | Path,
    out: str | Path,
    *,
    keep_going: bool = False,
    progress: ProgressOption = False,
) -> Conversion:
    """Convert a public dataset, as it is downloaded and unpacked, to nnU-Net's raw layout.

    Training cases go to ``imagesTr`` and ``labelsTr``, cases of the dataset's own test part and
    those without a label to ``imagesTs`` and, where labelled, ``labelsTs``. ``cases.csv`` has
    patient, centre, vendor and what else is known of each case. ``splits.json``, which
    `fastcal.train.train_ensemble` reads, has the dataset's own validation part, or a fifth of the
    patients; frames of a patient stay together. ``splits_by_<column>.json`` holds out one centre,
    site or vendor after another.

    Voxels keep their values and their place in the world. Labels on another grid are resampled to
    that of the image by nearest neighbour, and direction cosines that are not quite orthonormal,
    which ITK refuses, are made so. Everything that is missing is reported at once, before a file
    is written. A call that was killed can be repeated: finished cases are skipped.

    Args:
        name: One of `fastcal.convert.SETS`.
        source: The folder that was downloaded.
        out: A new or empty folder, or that of an earlier call of the same conversion.
        keep_going: Leave cases out that are incomplete or cannot be read; the result lists them.
        progress: True prints one line per case to stderr; a function is called with a
            `fastcal.cases.loop.Progress`.

    Raises:
        DataError: There is no such folder, no case in it, files are missing, a file cannot be read
            or holds unknown labels, ``out`` holds something else, or another conversion writes it.
        ImportError: SimpleITK is needed and missing.
        ValueError: There is no such dataset.
        OSError: The error of the disk.

    Example:
        >>> convert_dataset("acdc", "ACDC/database", "Dataset027_ACDC").done  # doctest: +SKIP
        ('patient001_frame01', 'patient001_frame12', ...)
    """
    if name not in SETS:
        raise ValueError(f"name must be one of {', '.join(SETS)}, got {name!r}")
    source, out = Path(source), Path(out)
    if not source.is_dir():
        raise DataError(source, "no such folder")
    _check_out(source, out)
    search = Search(source)
    found = SETS[name].read(search)
    problems = [*search.problems, *_namesakes(source, found)]
    if problems and not keep_going:
        checks.complain(source, problems)
    if not found.cases:
        if problems:
            checks.complain(source, problems)
        raise DataError(source, f"has no cases of {name}, such as {SETS[name].layout}")
    with sole_use(out, "conversion"):
        _open_folder(out, {"set": name, "source": str(source.resolve())})
        cases = {case.name: case for case in found.cases}
        paths = {name: CasePaths.of(case, out) for name, case in cases.items()}
        notes: list[str] = []
        key = f"{name} {versions()['fastcal']} {affine_rule()}"

        records: dict[str, CaseRecord] = {}

        def read(case: str) -> Iterator[ReadCase]:
            records[case] = CaseRecord.of(key, cases[case].files, [], out)
            yield read_case(cases[case])

        def compute(case: str, pieces: Iterator[ReadCase]) -> ConvertedCase:
            return convert_case(cases[case], next(pieces), found.label_map)

        def write(case: str, made: ConvertedCase) -> None:
            write_case(cases[case], made, paths[case])
            notes.extend(made.notes)
            (out / RECORDS).mkdir(exist_ok=True)
            records.pop(case).write(out, case, paths[case].all)

        def finished(case: str) -> bool:
            known = CaseRecord.read(out, case)
            if known is None or known.key != key or not known.holds(out, paths[case].all):
                return False
            try:
                now = digests(cases[case].files, out, known.members)
                return first_change(known.members, now) is None
            except DataError:
                return False  # converting it says what is wrong

        done = run_stages(
            sorted(cases),
            Stages(read, compute, write),
            finished=finished,
            keep_going=keep_going,
            progress=progress,
        )
        kept = [cases[case] for case in (*done.done, *done.skipped)]
        write_listing(found, kept, out)
    left_out = tuple(Failure(problem.path.name, str(problem)) for problem in problems)
    return Conversion(out, done.done, done.skipped, (*left_out, *done.failed), tuple(notes))


def _check_out(source: Path, out: Path) -> None:
    """Refuse a folder within the source, which readers would search, and one that holds it."""
    inner, outer = out.resolve(), source.resolve()
    if inner == outer or outer in inner.parents or inner in outer.parents:
        raise DataError(out, f"must lie outside of {source}, which is read")
    if out.exists() and not out.is_dir():
        raise DataError(out, "must be a folder, got a file")


def _open_folder(out: Path, settings: dict[str, str]) -> None:
    """Record the conversion in its folder, or see that it is that of the same one."""
    try:
        known: Any = read_json(out / RECORD, dict[str, str])
    except MissingFileError:
        # A conversion that was killed at its very start left a lock or a temporary file.
        if any(not path.name.startswith((LOCK, ".tmp-")) for path in out.iterdir()):
            raise DataError(out, "must be a new or empty folder, got one with files") from None
        write_json(out / RECORD, settings)
        return
    for key, value in settings.items():
        if known.get(key) != value:
            raise DataError(
                out / RECORD,
                f"this folder was made with {key} = {known.get(key)!r}, but now it is {value!r}; "
                "choose another folder",
            )


def _namesakes(source: Path, found: FoundSet) -> list[DataError]:
    """Cases of one name, of which the second would take the place of the first."""
    by_name: dict[str, list[str]] = defaultdict(list)
    for case in found.cases:
        by_name[case.name].append(str(case.images[0].path.relative_to(source)))
    return [
        DataError(source, f"must have one case {name}, got {' and '.join(sorted(paths))}")
        for name, paths in sorted(by_name.items())
        if len(paths) > 1
    ]
