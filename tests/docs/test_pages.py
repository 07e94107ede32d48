"""Every code block of the documentation runs, and every link leads somewhere."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from doc_blocks import PAGES, ROOT, blocks, run
from warm import WarmPython

RUNNING = [page for page in PAGES if any(not b.is_set_up for b in blocks(page) if b.language)]
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_the_pages_a_newcomer_reads_have_blocks() -> None:
    assert {"README.md", "docs/cli.md", "docs/python.md", "docs/training.md"} <= {_name(p) for p in RUNNING}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", RUNNING, ids=_name)
def test_blocks_run(page: Path, workplace: Path, warm: WarmPython) -> None:
    for block in blocks(page):
        if block.is_set_up:
            continue
        assert block.language in ("bash", "python"), f"{_name(page)}:{block.line} has no language"
        ran = run(block, workplace, warm)
        shown = f"{_name(page)}:{block.line}\n{block.code}\n{ran.stdout[-3000:]}\n{ran.stderr[-5000:]}"
        assert ran.returncode == 0, shown


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_set_up_blocks_name_scripts_that_are_there(page: Path) -> None:
    for block in blocks(page):
        for line in block.code.splitlines() if block.is_set_up else ():
            script = ROOT / line.split()[0]
            assert os.access(script, os.X_OK), f"{_name(page)}:{block.line}: {line}"


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    dead = [link for link in _LINK.findall(text) if "://" not in link and not (page.parent / link).exists()]
    assert dead == []
