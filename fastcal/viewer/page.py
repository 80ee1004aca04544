"""The HTML of the viewer: served file by file, or as one page that holds everything."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

from fastcal.viewer.niivue import niivue_file

_BODY = """\
<header>
  <h1>fastcal <span id="title"></span></h1>
  <p id="status" role="status"></p>
</header>
<nav aria-label="Cases">
  <label for="order">Cases by</label>
  <select id="order"></select>
  <ol id="cases"></ol>
</nav>
<main>
  <canvas id="canvas" tabindex="0" aria-label="Axial, coronal and sagittal planes"></canvas>
</main>
<aside aria-label="Layers and values">
  <section id="layers" aria-label="Layers"></section>
  <section aria-labelledby="here">
    <h2 id="here">Under the crosshair</h2>
    <table id="readout"><tbody></tbody></table>
  </section>
  <section aria-labelledby="keys">
    <h2 id="keys">Keys</h2>
    <dl>
      <dt>Arrows</dt><dd>move in the plane last clicked</dd>
      <dt>Page up, down</dt><dd>next slice of it</dd>
      <dt>N, P</dt><dd>next and previous case</dd>
      <dt>E</dt><dd>next error (Shift: previous)</dd>
      <dt>U</dt><dd>next uncertain cluster (Shift: previous)</dd>
      <dt>Space</dt><dd>hide and show the layers</dd>
    </dl>
  </section>
</aside>
"""


def asset(name: str) -> str:
    """Return the text of one of the files that the page consists of."""
    return resources.files("fastcal.viewer").joinpath(name).read_text(encoding="utf-8")


def served_page() -> str:
    """Return the page that asks the server for everything else."""
    return _html(
        '<link rel="stylesheet" href="page.css">',
        '<script src="niivue.js"></script><script src="page.js"></script>',
    )


def whole_page(content: dict[str, Any]) -> str:
    """Return a page that holds NiiVue and what it shows, and asks nobody for anything.

    Args:
        content: Under ``"cases"`` what the server's pages of the same name give, and under
            ``"case"``, with ``"volumes"`` in Base64 by layer, its one case.

    Raises:
        ImportError: nilearn is not installed.
    """
    # Within a script, "<" may begin the tag that ends it; in JSON it may be escaped anywhere.
    data = json.dumps(content, allow_nan=False).replace("<", "\\u003c")
    scripts = (niivue_file().read_text(encoding="utf-8"), asset("page.js"))
    return _html(
        f"<style>{asset('page.css')}</style>",
        f'<script type="application/json" id="embedded">{data}</script>'
        + "".join(f"<script>{_within_script(one)}</script>" for one in scripts),
        kind="embedded",
    )


def _within_script(text: str) -> str:
    return text.replace("</script", "<\\/script")


def _html(head: str, scripts: str, *, kind: str = "served") -> str:
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>fastcal view</title>\n<link rel="icon" href="data:,">\n{head}\n</head>\n'
        f'<body class="{kind}">\n{_BODY}{scripts}\n</body>\n</html>\n'
    )
