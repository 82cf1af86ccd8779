"""The report as Chromium shows it: it needs no other file, draws, reacts to mouse and keyboard, and shows names as text."""

import itertools
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from oracles.hostile import CLASSES, KIND, NAMES, TARGET
from playwright.sync_api import expect, sync_playwright

from poise.study.report.page import render_page
from poise.study.report.script import write_script

WIDE, PHONE = {"width": 1400, "height": 900}, {"width": 390, "height": 844}
PICTURES = ("curves", "columns", "accuracy", "paths", "losses", "forces", "weights")


@pytest.fixture(scope="module")
def report(hostile, tmp_path_factory) -> Any:
    """A report with hostile names, values and classes."""
    file = tmp_path_factory.mktemp("run") / "report.html"
    file.write_text(render_page(hostile), encoding="utf-8")
    return file, hostile


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, report) -> Iterator[Any]:
    """Open the report; afterwards there must be no console message, request or alert."""
    contexts, troubles = [], []

    def opened(viewport=WIDE, scheme="light") -> Any:
        context = chromium.new_context(viewport=viewport, color_scheme=scheme, has_touch=viewport is PHONE)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("dialog", lambda dialog: (troubles.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: None if request.url == url else troubles.append(request.url))
        url = report[0].as_uri()
        page.goto(url)
        page.locator("#weights .main-svg").first.wait_for()
        return page

    yield opened
    for context in contexts:
        context.close()
    assert troubles == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [WIDE, {"width": 800, "height": 900}, PHONE], ids=["wide", "tablet", "phone"])
def test_all_pictures_are_drawn_and_nothing_scrolls_sideways(visit, viewport, scheme) -> None:
    page = visit(viewport, scheme)

    for name in PICTURES:
        box = page.locator(f"#{name} .main-svg").first.bounding_box()
        assert box["width"] > 300
        assert box["height"] > 200
        assert box["x"] + box["width"] <= viewport["width"]
    assert page.locator("#paths .scatterlayer .js-line").count() >= 6
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]


@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_no_words_are_cut_off(visit, viewport) -> None:
    page = visit(viewport)

    outside = page.evaluate("""() => [...document.querySelectorAll('.plot')].flatMap((picture) => {
        const frame = picture.getBoundingClientRect();
        return [...picture.querySelectorAll('text')].filter((text) => {
            const box = text.getBoundingClientRect();
            return box.width && (box.left < frame.left - 1 || box.right > frame.right + 1 ||
                                 box.top < frame.top - 1 || box.bottom > frame.bottom + 1);
        }).map((text) => text.textContent);
    })""")
    assert outside == []


@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_the_table_of_candidates_fits_a_wide_screen_and_scrolls_in_itself_on_a_narrow_one(visit, viewport) -> None:
    page = visit(viewport)

    inner, outer = page.locator("#comparison .wide").evaluate("one => [one.scrollWidth, one.clientWidth]")
    assert (inner <= outer) == (viewport is WIDE)
    caption = page.locator("#comparison caption span").bounding_box()
    assert caption["x"] + caption["width"] <= viewport["width"]


@pytest.mark.parametrize(
    ("picture", "panel", "expected"), [("losses", 1, "held-out rows"), ("weights", 0, "between"), ("forces", 1, "penalty")]
)  # fmt: skip
def test_hovering_shows_values(visit, picture, panel, expected) -> None:
    page = visit()
    area = page.locator(f"#{picture} .nsewdrag").nth(panel)
    area.scroll_into_view_if_needed()
    box = area.bounding_box()

    low = box["y"] + 0.99 * box["height"]
    page.mouse.move(box["x"] + box["width"] / 2 + 4, low)
    page.mouse.move(box["x"] + box["width"] / 2 + 1, low)
    page.wait_for_selector(f"#{picture} .hoverlayer text")

    text = " ".join(page.locator(f"#{picture} .hoverlayer text").all_text_contents())
    assert expected in text
    assert any(character.isdigit() for character in text)


