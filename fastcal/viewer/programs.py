"""The commands that open a case in 3D Slicer and in napari."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

SLICER = "Slicer"

_SLICER_CODE = """\
import json, slicer
files = json.loads({files})
image = [slicer.util.loadVolume(path) for path in files["image"]]
for path in files["map"]:
    node = slicer.util.loadVolume(path)
    node.GetDisplayNode().SetAndObserveColorNodeID("vtkMRMLColorTableNodeFileColdToHotRainbow.txt")
    slicer.util.setSliceViewerLayers(foreground=node, foregroundOpacity=0.4)
for path in files["prediction"] + files["reference"]:
    slicer.util.loadSegmentation(path)
slicer.util.setSliceViewerLayers(background=image[0], fit=True)
"""

_NAPARI_CODE = """\
import json, napari, nibabel, numpy
files = json.loads({files})
viewer = napari.Viewer(ndisplay=2)
for kind in ("image", "map", "prediction", "reference"):
    for path in files[kind]:
        volume = nibabel.as_closest_canonical(nibabel.load(path))
        voxels = numpy.asarray(volume.dataobj)
        # napari's first axis is the one across the slices, and its rows go down.
        voxels = numpy.moveaxis(voxels, (2, 1, 0), (0, 1, 2))[:, ::-1, ::-1]
        scale = volume.header.get_zooms()[2::-1]
        if kind in ("prediction", "reference"):
            viewer.add_labels(voxels.astype(int), name=kind, scale=scale, opacity=0.4)
        else:
            look = {{"colormap": "inferno", "opacity": 0.5}} if kind == "map" else {{}}
            name = path.replace("\\\\", "/").split("/")[-2 if kind == "map" else -1]
            viewer.add_image(voxels, name=name, scale=scale, **look)
napari.run()
"""


def slicer_command(files: Mapping[str, Sequence[Path]]) -> list[str]:
    """Return the command that opens the files of a case in 3D Slicer.

    Args:
        files: Lists under ``"image"``, ``"prediction"``, ``"reference"`` and ``"map"``.
    """
    return [SLICER, "--python-code", _SLICER_CODE.format(files=_listed(files))]


def napari_command(files: Mapping[str, Sequence[Path]]) -> list[str]:
    """Return the command that opens the files of a case in napari; see `slicer_command`."""
    python = sys.executable if find_spec("napari") else "python"
    return [python, "-c", _NAPARI_CODE.format(files=_listed(files))]


def is_installed(command: Sequence[str]) -> bool:
    """Whether the program of a command is there: Slicer on the path, or napari in this Python."""
    if command[0] == SLICER:
        return shutil.which(SLICER) is not None
    return find_spec("napari") is not None


def start(command: Sequence[str]) -> None:
    """Start a program, which stays open when this process ends.

    Raises:
        OSError: It cannot be started.
    """
    subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
    )


def _listed(files: Mapping[str, Sequence[Path]]) -> str:
    """The files as a Python literal of JSON, which quotes whatever a path holds."""
    names = {kind: [str(path.resolve()) for path in paths] for kind, paths in files.items()}
    return repr(json.dumps(names))
