"""Multi-site prostate (SAML, Liu et al. 2020): T2-weighted prostates of six sites.

Layout: ``SITE/Case00.nii.gz`` and ``SITE/Case00_segmentation.nii.gz``; some copies write
``_Segmentation``, and two sites tell the zones of the gland apart.
"""

from __future__ import annotations

import re
from pathlib import Path

from fastcal.convert.found import FoundCase, FoundSet, Search, Source
from fastcal.convert.promise12 import LABELS


def read(search: Search) -> FoundSet:
    """Find the cases of all sites; every value above 0 becomes the prostate.

    Args:
        search: Where to look.
    """
    cases = []
    for folder in search.folders():
        found: dict[str, tuple[Path, str]] = {}
        for path, stem in search.volumes(folder):
            other, _ = found.setdefault(stem.lower(), (path, stem))
            if other != path:
                search.note(folder, f"must have one file {stem}, got {other.name} and {path.name}")
        for key, (path, stem) in found.items():
            if not re.fullmatch(r"case\d+", key):
                continue
            label, _ = found.get(f"{key}_segmentation", (None, ""))
            if label is None:
                search.note(folder / f"{stem}_segmentation.nii.gz", "no such file")
                continue
            site = folder.resolve().name
            name = f"{site}_{stem}"
            cases.append(
                FoundCase(name, (Source(path),), Source(label), "train", name, {"site": site})
            )
    return FoundSet("MultiSiteProstate", ("T2",), LABELS, None, cases, group="site")
