"""The page in a browser: opened, sorted, leafed through, printed, and read by a screen reader."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from browser import NARROW, WIDE, opened, overflowing, violations
from report_cases import write_cohort

from fastcal.report import build

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folders = write_cohort(tmp_path_factory.mktemp("browser") / "data")
    return build(
        [folders["ce"], folders["dice"]],
        folders["labels"],
        folders["labels"].parent / "report.html",
        images=folders["images"],
        fine_bins=256,
        min_count=20,
        regions=["box:2:1"],
    )


@pytest.mark.parametrize(
    ("size", "scheme"),
    [
        pytest.param(WIDE, "light", id="wide-light"),
        pytest.param(WIDE, "dark", id="wide-dark", marks=pytest.mark.slow),
        pytest.param(NARROW, "light", id="narrow-light", marks=pytest.mark.slow),
        pytest.param(NARROW, "dark", id="narrow-dark"),
    ],
)
def test_page_is_accessible_and_fits_its_window(
    browser: Browser, report: Path, size: tuple[int, int], scheme: str
) -> None:
    with opened(browser, report, size=size, scheme=scheme, offline=True) as page:
        page.evaluate("document.querySelectorAll('details').forEach((one) => one.open = true)")
        assert violations(page) == []
        assert overflowing(page) == 0
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(255, 255, 255)") == (scheme == "light")


def column(page: Page, table: str, place: int) -> list[str]:
    cells = page.locator(f'table[data-name="{table}"] tbody tr > :nth-child({place})')
    return [
        str(text).strip() for text in cells.evaluate_all("cells => cells.map(c => c.dataset.v)")
    ]


def test_tables_sort_by_their_numbers_with_mouse_and_keyboard(
    browser: Browser, report: Path
) -> None:
    with opened(browser, report, offline=True) as page:
        head = page.locator('table[data-name="cases"] thead th').nth(1)
        head.locator("button").click()
        found = [float(value) for value in column(page, "cases", 2)]
        assert found == sorted(found)
        assert head.get_attribute("aria-sort") == "ascending"
        head.locator("button").focus()
        page.keyboard.press("Enter")
        assert [float(value) for value in column(page, "cases", 2)] == found[::-1]
        assert head.get_attribute("aria-sort") == "descending"
        assert "descending" in (page.locator("#said").text_content() or "")


def test_regions_and_classes_switch_what_is_shown(browser: Browser, report: Path) -> None:
    with opened(browser, report, offline=True) as page:
        shown = page.locator("[data-region]:visible")
        regions = "found => [...new Set(found.map(one => one.dataset.region))]"
        assert shown.evaluate_all(regions) == ["box:2:1"]
        page.locator('#comparison input[value=""]').check()
        assert shown.evaluate_all(regions) == [""]
        assert page.locator('#calibration input[value=""]').is_checked()
        page.locator("#class").select_option("rim")
        classes = page.locator(".diagrams:visible").evaluate_all(
            "found => found.map(one => one.dataset.class)"
        )
        assert classes == ["rim"]
        assert page.locator("circle.few:visible").count() == 0
        page.locator("#class").select_option("")
        page.locator("#few").check()
        assert page.locator("circle.few:visible").count() > 0


def test_a_click_opens_a_case_and_the_slider_moves_through_its_slices(
    browser: Browser, report: Path
) -> None:
    with opened(browser, report, offline=True) as page:
        dots = page.locator("svg a.open-case")
        assert dots.count() == 12
        target = dots.nth(2).get_attribute("href")
        dots.nth(2).focus()
        page.keyboard.press("Enter")
        article = page.locator("article.case:visible")
        assert f"#{article.get_attribute('id')}" == target
        assert page.evaluate("document.activeElement.tagName") == "H3"
        slider = article.locator("input.slice")
        place = "(one) => getComputedStyle(one).backgroundPositionY"
        layer = article.locator(".layer").first
        slider.focus()
        page.keyboard.press("Home")
        before = layer.evaluate(place)
        page.keyboard.press("ArrowRight")
        assert layer.evaluate(place) != before
        number = page.evaluate(
            "document.querySelector('article.case:not([hidden])').dataset.numbers"
        )
        expected = f"axial slice {number.split()[1]} of 6"
        assert article.locator("output").text_content() == expected
        pick = page.locator(".picks a").first
        pick.click()
        assert pick.get_attribute("aria-current") == "true"


def test_pictures_are_drawn(browser: Browser, report: Path) -> None:
    """A panel is not one flat colour: its layers were decoded and put on top of each other."""
    from PIL import Image

    with opened(browser, report, offline=True) as page:
        panels = page.locator("article.case:visible .picture")
        assert panels.count() == 8
        for place in range(5):
            picture = Image.open(io.BytesIO(panels.nth(place).screenshot())).convert("RGB")
            assert len(picture.getcolors(1 << 20) or []) > 3


def test_theme_follows_the_button_and_comes_back(browser: Browser, report: Path) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    with opened(browser, report, offline=True) as page:
        button = page.locator("#theme")
        light = page.evaluate(ground)
        button.click()
        assert page.evaluate(ground) == light
        button.click()
        assert page.evaluate(ground) != light
        assert button.get_attribute("aria-label") == "Colour theme: dark"
        assert violations(page) == []
        button.click()
        assert page.evaluate(ground) == light


def saved(page: Page, selector: str) -> str:
    with page.expect_download() as found:
        page.locator(selector).first.click()
    return Path(found.value.path()).read_text(encoding="utf-8")


def test_tables_are_saved_as_csv_and_everything_as_json(browser: Browser, report: Path) -> None:
    with opened(browser, report, offline=True) as page:
        text = saved(page, "#cases button.csv")
        rows = list(csv.reader(io.StringIO(text)))
        assert rows[0][0] == "Case"
        assert [row[0] for row in rows[1:]] == [f"case_{k}" for k in range(6)]
        everything: dict[str, Any] = json.loads(saved(page, "#json"))
        assert everything["cases"] == [row[0] for row in rows[1:]]
        first = everything["dice"]["Cross entropy, ensemble of 2"][0]
        assert float(rows[1][1]) == pytest.approx(sum(first) / 2)


def test_page_prints_with_every_column_and_the_cases_singled_out(
    browser: Browser, report: Path
) -> None:
    with opened(browser, report, size=(718, 1000), offline=True) as page:
        page.emulate_media(media="print")
        # A4 less margins: nothing is cut off at the right.
        assert overflowing(page) == 0
        cut = page.evaluate(
            "[...document.querySelectorAll('table')].filter((one) => one.offsetParent && "
            "one.getBoundingClientRect().right > innerWidth + 1).length"
        )
        assert cut == 0
        assert page.locator("article.case:visible").count() >= 3
        page.emulate_media(media="screen")
        content = page.pdf(format="A4")
        assert content.startswith(b"%PDF")
        assert len(content) > 20_000
