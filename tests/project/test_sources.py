"""Rules of the house that no linter knows: see CONTRIBUTING.md."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = ROOT / "src" / "stemmata"
MODULES = sorted(PACKAGE.rglob("*.py"))
LONGEST_FILE = 600
LONGEST_FUNCTION = 70


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_every_module_stands_on_a_floor() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    floors = next(c for c in settings["tool"]["importlinter"]["contracts"] if c["id"] == "floors")
    named = {word for layer in floors["layers"] for word in re.findall(r"\w+", layer)}
    there = {p.stem if p.is_file() else p.name for p in PACKAGE.iterdir() if p.suffix == ".py" or p.is_dir()}
    assert named == there - {"__init__", "__pycache__"}
    assert floors["exhaustive"]


def test_every_floor_stands_in_the_architecture_page() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    there = [p for p in PACKAGE.iterdir() if (p.suffix == ".py" and p.stem != "__init__") or p.is_dir()]
    shown = [f"`{p.stem}`" if p.is_file() else f"`{p.name}/`" for p in there if p.name != "__pycache__"]
    assert [name for name in shown if name not in page] == []


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_no_inner_module_imports_the_package_root(path: Path) -> None:
    if path == PACKAGE / "__init__.py":
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert "stemmata" not in [alias.name for alias in node.names], f"{_name(path)}:{node.lineno}"
        if isinstance(node, ast.ImportFrom) and node.module == "stemmata":
            inner = {p.stem for p in PACKAGE.iterdir()} | {"__version__"}
            assert {alias.name for alias in node.names} <= inner, f"{_name(path)}:{node.lineno}"


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_modules_are_short_and_say_what_they_own(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert text.count("\n") <= LONGEST_FILE
    assert path.stem not in ("utils", "helpers", "misc", "common")
    assert not text.strip() or ast.get_docstring(tree), "a module opens with what it owns"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            body = _body_length(node)
            assert body <= LONGEST_FUNCTION, f"{node.name} has {length} lines"


def _body_length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from the first statement after the docstring: signatures may be as long as they must."""
    first = node.body[1] if len(node.body) > 1 and ast.get_docstring(node) else node.body[0]
    return (node.end_lineno or first.lineno) - first.lineno + 1


def test_import_stemmata_loads_nothing_heavy() -> None:
    code = "import sys, stemmata; print(*{m.partition('.')[0] for m in sys.modules})"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {
        "torch",
        "transformers",
        "peft",
        "numpy",
        "dateparser",
        "pandas",
        "zstandard",
        "ml_dtypes",
        "rich",
    }
    assert heavy & set(ran.stdout.split()) == set()
