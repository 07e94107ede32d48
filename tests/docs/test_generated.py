"""Every error kind and every command stands in the documentation, and nothing there is invented."""

from __future__ import annotations

import importlib.util
import re
from types import ModuleType

from doc_blocks import ROOT, blocks
from stemmata.cli.registry import COMMANDS
from stemmata.errors import StemmataError


def _errors_page() -> ModuleType:
    spec = importlib.util.spec_from_file_location("errors_page", ROOT / "scripts" / "errors_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_errors_page_is_what_the_classes_say() -> None:
    script = _errors_page()
    assert script.PAGE.read_text(encoding="utf-8") == script.page(), "run scripts/errors_page.py"


def test_every_error_kind_stands_in_the_errors_page() -> None:
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    modules = {module.__name__ for module in _errors_page().MODULES}
    pending, kinds = [StemmataError], []
    while pending:
        found = pending.pop()
        pending += found.__subclasses__()
        if found.what != StemmataError.what and found.__module__ in modules:
            kinds.append(found.kind)
    assert len(kinds) > 30
    assert [kind for kind in kinds if f"| `{kind}` |" not in page] == []


def test_every_command_is_shown_at_work_in_the_command_line_page() -> None:
    page = ROOT / "docs" / "cli.md"
    code = "\n".join(block.code for block in blocks(page))
    assert [name for name in COMMANDS if not re.search(rf"^stemmata {name}\b", code, re.MULTILINE)] == []


def test_the_command_line_page_names_no_command_that_is_not_there() -> None:
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    used = set(re.findall(r"^stemmata (\w+)", text, re.MULTILINE))
    table = text[text.index("| to | commands |") : text.index("## Save")]
    used |= set(re.findall(r"`(\w+)`", table))
    assert used == set(COMMANDS)


def test_every_exit_code_stands_in_the_command_line_page() -> None:
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    codes = {c.exit_code for c in StemmataError.__subclasses__()}
    assert codes >= {1, 2, 3, 4, 5, 6, 7, 8}
    assert [code for code in codes if f"\n| {code} |" not in text] == []
