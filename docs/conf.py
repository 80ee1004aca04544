"""Sphinx: the site of this folder, built by `make docs`."""

from __future__ import annotations

import re
from importlib.metadata import version as _version
from typing import Any

project = "fastcal"
author = "The fastcal developers"
project_copyright = "The fastcal developers, Apache-2.0"
version = release = _version("fastcal")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "myst_nb",
    "sphinx_design",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}

# Notebooks show the outputs that they were saved with. `tests/test_site.py` runs them.
nb_execution_mode = "off"
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
# Pages outside this folder, such as the changelog, are offered as files. Two modules may offer a
# class of the same name, such as `Measure`; signatures that name it then link to the first.
suppress_warnings = ["myst.header", "ref.python"]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_default_options = {"members": True, "show-inheritance": False}
napoleon_numpy_docstring = False
napoleon_use_rtype = False
add_module_names = False

html_theme = "pydata_sphinx_theme"
html_title = "fastcal"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_theme_options = {
    "github_url": "https://github.com/fastcal/fastcal",
    "navigation_with_keys": False,
    "show_prev_next": True,
    "header_links_before_dropdown": 6,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
}
copybutton_exclude = ".linenos, .gp, .go"

# What scikit-learn adds to its estimators for pipelines of its own.
_NOT_OURS = {"set_fit_request", "set_predict_request", "set_score_request", "set_transform_request"}
_SOURCE = "https://github.com/fastcal/fastcal/blob/main/"


def setup(app: Any) -> None:
    """Leave out what is not ours, and lead links out of this folder to the repository."""

    def skip(_app: Any, _what: str, name: str, _obj: Any, skipped: bool, _options: Any) -> bool:
        return skipped or name in _NOT_OURS

    def lead_outside(_app: Any, page: str, source: list[str]) -> None:
        if "/" not in page:
            source[0] = re.sub(r"\]\(\.\./", f"]({_SOURCE}", source[0])

    app.connect("autodoc-skip-member", skip)
    app.connect("source-read", lead_outside)
