"""One headless Chromium for the tests of pages, and what is asked of every page.

``conftest.py`` gives every test the fixture `browser`.
Without Chromium or playwright the tests that need it are skipped.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = next(
    (
        found
        for name in (os.environ.get("FASTCAL_CHROMIUM", ""), "chromium", "chromium-browser")
        if name and (found := shutil.which(name))
    ),
    None,
)
WIDE, NARROW = (1280, 900), (390, 844)
"""A desktop and a telephone, in CSS pixels."""
SOFTWARE_GL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")
"""WebGL without a GPU; pages that draw with it work, slowly."""


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, started once for all tests of a process."""
    if CHROMIUM is None:
        pytest.skip("browser: no chromium on this machine (FASTCAL_CHROMIUM names one)")
    pytest.importorskip("playwright", reason="browser: playwright is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", *SOFTWARE_GL]
        )
        yield started
        started.close()


@contextmanager
def opened(
    browser: Browser,
    address: str | Path,
    *,
    size: tuple[int, int] = WIDE,
    scheme: Any = "light",
    offline: bool = False,
    allowed: Sequence[str] = (),
) -> Iterator[Page]:
    """Open a page, and fail if anything is written to its console as an error, or thrown.

    Args:
        browser: The fixture.
        address: A file, or an address.
        size: Width and height of the window in CSS pixels.
        scheme: ``"light"`` or ``"dark"``, which the page is told to prefer.
        offline: Cut the network, and fail if the page asks for anything over it.
        allowed: Parts of messages of the console that are no errors of ours.
    """
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme=scheme,
        offline=offline,
        reduced_motion="reduce",
    )
    errors: list[str] = []
    asked: list[str] = []
    try:
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on(
            "console",
            lambda message: errors.append(message.text) if message.type == "error" else None,
        )
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address.absolute().as_uri() if isinstance(address, Path) else address)
        yield page
    finally:
        context.close()
    wrong = [error for error in errors if not any(part in error for part in allowed)]
    assert wrong == []
    if offline:
        assert [url for url in asked if url.startswith(("http:", "https:", "ws"))] == []


def violations(page: Page) -> list[str]:
    """Return what axe has to say against a page: the rule, its help and the first element."""
    from axe_playwright_python.sync_playwright import Axe

    return [
        f"{one['id']}: {one['help']} ({one['nodes'][0]['html'][:200]})"
        for one in Axe().run(page).response["violations"]
    ]


def overflowing(page: Page) -> int:
    """Return the CSS pixels by which a page is wider than its window."""
    return int(
        page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    )
