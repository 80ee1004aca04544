"""Where outputs may go: never where an input is, and only into folders that are fastcal's own."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

from fastcal.core.errors import DataError

_DATA = re.compile(
    r".*\.(nii|nii\.gz|nrrd|mha|mhd|npz|npy|pkl|pt|pth|safetensors|h5|dcm)"
    r"|(dataset|config|plans|prediction|splits|splits_final)\.json|member_\d+|images(Tr|Ts|Val)|labels(Tr|Ts|Val)"
)
"""Names of images, labels, probabilities and weights, and what marks the folders of these."""

_PICTURE = re.compile(r".*\.(png|bmp|tif|tiff)")
"""Names that data of a dataset have, as figures do."""


def check_outputs(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Refuse outputs that would take the place of an input.

    Args:
        outputs: Files to write, which may exist.
        inputs: Files that are read; those that are missing are left out.

    Raises:
        DataError: An output is an input, by its path, through links, or as a hard link; or it
            exists and is no regular file.

    Example:
        >>> check_outputs([Path("scores.json")], [Path("labels/case_1.nii.gz")])
    """
    paths: dict[str, Path] = {}
    contents: dict[tuple[int, int], Path] = {}
    for path in inputs:
        paths[os.path.realpath(path)] = path
        with suppress(OSError):  # one that cannot be read is told when it is read
            found = path.stat()
            contents[found.st_dev, found.st_ino] = path
    for path in outputs:
        there = _status(path)
        same = paths.get(os.path.realpath(path))
        if same is None and there is not None:
            same = contents.get((there.st_dev, there.st_ino))
        if same is not None:
            other = "" if path == same else f" ({same})"
            raise DataError(path, f"is an input{other}; the output must go elsewhere")
        if there is not None and not stat.S_ISREG(there.st_mode):
            kind = "a folder" if stat.S_ISDIR(there.st_mode) else "no regular file"
            raise DataError(path, f"must be a file to write, got {kind}")


def check_out_file(path: Path, inputs: Iterable[Path]) -> None:
    """Refuse a file of results in the place of an input, or of any data.

    Args:
        path: The file to write.
        inputs: Files that are read.

    Raises:
        DataError: It is an input, or holds what only other programs and commands write: data by
            its name, or a picture among pictures that are read.
    """
    read = list(inputs)
    check_outputs([path], read)
    if not path.exists():
        return
    beside = _PICTURE.fullmatch(path.name) is not None and any(
        other.suffix == path.suffix and os.path.realpath(other.parent) == here
        for here in [os.path.realpath(path.parent)]
        for other in read
    )
    if beside or _DATA.fullmatch(path.name):
        raise DataError(
            path, "holds data, which this command did not write; out must be a new file"
        )


def check_out_folder(folder: Path, read: Iterable[Path]) -> None:
    """Refuse to write into a folder that is read.

    Args:
        folder: The output folder, which may be missing.
        read: Folders of inputs.

    Raises:
        DataError: It is one of them, by its path or through links; or its links form a loop.
    """
    found = _status(folder)
    for other in read:
        there = _status(other)
        same = found is not None and there is not None and os.path.samestat(found, there)
        if same or os.path.realpath(folder) == os.path.realpath(other):
            named = "" if folder == other else f" ({other})"
            raise DataError(folder, f"is a folder of inputs{named}; out must be another one")


def check_results(folder: Path, names: Collection[str], inputs: Iterable[Path]) -> None:
    """Refuse a folder of results that would take the place of an input, or that holds other data.

    Args:
        folder: The output folder, which may be missing.
        names: Of the files to write into it, which an earlier call may have written.
        inputs: Files that are read.

    Raises:
        DataError: One of the files is an input, or the folder holds data of other commands.
    """
    check_outputs([folder / name for name in names], inputs)
    check_own(folder, but=names)


def check_own(folder: Path, outputs: Iterable[Path] = (), *, but: Iterable[str] = ()) -> None:
    """Refuse a folder that holds data which is not known to be fastcal's own output.

    It is for folders without the record of an earlier run. Images, labels, probabilities, weights
    and the files that describe them are data; notes and logs are not.

    Args:
        folder: The output folder, which may be missing.
        outputs: Files to write.
        but: Names that may be there.

    Raises:
        DataError: There is data in it, or one of the outputs; the message names the first.
    """
    allowed = frozenset(but)
    foreign: list[Path] = []
    if folder.is_dir():
        foreign = [
            entry
            for entry in folder.iterdir()
            if entry.name not in allowed
            and not entry.name.startswith(".tmp-")
            and _DATA.fullmatch(entry.name)
        ]
    foreign += [path for path in outputs if path.name not in allowed and os.path.lexists(path)]
    if foreign:
        raise DataError(
            folder,
            f"holds {min(foreign).relative_to(folder)}, which this command did not write; out must "
            "be a new folder, or one of the same command",
        )


def _status(path: Path) -> os.stat_result | None:
    """What a path leads to; None where there is nothing.

    Raises:
        DataError: Its links form a loop.
    """
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DataError(path, error.strerror or str(error)) from error
