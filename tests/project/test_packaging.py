"""What is installed is what pyproject.toml and constraints.txt say."""

from __future__ import annotations

import tomllib
from importlib.metadata import entry_points
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import stemmata

ROOT = Path(__file__).resolve().parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def _pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pins}


def _wanted(*extras: str) -> list[Requirement]:
    """Requirements of the core and of `extras`, the project's own extras resolved."""
    lines = list(PROJECT["dependencies"])
    pending, seen = list(extras), set()
    while pending:
        extra = pending.pop()
        for line in PROJECT["optional-dependencies"][extra]:
            requirement = Requirement(line)
            if requirement.name != "stemmata":
                lines.append(line)
            pending += [e for e in requirement.extras if requirement.name == "stemmata" and e not in seen]
        seen.add(extra)
    return [Requirement(line) for line in lines]


def test_every_requirement_of_development_is_pinned_within_its_range() -> None:
    pins = _pins()
    wrong = [
        str(r) for r in _wanted("dev") if not r.specifier.contains(pins.get(canonicalize_name(r.name), "0"))
    ]
    assert wrong == []


def test_pins_are_versions_that_any_index_has() -> None:
    assert _pins()["torch"] == "2.13.0"
    assert [name for name, version in _pins().items() if "+" in version or "@" in version] == []


def test_the_entry_points_lead_somewhere() -> None:
    (loader,) = entry_points(group="stemmata.loaders", name="transformers")
    assert callable(loader.load())
    (script,) = (e for e in entry_points(group="console_scripts", name="stemmata"))
    assert callable(script.load())


def test_the_changelog_begins_with_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert text.split("\n## ")[1].startswith(stemmata.__version__)


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "src" / "stemmata" / "py.typed").exists()
