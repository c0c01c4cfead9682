"""The report's page, as a person sees it: in a real browser, light and dark, on a laptop, a phone and on paper."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from reports import HOSTILE, hostile_rows, many_rows, report_of, support_rows

from mlx_router.page import SECTIONS, html_page
from mlx_router.report import Report

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
ON_MACOS = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
LAPTOP, PHONE = {"width": 1280, "height": 800}, {"width": 360, "height": 740}
# A slow machine needs long to start a browser.
PATIENCE_MS = 180_000
# Texts whose contrast with what they stand on is below 4.5 (WCAG AA), or 3 for large ones.
FAINT = """() => {
  const parse = value => {
    const n = value.match(/-?[\\d.]+(e-?\\d+)?/g).map(Number);
    const unit = value.startsWith('color(') ? 255 : 1;
    return {r: n[0] * unit, g: n[1] * unit, b: n[2] * unit, a: n.length > 3 ? n[3] : 1};
  };
  const over = (top, below) => {
    const mix = key => top[key] * top.a + below[key] * (1 - top.a);
    return {r: mix('r'), g: mix('g'), b: mix('b'), a: 1};
  };
  const ground = element => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.push(parse(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((below, top) => over(top, below), {r: 255, g: 255, b: 255, a: 1});
  };
  const light = color => {
    const part = value => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    return 0.2126 * part(color.r) + 0.7152 * part(color.g) + 0.0722 * part(color.b);
  };
  const faint = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, said = walker.currentNode.textContent.trim();
    if (!said || element.closest('title')) continue;
    const style = getComputedStyle(element), below = ground(element);
    const ink = over(parse(element.closest('svg') ? style.fill : style.color), below);
    const [high, low] = [light(ink), light(below)].sort((a, b) => b - a);
    const ratio = (high + 0.05) / (low + 0.05), needed = parseFloat(style.fontSize) >= 24 ? 3 : 4.5;
    if (ratio < needed) faint.add(`${element.tagName}.${element.className}: ${said.slice(0, 30)} ${ratio.toFixed(2)}`);
  }
  return [...faint];
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The system's own browser; nothing is downloaded."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    found = found or next((path for path in ON_MACOS if os.access(path, os.X_OK)), None)
    if found is None:
        pytest.skip("there is no Chromium or Chrome on this machine (Debian, Ubuntu: apt install chromium)")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=found, timeout=PATIENCE_MS)
        yield browser
        browser.close()


class Opened:
    """A page in the browser, and what it did that a report must not do."""

    def __init__(self, browser: Any, path: Path, width: dict[str, int], scheme: str) -> None:
        self.context = browser.new_context(viewport=width, color_scheme=scheme)
        self.context.set_default_timeout(PATIENCE_MS)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: self.said.append(f"dialog: {dialog.message}"))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.refused: list[tuple[str, str | None]] = []
        self.page.on("requestfailed", lambda request: self.refused.append((request.url, request.failure)))
        self.page.goto(path.as_uri())

    @property
    def overflow(self) -> int:
        """By how much the page is wider than the window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


@pytest.fixture(scope="module")
def reports() -> dict[str, Report]:
    return {
        "support": report_of(support_rows(calibrated=True)),
        "many": report_of(many_rows()),
        "hostile": report_of(hostile_rows(), title=f"a/{HOSTILE[0]}", training=[row.example for row in hostile_rows()]),
    }


@pytest.fixture(scope="module")
def pages(reports: dict[str, Report], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    for name, report in reports.items():
        (folder / f"{name}.html").write_text(html_page(report), encoding="utf-8")
    return {name: folder / f"{name}.html" for name in reports}


@pytest.fixture
def look(browser: Any, pages: dict[str, Path]) -> Iterator[Any]:
    opened: list[Opened] = []

    def open_page(name: str, width: dict[str, int] = LAPTOP, scheme: str = "light") -> Opened:
        opened.append(Opened(browser, pages[name], width, scheme))
        return opened[-1]

    yield open_page
    for one in opened:
        one.context.close()


@pytest.mark.parametrize("name", ["support", "many", "hostile"])
@pytest.mark.parametrize("width", [LAPTOP, PHONE], ids=["laptop", "phone"])
def test_a_page_is_quiet_whole_and_fits(name: str, width: dict[str, int], look: Any, pages: dict[str, Path]) -> None:
    opened = look(name, width)

    assert opened.said == []
    assert [url for url in opened.asked if not url.startswith("data:")] == [pages[name].as_uri()]
    assert opened.overflow == 0
    headings = opened.page.locator("section h2").all_inner_texts()
    assert headings == list(SECTIONS.values())
    # A section is more than its heading.
    for key in SECTIONS:
        assert len(opened.page.locator(f"section#{key}").inner_text()) > 60, key
    links = opened.page.locator("nav a").evaluate_all("all => all.map(one => one.getAttribute('href'))")
    assert links == [f"#{key}" for key in SECTIONS]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["support", "many"])
def test_every_text_stands_out_from_its_ground(name: str, scheme: str, look: Any) -> None:
    opened = look(name, LAPTOP, scheme)

    assert opened.page.evaluate(FAINT) == []


def test_dark_is_dark_and_paper_is_white(look: Any) -> None:
    opened = look("support", LAPTOP, "dark")
    ground = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"

    assert max(opened.page.evaluate(ground)) < 60
    opened.page.emulate_media(media="print", color_scheme="dark")
    assert min(opened.page.evaluate(ground)) > 240
    assert not opened.page.locator("nav").is_visible()
    assert opened.page.evaluate(FAINT) == []


@pytest.mark.parametrize("name", ["support", "hostile"])
def test_paper_is_wide_enough(name: str, look: Any) -> None:
    """A4 between usual margins; what does not fit there is cut off, since paper can't be scrolled."""
    opened = look(name, {"width": 718, "height": 1000})
    opened.page.emulate_media(media="print")
    too_wide = "all => all.filter(one => one.scrollWidth > one.clientWidth).map(one => one.ariaLabel)"

    assert opened.page.locator(".scroll").evaluate_all(too_wide) == []
    assert opened.overflow == 0


