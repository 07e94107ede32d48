"""What is recorded of the process that saved: enough to repeat it, and no secret."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stemmata.capturing import collect

HF = "hf_" + "AbCdEfGhIjKlMnOpQrStUvWx"


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, "-C", str(folder), *arguments], check=True, capture_output=True)


def load(objects: dict[str, bytes]) -> dict[str, dict[str, object]]:
    return {kind: json.loads(text) for kind, text in objects.items() if kind != "code_diff"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q", "-b", "main")
    (tmp_path / "train.py").write_text("print(1)\n")
    git(tmp_path, "add", "train.py")
    git(tmp_path, "commit", "-q", "-m", "Begin")
    return tmp_path


def test_python_platform_packages_and_command_are_there(tmp_path: Path) -> None:
    found = load(collect(tmp_path))
    assert found["environment"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["environment"]["platform"]
    assert found["packages"]["msgspec"]
    assert found["command"]["argv"]
    assert "commit" not in found["code"]
    assert {"what": "commit", "why": "it is in no git repository"} in found["code"]["missing"]


def test_git_commit_branch_and_changes(project: Path) -> None:
    code = load(collect(project))["code"]
    head = subprocess.run(["git", "-C", str(project), "rev-parse", "HEAD"], capture_output=True, text=True)
    assert code["commit"] == head.stdout.strip()
    assert code["branch"] == "main"
    assert code["dirty"] is False
    (project / "train.py").write_text("print(2)\n")
    assert load(collect(project))["code"]["dirty"] is True


def test_i10_the_remote_keeps_its_host_and_loses_its_password(project: Path) -> None:
    git(project, "remote", "add", "origin", f"https://me:{HF}@example.org/team/x.git")
    everything = b"".join(collect(project).values())
    assert HF.encode() not in everything
    assert b"example.org/team/x.git" in everything


def test_a_repository_without_a_commit_has_no_code(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    code = load(collect(tmp_path))["code"]
    assert {"what": "commit", "why": "its git repository has no commit yet"} in code["missing"]


def test_git_that_is_not_there_is_no_reason_to_fail(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(project))
    code = load(collect(project))["code"]
    assert {"what": "commit", "why": "there is no git program"} in code["missing"]


def test_a_program_named_by_the_repository_is_not_run(project: Path) -> None:
    marker = project.parent / f"{project.name}-ran"
    hook = project / "hook.sh"
    hook.write_text(f"#!/bin/sh\ntouch {marker}\n")
    hook.chmod(0o755)
    git(project, "config", "core.fsmonitor", str(hook))
    subprocess.run(["git", "-C", str(project), "status"], check=False, capture_output=True)
    assert marker.exists(), "the naive question runs it"
    marker.unlink()
    collect(project)
    assert not marker.exists()


def test_i10_of_the_environment_only_named_variables_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", HF)
    monkeypatch.setenv("SOMETHING_PLAIN", "tell-nobody-48151623")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("OMP_NUM_THREADS", HF)
    found = collect(tmp_path)
    del found["code_files"]  # this very file is among them
    everything = b"".join(found.values())
    assert HF.encode() not in everything
    assert b"tell-nobody-48151623" not in everything
    assert load(found)["environment"]["variables"]["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_i10_the_command_line_of_a_real_process_is_masked(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import sys\nfrom stemmata.capturing import collect\n"
        "sys.stdout.buffer.write(b'\\n'.join(collect().values()))\n"
    )
    source = str(Path(__file__).parents[2] / "src")
    command = [sys.executable, str(script), "--hub_token", "plain-secret-1", f"--x={HF}", "--api-key=k-2-k"]
    done = subprocess.run(
        command, capture_output=True, check=True, env={**os.environ, "PYTHONPATH": source}, cwd=tmp_path
    )
    assert b"train.py" in done.stdout
    for secret in (b"plain-secret-1", HF.encode(), b"k-2-k"):
        assert secret not in done.stdout


def test_capture_needs_no_heavy_package() -> None:
    code = "import sys, stemmata.capturing, stemmata.training_args; print(*sys.modules)"
    source = str(Path(__file__).parents[2] / "src")
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": source},
    )
    assert not {"torch", "transformers", "peft", "numpy"} & set(done.stdout.split())