def hovered(page, picture: str, name: str) -> str:
    """What is shown at the point of the trace of a name that is farthest from the points above and below it."""
    page.locator(f"#{picture}").scroll_into_view_if_needed()
    x, y = page.evaluate(
        """([picture, name]) => {
            const element = document.getElementById(picture), trace = element._fullData.find((one) => one.name === name);
            const layout = element._fullLayout, number = trace.xaxis.slice(1), box = element.getBoundingClientRect();
            const x = layout["xaxis" + number], y = layout["yaxis" + number];
            const others = element._fullData.filter((one) => one.xaxis === trace.xaxis && one !== trace);
            const gap = (at) => Math.min(...others.flatMap((one) => [...one.x].flatMap((place, i) =>
                place === trace.x[at] && one.y[i] !== null ? [Math.abs(one.y[i] - trace.y[at])] : [])), Infinity);
            const at = [...trace.x].map((_, i) => i).reduce((best, i) => gap(i) > gap(best) ? i : best, 0);
            return [box.x + x._offset + x.d2p(trace.x[at]), box.y + y._offset + y.d2p(trace.y[at])];
        }""",
        [picture, name],
    )
    page.mouse.move(x + 3, y)
    page.mouse.move(x, y)
    page.wait_for_selector(f"#{picture} .hoverlayer text")
    return " ".join(page.locator(f"#{picture} .hoverlayer text").all_text_contents())


def test_hovering_a_column_reads_its_name(visit) -> None:
    page = visit()
    name = page.evaluate("document.getElementById('columns').data.find((one) => one.meta === 'line1').name")

    text = hovered(page, "columns", name)

    shown = page.evaluate("text => new DOMParser().parseFromString(text, 'text/html').body.textContent", name)
    assert shown in text
    assert "at strength" in text


def test_hovering_a_mark_reads_its_strength(visit, report) -> None:
    text = hovered(visit(), "paths", "predicts")

    assert f"at strength {report[1].penalized[0].strength:.3g}" in text


def column(page, table: str, number: int) -> list[str]:
    return page.locator(f"#{table} table tbody tr > :nth-child({number})").all_text_contents()


def test_tables_are_sorted_by_a_click(visit, report) -> None:
    page = visit()
    heading = page.locator("#comparison th").nth(1)
    expect(heading).to_have_attribute("aria-sort", "none")

    heading.get_by_role("button").click()

    expect(heading).to_have_attribute("aria-sort", "ascending")
    findings = report[1]
    networks = [*findings.candidates, *([findings.selection] if findings.selection else [])]
    strengths = sorted(each.strength for each in networks)
    cells = page.locator("#comparison tbody tr > :nth-child(2)").evaluate_all(
        "all => all.map(one => one.dataset.value)"
    )
    # Reference models have no strength, and stay below.
    assert [float(cell) for cell in cells[: len(strengths)]] == strengths
    assert not any(cells[len(strengths) :])
    heading.get_by_role("button").click()
    expect(heading).to_have_attribute("aria-sort", "descending")
    assert page.locator("#comparison tbody tr").first.locator("td").first.get_attribute("data-value") == str(
        strengths[-1]
    )


def test_tables_are_sorted_by_the_keyboard(visit, report) -> None:
    page = visit()
    button = page.get_by_role("button", name="column", exact=True).first

    button.focus()
    page.keyboard.press("Enter")

    first = page.locator("#selection tbody th").all_text_contents()
    assert sorted(first) == sorted([*NAMES, KIND])
    expect(page.locator("#selection th[aria-sort=ascending]")).to_have_count(1)
    page.keyboard.press("Space")
    assert page.locator("#selection tbody th").all_text_contents() == first[::-1]


def test_missing_values_stay_at_the_end(visit) -> None:
    page = visit()
    gain = page.locator("#comparison th").nth(6).get_by_role("button")

    for _ in range(2):
        gain.click()
        assert page.locator("#comparison tbody th").last.text_content() == "No penalty"


def test_hostile_names_and_values_are_shown_as_text(visit) -> None:
    page = visit()

    words = page.locator("main").inner_text()
    for name in [*NAMES, KIND, TARGET]:
        assert name in words
    legend = page.locator("#selection .legend").inner_text()
    assert KIND in legend
    assert "{{ 7 * 7 }} %{y}" in legend
    for tag in ("img", "b", "i"):
        assert page.locator(f"main {tag}").count() == 0
    assert page.evaluate("document.scripts.length") == len(PICTURES) + 2


def test_hostile_classes_are_shown_as_text(visit) -> None:
    words = visit().locator("#settings").inner_text()

    for name in CLASSES:
        assert f"“{' '.join(name.split())}”" in words


def test_the_script_is_copied(visit, report) -> None:
    page = visit()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])

    page.get_by_role("button", name="Copy: Script").click()

    expect(page.locator("#code [role=status]")).to_have_text("Copied.")
    assert page.evaluate("navigator.clipboard.readText()") == write_script(report[1])