def test_on_paper_folded_parts_are_open(look: Any) -> None:
    opened = look("support")
    folded = opened.page.locator("#confusions details .scroll")
    height = "one => one.parentElement.getBoundingClientRect().height"

    assert not folded.is_visible()
    before = folded.evaluate(height)
    opened.page.emulate_media(media="print")
    assert folded.evaluate(height) > before + 100
    assert opened.page.pdf(format="A4")[:5] == b"%PDF-"


def test_hostile_texts_are_shown_and_do_nothing(look: Any) -> None:
    opened = look("hostile")

    assert opened.page.title().startswith("a/<script>") and opened.said == []
    # Nothing of the texts became an element: our page has none of these.
    assert opened.page.locator("script, img, iframe, textarea, main h1, [onload], [onerror]").count() == 0
    assert opened.page.locator("main a").count() == 0
    # What is off the screen is not laid out, so that the rendered text would lack it.
    shown = opened.page.locator("#failures").text_content()
    assert HOSTILE[0] in shown and HOSTILE[1] in shown and HOSTILE[4] in shown
    # Characters that steer are spelt out; others in Hebrew or Arabic are left as they are.
    assert "\\u202eright to left override\\u202c" in shown and "\\x1b[31mred\\x07" in shown
    assert HOSTILE[3] in shown
    assert not {"\u202e", "\u2066", "\x1b", "\ud83d"} & set(opened.page.content())


def test_the_policy_runs_nothing_even_if_markup_came_in(browser: Any, pages: dict[str, Path], tmp_path: Path) -> None:
    """The escaping is one lock, the policy the other: here the first one is broken on purpose."""
    text = pages["support"].read_text(encoding="utf-8")
    broken = "<script>document.title = 'owned'</script><img src='https://example.com/x.png' onerror='document.title=1'>"
    path = tmp_path / "broken.html"
    path.write_text(text.replace("<main>", f"<main>{broken}"), encoding="utf-8")
    opened = Opened(browser, path, LAPTOP, "light")

    assert opened.page.title() == "a router · mlx-router"
    # The browser tells of the picture, and that the policy kept it from being asked for.
    assert opened.refused == [("https://example.com/x.png", "csp")]
    assert any("Content Security Policy" in said for said in opened.said)
    opened.context.close()


@pytest.mark.parametrize(("name", "tools"), [("support", 5), ("many", 41)])
def test_the_confusion_matrix_is_readable(name: str, tools: int, look: Any) -> None:
    opened = look(name)
    matrix = opened.page.locator("table.matrix")

    assert matrix.locator("thead th").count() == tools
    frame = "one => one.parentElement.clientWidth - one.scrollWidth"
    assert matrix.evaluate(frame) >= 0, "the matrix has to be scrolled on a laptop"
    # No name is cut off, and numbers have room.
    cut = "all => all.filter(one => one.scrollWidth > one.clientWidth + 1 || one.scrollHeight > one.clientHeight + 1)"
    assert matrix.locator("th span").evaluate_all(f"{cut}.length") == 0
    sizes = matrix.locator("td.right").evaluate_all("all => all.map(one => parseFloat(getComputedStyle(one).fontSize))")
    assert min(sizes) >= 11


def test_charts_have_text_alternatives(look: Any) -> None:
    opened = look("support")
    charts = opened.page.locator("svg.chart")

    assert charts.count() == 3
    labels = charts.evaluate_all("all => all.map(one => [one.getAttribute('role'), one.getAttribute('aria-label')])")
    assert all(role == "img" and len(label) > 30 for role, label in labels)
    assert "p50" in labels[2][1]
    # The bars of the tables say nothing that the cells beside them don't.
    assert opened.page.locator("svg:not(.chart):not([aria-hidden=true])").count() == 0


def test_no_drawing_leaves_its_frame(look: Any) -> None:
    opened = look("support")
    outside = """all => all.flatMap(svg => {
      const frame = svg.getBoundingClientRect();
      return [...svg.querySelectorAll('text, circle, rect, line, polyline')].filter(one => {
        const box = one.getBoundingClientRect();
        return box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1
          || box.bottom > frame.bottom + 1;
      }).map(one => one.outerHTML);
    })"""

    assert opened.page.locator("svg.chart").evaluate_all(outside) == []


def test_a_failure_shows_what_went_wrong(look: Any, reports: dict[str, Report]) -> None:
    opened = look("support")
    failed = reports["support"].evaluation.failures

    assert opened.page.locator("#failures article").count() == len(failed)
    card = opened.page.locator("#failures article.call").first
    words = card.text_content()
    for part in ("request", "gold", "output", "rows.jsonl:", "wrong from character", "confidence", "P(right)"):
        assert part in words, part
    assert card.locator("mark").count() == 1


def test_without_style_sheets_or_script_the_page_still_says_everything(pages: dict[str, Path]) -> None:
    text = pages["support"].read_text(encoding="utf-8")

    assert "<script" not in text and " src=" not in text and "@import" not in text and "url(" not in text
    assert text.index("Content-Security-Policy") < text.index("<style>")
