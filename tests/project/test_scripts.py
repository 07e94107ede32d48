"""The set-up scripts on machines that lack something: clear words, and nothing half-made."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
TOOLS = ("bash", "cat", "dirname", "env")
# What stands in for Python: it answers the scripts' questions as such a Python would.
OLD = 'case "$*" in *"sys.version_info"*) exit 1 ;; esac'
BARE = 'case "$*" in *ensurepip*) exit 1 ;; esac'


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A copy of the scripts and a `bin` folder that is the whole PATH."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None
        (tmp_path / "bin" / tool).symlink_to(found)
    return tmp_path


def _program(machine: Path, name: str, body: str) -> None:
    program = machine / "bin" / name
    program.write_text(f"#!/usr/bin/env bash\n{body}\n", encoding="utf-8")
    program.chmod(0o755)


def _run(machine: Path, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("STEMMATA_", "PYTHON"))}
    return subprocess.run(
        [machine / "scripts" / script],
        env={**kept, "PATH": str(machine / "bin"), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("script", ["quickstart", "test"])
def test_without_python_the_scripts_say_what_to_install(machine: Path, script: str) -> None:
    ran = _run(machine, script)
    assert ran.returncode == 1
    assert "no Python found. Install Python 3.11 or newer" in ran.stderr
    assert not (machine / ".venv").exists()


def test_a_python_that_is_too_old_is_named(machine: Path) -> None:
    _program(machine, "python3", OLD)
    ran = _run(machine, "quickstart")
    assert ran.returncode == 1
    assert "found only older ones: python3." in ran.stderr
    assert not (machine / ".venv").exists()


def test_a_python_without_venv_is_named_with_what_to_install(machine: Path) -> None:
    _program(machine, "python3.12", BARE)
    ran = _run(machine, "test")
    assert ran.returncode == 1
    assert "python3.12 cannot make virtual environments" in ran.stderr
    assert "python3-venv" in ran.stderr
    assert not (machine / ".venv").exists()


def test_a_sound_python_is_preferred_to_a_newer_one_without_venv(machine: Path) -> None:
    _program(machine, "python3.13", BARE)
    _program(machine, "python3.11", 'case "$*" in *"-m venv"*) echo made >&2; exit 3 ;; esac')
    ran = _run(machine, "quickstart")
    assert "with " + str(machine / "bin" / "python3.11") in ran.stderr
    assert "made" in ran.stderr
    assert ran.returncode != 0


def test_the_chosen_python_is_used(machine: Path) -> None:
    _program(machine, "mine", 'case "$*" in *"-m venv"*) exit 3 ;; esac')
    ran = _run(machine, "quickstart", STEMMATA_PYTHON=str(machine / "bin" / "mine"))
    assert str(machine / "bin" / "mine") in ran.stderr


def _installed(machine: Path, log: Path, status: int = 0) -> None:
    """A .venv whose Python notes what it is asked to do."""
    folder = machine / ".venv" / "bin"
    folder.mkdir(parents=True)
    program = folder / "python"
    body = f"""case "$*" in
    *"-m pip install"*) echo pip >>{log}; exit {status} ;;
    "- "*) cat >/dev/null; cat pyproject.toml constraints.txt | cksum ;;
    *examples/quickstart.py*) echo "ran $*" ;;
esac"""
    program.write_text(f"#!/usr/bin/env bash\n{body}\n", encoding="utf-8")
    program.chmod(0o755)
    (machine / "bin" / "cksum").symlink_to(str(shutil.which("cksum")))


def test_the_second_run_installs_nothing_and_a_changed_pin_installs_again(machine: Path) -> None:
    log = machine / "log"
    _installed(machine, log)
    for _ in range(2):
        ran = _run(machine, "quickstart")
        assert ran.returncode == 0, ran.stderr
        assert "ran examples/quickstart.py" in ran.stdout
    assert log.read_text().count("pip") == 1
    with (machine / "constraints.txt").open("a") as pins:
        pins.write("another==1.0\n")
    assert _run(machine, "quickstart").returncode == 0
    assert log.read_text().count("pip") == 2


def test_a_failed_installation_is_tried_again(machine: Path) -> None:
    log = machine / "log"
    _installed(machine, log, status=1)
    for _ in range(2):
        ran = _run(machine, "quickstart")
        assert ran.returncode == 1
        assert "the installation failed" in ran.stderr
    assert log.read_text().count("pip") == 2
