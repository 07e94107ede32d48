"""Figures by matplotlib: drawn without a window, not blank, whatever things are named; and without it."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest

from picture_makers import llama, spectra, sweep
from picture_pages import hostile_page
from stemmata.errors import MissingExtra
from stemmata.pictures.curves import Curves
from stemmata.pictures.heatmap import HeatMap
from stemmata.pictures.parallel import Parallel
from stemmata.pictures.picture import Picture
from stemmata.pictures.spectra import Spectra
from stemmata.repository import Repository


def png(picture: Picture, *, dark: bool = False) -> tuple[tuple[int, int], int, float]:
    """Its size in pixels, how many colours it has, and what part of it is not the paper."""
    from PIL import Image

    data = io.BytesIO()
    picture.figure(dark=dark).savefig(data, format="png")
    found = Image.open(data).convert("RGB")
    counts = sorted((count for count, _ in found.getcolors(1 << 24)), reverse=True)
    return found.size, len(counts), 1 - counts[0] / (found.width * found.height)


@pytest.mark.parametrize("dark", [False, True])
def test_every_picture_is_a_figure(shown: Repository, dark: bool) -> None:
    pictures: list[Picture] = [
        shown.diff("m@base", "m@r1/epoch-1").heatmap(),
        shown.diff("lora@epoch-1", "lora@epoch-2").heatmap(),
        shown.versions("m").curves(),
        shown.versions("m").parallel(),
        shown.lineage("m").graph(),
    ]
    if (found := shown["lora@epoch-1"].spectra()) is not None:
        pictures.append(found)
    assert len(pictures) == 6
    for picture in pictures:
        (width, height), colours, drawn = png(picture, dark=dark)
        assert 400 < width < 3000
        assert 200 < height < 3000
        assert colours > 100, picture.kind
        assert 0.01 < drawn < 0.9, picture.kind


def test_names_are_no_formulas_and_break_no_figure() -> None:
    for section in hostile_page().sections:
        if section.picture is not None:
            assert png(section.picture)[1] > 50


def test_what_is_large_or_empty_is_a_figure_too() -> None:
    assert png(HeatMap.make("a → b", llama(48, 20)))[0][1] > 1300
    assert png(Curves.make("m", sweep(40, 3)))[1] > 100
    for empty in (Curves.make("m", []), Parallel.make("m", []), HeatMap.make("m", [])):
        assert png(empty)[1] > 2
    assert png(Spectra.make("m", ["a", "b"], [*spectra(3), *spectra(3, side=1)]))[1] > 100


def test_a_figure_opens_no_window_and_keeps_no_state() -> None:
    code = (
        "import sys; from stemmata.pictures.curves import Curves; from stemmata.pictures.seen import Seen\n"
        "Curves.make('m', [Seen(str(k), 'v', epoch=k, metrics={'loss': k}) for k in (1, 2)]).figure()\n"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [m for m in sys.modules if m.startswith("stemmata.pictures.drawn")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    picture = HeatMap.make("a → b", llama(2, 1))
    with pytest.raises(MissingExtra, match=r"pip install 'stemmata\[plot\]'"):
        picture.figure()
    shown = picture._repr_html_()
    assert "<table" in shown
    assert "q_proj" in shown
