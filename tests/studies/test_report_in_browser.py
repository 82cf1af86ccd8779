"""The report as Chromium shows it: it stands alone, draws, answers the mouse, and shows hostile names as text."""

import shutil

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import expect, sync_playwright

from poise.studies import study

TARGET = "</script><script>alert(1)</script>"
COLUMNS = ["<b>bold</b>", "<img src=x onerror=alert(2)>", '{{ 7 * 7 }} & "it\'s"']
WIDE, PHONE = {"width": 1400, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report with hostile names, of which one column at least is dropped."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(80, 3)), columns=COLUMNS)
    frame[TARGET] = frame[COLUMNS[2]] + 0.1 * random.normal(size=80)
    found = study(frame, target=TARGET, recipes=["l2", "group=1"], epochs=25, hidden=(6,))
    assert set(COLUMNS[:2]) & set(found.outcomes[2].dropped)
    return found.save(tmp_path_factory.mktemp("run")), found


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, report):
    """Opens the report; afterwards nothing may have been complained about, asked for or alerted."""
    contexts, troubles = [], []

    def opened(viewport=WIDE, scheme="light"):
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
@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_three_pictures_are_drawn_and_nothing_scrolls_sideways(visit, viewport, scheme):
    page = visit(viewport, scheme)

    for name, traces in [("losses", 3 * 4), ("forces", 3 * 2 * 3), ("weights", 3 * 2)]:
        box = page.locator(f"#{name} .main-svg").first.bounding_box()
        assert box["width"] > 300
        assert box["height"] > 200
        assert box["x"] + box["width"] <= viewport["width"]
        assert page.evaluate(f"document.getElementById('{name}').data.length") == traces
    assert page.locator("#losses .scatterlayer .js-line").count() == 12
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]


@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_no_words_are_cut_off(visit, viewport):
    page = visit(viewport)

    outside = page.evaluate("""() => [...document.querySelectorAll('.picture')].flatMap((picture) => {
        const frame = picture.getBoundingClientRect();
        return [...picture.querySelectorAll('text')].filter((text) => {
            const box = text.getBoundingClientRect();
            return box.width && (box.left < frame.left - 1 || box.right > frame.right + 1 ||
                                 box.top < frame.top - 1 || box.bottom > frame.bottom + 1);
        }).map((text) => text.textContent);
    })""")
    assert outside == []


@pytest.mark.parametrize(("picture", "expected"), [("losses", "validation rows"), ("weights", "exactly zero")])
def test_hovering_shows_values(visit, picture, expected):
    page = visit()
    panel = page.locator(f"#{picture} .nsewdrag").last
    panel.scroll_into_view_if_needed()
    box = panel.bounding_box()

    page.mouse.move(box["x"] + box["width"] / 2 + 1, box["y"] + box["height"] / 2 + 1)
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector(f"#{picture} .hoverlayer text")

    text = " ".join(page.locator(f"#{picture} .hoverlayer text").all_text_contents())
    assert expected in text
    assert any(character.isdigit() for character in text)


def test_hostile_names_are_shown_as_text(visit, report):
    page = visit()

    words = page.locator("main").inner_text()
    dropped = report[1].outcomes[2].dropped
    assert all(column in words for column in dropped)
    assert TARGET in words
    label = page.locator("#losses .ytitle").first
    assert label.text_content() == f"loss for {TARGET}"[:39] + "…"
    assert page.locator("main img").count() == 0
    assert page.locator("main b").count() == 0


def test_dark_and_light_pages_have_their_own_colours(visit):
    light, dark = visit(scheme="light"), visit(scheme="dark")

    colours = [page.locator("#losses .js-line").first.evaluate("line => line.style.stroke") for page in (light, dark)]
    papers = [page.evaluate("getComputedStyle(document.body).backgroundColor") for page in (light, dark)]
    assert colours[0] != colours[1]
    assert papers[0] != papers[1]


def test_colours_follow_the_system_while_the_page_is_open(visit):
    page = visit(scheme="light")
    expect(page.locator("#losses .js-line").first).to_have_css("stroke", "rgb(0, 114, 178)")

    page.emulate_media(color_scheme="dark")

    expect(page.locator("#losses .js-line").first).to_have_css("stroke", "rgb(92, 184, 240)")


def test_panels_stand_below_each_other_on_a_phone(visit):
    tops = []
    for viewport in (WIDE, PHONE):
        panels = visit(viewport).locator("#losses .nsewdrag")
        tops.append({round(panels.nth(index).bounding_box()["y"]) for index in range(3)})

    assert [len(found) for found in tops] == [1, 3]


def test_it_prints_with_its_pictures_on_white(visit):
    page = visit(scheme="dark")
    page.evaluate("addEventListener('beforeprint', () => { window.stroke = "
                  "document.querySelector('#losses .js-line').style.stroke; })")  # fmt: skip

    assert len(page.pdf()) > 20_000
    assert page.evaluate("window.stroke") == "rgb(0, 114, 178)"


def test_headings_pictures_and_tables_are_named_for_screen_readers(visit):
    page = visit()

    levels = [int(level[1]) for level in page.locator("h1, h2").evaluate_all("all => all.map(one => one.tagName)")]
    assert levels == [1] + [2] * (len(levels) - 1)
    assert page.locator(".picture[role=img][aria-label]").count() == 3
    assert page.locator("html[lang=en]").count() == 1
    assert page.locator("thead th[scope=col]").count() == 3 + 8