def test_the_script_is_copied_where_the_clipboard_is_barred(visit) -> None:
    page = visit()
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('barred')); }")

    page.get_by_role("button", name="Copy: Script").click()

    expect(page.locator("#code [role=status]")).to_have_text("Copied.")


def test_dark_and_light_pages_have_their_own_colors(visit) -> None:
    light, dark = visit(scheme="light"), visit(scheme="dark")

    colors = [page.locator("#losses .js-line").first.evaluate("line => line.style.stroke") for page in (light, dark)]
    papers = [page.evaluate("getComputedStyle(document.body).backgroundColor") for page in (light, dark)]
    assert colors[0] != colors[1]
    assert papers[0] != papers[1]


def test_colors_follow_the_system_while_the_page_is_open(visit) -> None:
    page = visit(scheme="light")
    expect(page.locator("#losses .js-line").first).to_have_css("stroke", "rgb(0, 114, 178)")

    page.emulate_media(color_scheme="dark")

    expect(page.locator("#losses .js-line").first).to_have_css("stroke", "rgb(92, 184, 240)")


def test_panels_are_stacked_on_a_phone(visit) -> None:
    tops = []
    for viewport in (WIDE, PHONE):
        panels = visit(viewport).locator("#paths .nsewdrag")
        tops.append({round(panels.nth(index).bounding_box()["y"]) for index in range(2)})

    assert [len(result) for result in tops] == [1, 2]


def test_it_prints_with_its_pictures_on_white(visit) -> None:
    page = visit(scheme="dark")
    page.evaluate("addEventListener('beforeprint', () => { window.stroke = "
                  "document.querySelector('#losses .js-line').style.stroke; })")  # fmt: skip

    assert len(page.pdf()) > 20_000
    assert page.evaluate("window.stroke") == "rgb(0, 114, 178)"


def test_on_paper_a_figure_fits_on_a_page_and_headings_of_tables_can_repeat(visit) -> None:
    page = visit()
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")

    heights = page.evaluate("[...document.querySelectorAll('figure')].map((each) => each.offsetHeight)")
    assert len(heights) >= 5
    assert max(heights) < 950  # a page of A4 or US letter has about 1,000 pixels
    displays = page.evaluate(
        "[...document.querySelectorAll('th button')].map((each) => getComputedStyle(each).display)"
    )
    assert {*displays} == {"contents"}


def test_every_control_is_reached_by_the_tab_key_and_shows_it(visit) -> None:
    page = visit()
    controls = page.locator("a[href], button, [tabindex='0']").count()

    reached = 0
    for _ in range(controls):
        page.keyboard.press("Tab")
        reached += page.evaluate(
            """() => {
                const style = getComputedStyle(document.activeElement);
                return document.activeElement !== document.body && style.outlineStyle === "solid" &&
                    parseFloat(style.outlineWidth) >= 2;
            }"""
        )
    assert reached == controls


LEVELS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_it_meets_the_accessibility_guidelines(visit, viewport, scheme) -> None:
    """Level A and AA of WCAG 2.2, as far as axe-core can check it."""
    found = Axe().run(visit(viewport, scheme), options={"runOnly": {"type": "tag", "values": LEVELS}})

    assert found.violations_count == 0, found.generate_report()


def test_the_first_key_skips_to_the_answer(visit) -> None:
    page = visit()

    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    expect(page.locator(".skip")).to_be_in_viewport()
    page.keyboard.press("Enter")

    expect(page.locator("#main")).to_be_focused()


def test_headings_landmarks_pictures_and_tables_are_named_for_screen_readers(visit) -> None:
    page = visit()

    levels = [int(tag[1]) for tag in page.locator("h1, h2, h3").evaluate_all("all => all.map(one => one.tagName)")]
    assert levels[:2] == [1, 2]
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert levels.count(1) == 1
    for role in ("banner", "navigation", "main", "contentinfo"):
        assert page.get_by_role(role).count() == 1
    assert page.locator(".plot[role=img][aria-label]").count() == len(PICTURES)
    tables = page.locator("table")
    assert tables.count() == page.locator("table caption").count() == 5
    headings = page.locator("table:not(.matrix) thead th")
    assert headings.count() == page.locator("thead th[scope=col][aria-sort] button").count()
    assert page.locator("html[lang=en]").count() == 1
    unnamed = page.locator("button").evaluate_all("all => all.filter(one => !one.textContent.trim()).length")
    assert unnamed == 0
