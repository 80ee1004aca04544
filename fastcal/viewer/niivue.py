"""NiiVue, the library that draws: its one file is part of the wheel of nilearn."""

from __future__ import annotations

from importlib import metadata, util
from pathlib import Path

FILE = "niivue.umd.js"

_NEEDED = (
    "the viewer needs nilearn 0.14 or newer, which carries NiiVue: pip install 'fastcal[view]'"
)


def niivue_file() -> Path:
    """Return the file of NiiVue in the installed package of nilearn, which is not imported.

    The place differs between the versions of nilearn, so that the file is looked for by its name.

    Raises:
        ImportError: nilearn is not installed, or its version has no such file.

    Example:
        >>> niivue_file().name
        'niivue.umd.js'
    """
    package = util.find_spec("nilearn")
    if package is None or not package.submodule_search_locations:
        raise ImportError(_NEEDED)
    for folder in package.submodule_search_locations:
        found = min(Path(folder).rglob(FILE), default=None)
        if found is not None:
            return found
    try:
        version = metadata.version("nilearn")
    except metadata.PackageNotFoundError:
        version = "of unknown version"
    raise ImportError(f"{_NEEDED}; the nilearn {version} that is installed has no {FILE}")
