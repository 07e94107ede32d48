"""Pages in a real browser: drawn without an error, a network, or a word that people named becoming code."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from picture_makers import llama, spectra, sweep
from picture_pages import hostile_page
from stemmata.pictures.curves import Curves
from stemmata.pictures.heatmap import HeatMap
from stemmata.pictures.page import Page, Section
from stemmata.pictures.parallel import Parallel
from stemmata.pictures.spectra import Spectra
from stemmata.repository import Repository

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = next(
    (p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None
)
_QUIET = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-extensions --force-color-profile=srgb"
)

pytestmark = pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get("CI"),
    reason="no Chromium here (Debian: apt install chromium); CI installs it",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    # A folder of its own for what the browser writes: nothing of the user's is read or left behind.
    with tempfile.TemporaryDirectory(prefix="stemmata-chromium-") as home, sync_playwright() as driver:
        opened = driver.chromium.launch(
            executable_path=CHROMIUM, args=_QUIET.split(), env={**os.environ, "HOME": home, "TMPDIR": home}
        )
        yield opened
        opened.close()


class Looked:
    """What a page did when it was opened: everything it said, asked for and drew."""

    def __init__(self, browser: Browser, html: str, folder: Path, *, dark: bool = False, width: int = 1280):
        self.said: list[str] = []
        self.asked: list[str] = []
        path = folder / "page.html"
        path.write_text(html, encoding="utf-8")
        own = path.as_uri()
        self._context = browser.new_context(
            color_scheme="dark" if dark else "light", viewport={"width": width, "height": 900}
        )
        # Anything but the file itself is stopped where it would leave the page, and written down.
        self._context.route(
            lambda url: url != own, lambda route: (self.asked.append(route.request.url), route.abort())
        )
        self.page = self._context.new_page()
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        self.page.on("request", lambda request: request.url != own and self.asked.append(request.url))
        self.page.goto(own)
        self.page.wait_for_function("document.documentElement.dataset.drawn !== undefined", timeout=20_000)

    def __enter__(self) -> Looked:
        return self

    def __exit__(self, *_: object) -> None:
        self._context.close()

    def colours_of_charts(self) -> list[int]:
        """How many different colours each chart shows, as it is seen."""
        from PIL import Image

        boxes = self.value(
            "[...document.querySelectorAll('.chart')].map(c => c.getBoundingClientRect())"
            ".map(r => [r.left + scrollX, r.top + scrollY, r.right + scrollX, r.bottom + scrollY])"
        )
        whole = Image.open(io.BytesIO(self.page.screenshot(full_page=True))).convert("RGB")
        found = []
        for left, top, right, bottom in boxes:
            chart = whole.crop((int(left), int(top), min(whole.width, int(right)), int(bottom)))
            found.append(len(chart.getcolors(1 << 24)))
        return found

    def value(self, script: str) -> Any:
        return self.page.evaluate(script)


def _clean(looked: Looked) -> None:
    assert looked.said == []
    assert looked.asked == []
    assert looked.value("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0


def test_pages_of_a_repository_are_drawn(browser: Browser, shown: Repository, tmp_path: Path) -> None:
    listed = shown.versions("m").to_html()
    pages = [
        ("diff", shown.diff("m@base", "m@r1/epoch-1").to_html(), 1, False, 1280),
        ("adapters", shown.diff("lora@epoch-1", "lora@epoch-2").to_html(), 3, True, 1280),
        ("several", shown.diff("m@base", "m@r0/epoch-1", "m@r2/epoch-3").to_html(), 1, False, 390),
        ("version", shown["lora@epoch-2"].to_html(), 3, False, 390),
        ("list", listed, 5, True, 1280),
        ("list", listed, 5, False, 390),
    ]
    for name, html, charts, dark, width in pages:
        with Looked(browser, html, tmp_path, dark=dark, width=width) as looked:
            colours = looked.colours_of_charts()
            assert len(colours) >= charts, name
            assert min(colours) > 20, f"{name}: a chart is blank"
            paper = looked.value("getComputedStyle(document.body).backgroundColor")
            assert paper == ("rgb(15, 18, 22)" if dark else "rgb(246, 247, 249)")
            _clean(looked)


def test_names_are_text_wherever_they_are_shown(browser: Browser, tmp_path: Path) -> None:
    with Looked(browser, hostile_page().to_html(), tmp_path) as looked:
        # Where the pointer is, a tip is made of names too.
        for chart in looked.page.query_selector_all(".chart"):
            chart.scroll_into_view_if_needed()
            box = chart.bounding_box()
            assert box is not None
            for down in (0.3, 0.5):
                for along in (0.1, 0.33, 0.66):
                    looked.page.mouse.move(box["x"] + box["width"] * along, box["y"] + box["height"] * down)
        assert looked.value("window.hacked") is None
        assert looked.value("document.images.length") == 0
        assert looked.value("document.querySelectorAll('.tip').length") > 0
        _clean(looked)


def test_a_tip_tells_what_is_under_the_pointer(browser: Browser, shown: Repository, tmp_path: Path) -> None:
    html = shown.diff("m@base", "m@r1/epoch-1").to_html()
    with Looked(browser, html, tmp_path) as looked:
        box = looked.page.query_selector(".chart svg").bounding_box()  # type: ignore[union-attr]
        assert box is not None
        found = ""
        for step in range(6, 60, 2):
            looked.page.mouse.move(box["x"] + 160, box["y"] + box["height"] * step / 64)
            found += looked.value("[...document.querySelectorAll('.tip')].map(t => t.innerText).join()")
        assert "layer 2 q_proj" in found
        assert "model.layers.2.self_attn.q_proj.weight" in found
        assert "2.0 %" in found
        assert "not moved" in found


def test_very_many_runs_and_layers_are_drawn(browser: Browser, tmp_path: Path) -> None:
    versions = sweep(100, 6)
    pictures = [
        Curves.make("m", versions),
        Parallel.make("m", versions),
        HeatMap.make("a → b", llama(32, 8)),
        Spectra.make("m", ["m"], spectra(32)),
    ]
    html = Page("m", sections=tuple(Section.of(picture) for picture in pictures)).to_html()
    with Looked(browser, html, tmp_path) as looked:
        assert min(looked.colours_of_charts()) > 20
        # Names at the ends of lines stand apart.
        names = looked.value(
            "[...document.querySelectorAll('#chart-0 text')].filter(t => /^r\\d+$/.test(t.textContent))"
            ".map(t => t.getBoundingClientRect()).map(r => [r.top, r.bottom])"
        )
        assert len(names) == 8
        spans = sorted(names)
        assert all(below[0] >= above[1] - 3 for above, below in pairwise(spans))
        _clean(looked)


def test_on_paper_it_is_day(browser: Browser, shown: Repository, tmp_path: Path) -> None:
    with Looked(browser, shown.versions("m").curves().to_html(), tmp_path, dark=True) as looked:
        before = looked.value("document.querySelector('.chart svg text').getAttribute('fill')")
        printed = looked.page.pdf(print_background=True)
        assert printed.startswith(b"%PDF")
        after = looked.value("document.querySelector('.chart svg text').getAttribute('fill')")
        assert before == after  # and night again
        _clean(looked)
