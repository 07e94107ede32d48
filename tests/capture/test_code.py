"""Which code ran: under git what no commit has, without git everything that is the user's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stemmata.capturing import Captured, code, collect, entries, read

SOURCE = str(Path(__file__).parents[2] / "src")


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", *identity, "-c", "protocol.file.allow=always", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def captured(folder: Path) -> Captured:
    found = collect(folder)
    return read(found, found.__getitem__)


def why(found: Captured, what: str) -> str:
    reasons = [reason.why for reason in found.missing if reason.what == what]
    assert reasons, f"{what} is not missing; missing are {[reason.what for reason in found.missing]}"
    return reasons[0]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / ".gitignore").write_text("ignored.py\n")
    (folder / "train.py").write_text("import helper\nprint(1)\n")
    (folder / "old.py").write_text("print(0)\n")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "Begin")
    return folder


def test_a_dirty_tree_can_be_put_back_over_a_checkout(project: Path, tmp_path: Path) -> None:
    (project / "train.py").write_text("import helper\nprint('zwei')\n")
    (project / "old.py").unlink()
    (project / "pkg").mkdir()
    (project / "pkg/helper.py").write_text("x = 'ü'\r\n", newline="")
    (project / "run.sh").write_text("#!/bin/sh\n")
    (project / "run.sh").chmod(0o755)
    (project / "ignored.py").write_text("secret plans")
    git(project, "remote", "add", "upstream", "https://example.org/team/x.git")
    found = captured(project).code
    assert found is not None
    assert found.commit is not None
    assert (found.branch, found.dirty, found.remote) == ("main", True, "https://example.org/team/x.git")
    assert (found.changed, found.deleted) == (["train.py"], ["old.py"])
    assert found.root == str(project)
    assert "+print('zwei')" in found.diff
    assert "-print(0)" in found.diff
    assert set(found.files) >= {"train.py", "pkg/helper.py", "run.sh"}
    assert "ignored.py" not in found.files

    before = {p.relative_to(project): p.read_bytes() for p in project.rglob("*.py") if p.name != "ignored.py"}
    git(project, "clone", "-q", str(project), str(tmp_path / "again"))
    again = tmp_path / "again"
    git(again, "checkout", "-q", found.commit)
    for path in found.deleted:
        (again / path).unlink()
    for path, file in found.files.items():
        if not Path(path).is_absolute():
            (again / path).parent.mkdir(exist_ok=True)
            (again / path).write_bytes(file.text.encode())
    assert {p.relative_to(again): p.read_bytes() for p in again.rglob("*.py")} == before
    assert found.files["run.sh"].executable
    assert not found.files["train.py"].executable


def test_a_clean_tree_keeps_no_file_of_its_own(project: Path) -> None:
    found = captured(project).code
    assert found is not None
    assert (found.dirty, found.changed, found.diff) == (False, [], "")
    assert not [path for path in found.files if not Path(path).is_absolute()]


def test_what_is_too_large_or_no_source_is_named_as_missing(project: Path) -> None:
    with (project / "huge.py").open("wb") as file:
        file.truncate(50 << 30)
    (project / "rows.csv").write_text("1,2\n")
    (project / "binary.py").write_bytes(b"\xff\xfe\x00")
    (project / ".env").write_text("ANYTHING=tell-nobody-1\n")
    (project / "link.py").symlink_to("/etc/hostname")
    (project / "cell.ipynb").write_text("not json")
    found = captured(project)
    assert why(found, "file huge.py") == "it has 50 GiB, and 1 MiB are kept at most"
    assert why(found, "file rows.csv") == "it is untracked and no source by its name (4 bytes)"
    assert why(found, "file binary.py") == "it is no text"
    assert "holds secrets" in why(found, "file .env")
    assert why(found, "file link.py") == "it is a link"
    assert "cannot be read" in why(found, "file cell.ipynb")
    assert found.code is not None
    assert "huge.py" not in found.code.files


def test_what_a_training_wrote_into_the_tree_is_no_source(project: Path) -> None:
    for folder, name in (("out/checkpoint-1", "model.safetensors"), ("models", "stemmata.json")):
        (project / folder).mkdir(parents=True)
        (project / folder / name).write_text("{}")
        (project / folder / "config.json").write_text("{}")
    found = captured(project)
    assert found.code is not None
    assert not [path for path in found.code.files if "config.json" in path]
    assert not [reason for reason in found.missing if "checkpoint" in reason.what]


def test_settings_beside_weights_are_kept_in_a_second_run_too(project: Path) -> None:
    folder = project / "exp"
    (folder / "checkpoint-1").mkdir(parents=True)
    for name in ("settings.yaml", "config.json", "checkpoint-1/zero.py", "checkpoint-1/model.safetensors"):
        (folder / name).write_text("{}")
    for _ in range(2):
        found = captured(project)
        assert found.code is not None
        assert "exp/settings.yaml" in found.code.files
        assert "exp/checkpoint-1/zero.py" not in found.code.files
        (folder / "model.safetensors").write_text("x")
    assert "exp/config.json" not in found.code.files


def test_of_submodules_it_says_what_is_not_kept(project: Path, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    git(inner, "init", "-q", "-b", "main")
    git(inner, "commit", "-q", "--allow-empty", "-m", "one")
    git(project, "submodule", "add", "-q", str(inner), "lib")
    git(project, "commit", "-q", "-m", "With a part")
    git(project / "lib", "commit", "-q", "--allow-empty", "-m", "two")
    found = captured(project)
    assert why(found, "submodule lib") == "it stands at another commit than the one that is committed"
    assert why(found, "changes in submodules") == "of a submodule only the commit is kept"
    assert found.code is not None
    assert found.code.dirty


def test_git_that_takes_too_long_is_a_reason(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(child: subprocess.Popen[bytes], timeout: float) -> None:
        raise subprocess.TimeoutExpired(child.args, timeout)

    code.gitting._top.cache_clear()
    monkeypatch.setattr(subprocess.Popen, "communicate", slow)
    assert why(captured(project), "commit") == "git took longer than 2 s"


def test_where_status_alone_takes_too_long_the_commit_is_kept(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a network drive, or in a very large tree."""
    real = subprocess.Popen.communicate

    def slow(child: Any, **more: Any) -> Any:
        if "status" in child.args:
            raise subprocess.TimeoutExpired(child.args, more["timeout"])
        return real(child, **more)

    (project / "train.py").write_text("print(2)\n")
    expected = git(project, "rev-parse", "HEAD").strip()
    monkeypatch.setattr(subprocess.Popen, "communicate", slow)
    found = captured(project)
    assert found.code is not None
    assert (found.code.commit, found.code.branch, found.code.dirty) == (expected, "main", None)
    assert why(found, "uncommitted changes") == "git took longer than 20 s"


def test_a_status_that_takes_too_long_is_waited_for_once(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each save of a plain loop captures anew."""
    real = subprocess.Popen.communicate
    waited: list[float] = []

    def slow(child: Any, **more: Any) -> Any:
        if "status" in child.args:
            waited.append(more["timeout"])
            raise subprocess.TimeoutExpired(child.args, more["timeout"])
        return real(child, **more)

    monkeypatch.setattr(subprocess.Popen, "communicate", slow)
    found = [captured(project) for _ in range(3)]
    assert waited == [20.0, 20.0]
    for each in found:
        assert each.code is not None
        assert (each.code.branch, each.code.dirty) == ("main", None)
        assert "took longer" in why(each, "uncommitted changes")
    assert sum("over the status of" in record.message for record in caplog.records) == 1


def test_where_listing_takes_too_long_the_rest_is_asked_at_once_the_next_time(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = subprocess.Popen.communicate
    asked: list[bool] = []

    def slow(child: Any, **more: Any) -> Any:
        if "status" in child.args:
            asked.append("--untracked-files=all" in child.args)
            if asked[-1]:
                raise subprocess.TimeoutExpired(child.args, more["timeout"])
        return real(child, **more)

    monkeypatch.setattr(subprocess.Popen, "communicate", slow)
    (project / "train.py").write_text("print(2)\n")
    for _ in range(2):
        found = captured(project)
        assert found.code is not None
        assert found.code.dirty is True
    assert asked == [True, False, False]


def run(folder: Path, *words: str, **environment: str) -> dict[str, Any]:
    """What a Python started so captures of its code; it ends with `show()`."""
    (folder / "tell.py").write_text(
        "import sys\nfrom stemmata.capturing import code\n"
        "def show():\n"
        "    found = code.collect()\n"
        "    sys.stdout.buffer.write(b'[' + found['code'] + b',' + found.get('code_files', b'{}') + b']')\n"
    )
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([SOURCE, str(folder)]), **environment}
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, env=variables, check=True
    )
    about, files = json.loads(done.stdout)
    return {**about, "files": files.get("files", {})}


def test_without_git_the_script_and_the_modules_it_imported_are_kept(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "part/__init__.py").write_text("")
    (tmp_path / "part/model.py").write_text("WIDTH = 3\n")
    (tmp_path / "unused.py").write_text("print('never')\n")
    (tmp_path / "train.py").write_text(
        "import numpy\nfrom part.model import WIDTH\nimport tell\ntell.show()\n"
    )
    found = run(tmp_path, "train.py")
    assert found["entry"] == {"kind": "script", "path": "train.py", "module": None}
    assert set(found["files"]) == {"train.py", "tell.py", "part/__init__.py", "part/model.py"}
    assert found["files"]["part/model.py"]["text"] == "WIDTH = 3\n"
    assert found["missing"] == [{"what": "commit", "why": "it is in no git repository"}]


def test_a_module_a_word_and_a_prompt_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "part/__main__.py").write_text("import tell\ntell.show()\n")
    assert run(tmp_path, "-m", "part")["entry"] == {
        "kind": "module",
        "path": "__main__.py",
        "module": "part",
    }
    found = run(tmp_path, "-c", "import tell; tell.show()")
    assert found["entry"] == {"kind": "command", "path": None, "module": None}
    assert set(found["files"]) == {"tell.py"}


def test_of_a_notebook_the_cells_so_far_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = ["", "import torch", "token = 'Zk9x81qPqZ'", "train()"]
    shell = SimpleNamespace(user_ns={"_ih": cells})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))  # type: ignore[arg-type]
    monkeypatch.setenv("JPY_SESSION_NAME", str(tmp_path / "work.ipynb"))
    found = captured(tmp_path).code
    assert found is not None
    assert (found.entry.kind, found.entry.path) == ("notebook", "work.ipynb")
    assert found.cells == ["import torch", "token = '***'", "train()"]


def test_a_second_capture_sees_what_changed_meanwhile(project: Path) -> None:
    first = captured(project).code
    (project / "train.py").write_text("print(3)\n")
    second = captured(project).code
    assert first is not None
    assert second is not None
    assert not first.files.get("train.py")
    assert second.files["train.py"].text == "print(3)\n"
    git(project, "commit", "-q", "-a", "-m", "More")
    third = captured(project).code
    assert third is not None
    assert third.commit != first.commit
    assert not third.files.get("train.py")


def test_what_another_copy_of_stemmata_puts_on_the_path_is_none_of_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clone of stemmata that is made again imports its own, beside what the one outside puts in place."""
    folder = tmp_path / "src" / "stemmata" / "attach" / "bootstrap"
    folder.mkdir(parents=True)
    mine = tmp_path / "helper.py"
    for path in (folder / "sitecustomize.py", mine):
        path.write_text("")
        module = types.ModuleType(path.stem)
        module.__file__ = str(path)
        monkeypatch.setitem(sys.modules, path.stem, module)
    found = entries.local_modules()
    assert mine in found
    assert folder / "sitecustomize.py" not in found


def test_i10_of_a_changed_notebook_neither_outputs_nor_metadata_are_kept(project: Path) -> None:
    def write(output: str, parameter: str) -> None:
        cell = {
            "cell_type": "code",
            "id": "one",
            "metadata": {"papermill": {"note": parameter}},
            "execution_count": 1,
            "source": ["!env | grep KEY\n", "train()"],
            "outputs": [{"output_type": "stream", "name": "stdout", "text": [output]}],
        }
        metadata = {"kernelspec": {"name": "python3"}, "papermill": {"parameters": {"hub": parameter}}}
        book = {"cells": [cell], "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
        (project / "work.ipynb").write_text(json.dumps(book, indent=1))

    write("first-output", "first-note")
    git(project, "add", ".")
    git(project, "commit", "-q", "-m", "A notebook")
    write("second-output", "second-note")
    found = captured(project)
    assert found.code is not None
    kept = json.loads(found.code.files["work.ipynb"].text)
    assert kept["metadata"] == {"kernelspec": {"name": "python3"}}
    assert kept["cells"][0]["source"] == "!env | grep KEY\ntrain()"
    assert kept["cells"][0]["metadata"] == {}
    assert "without its outputs" in why(found, "outputs of work.ipynb")
    stored = found.code.diff + found.code.files["work.ipynb"].text
    assert not [word for word in ("first-", "second-") if word in stored]


def test_i10_a_list_of_secrets_is_masked_in_the_diff_too(project: Path) -> None:
    (project / "conf.yaml").write_text("lr: 1\napi_keys:\n  - Zk9x81qPqZ\n")
    git(project, "add", ".")
    git(project, "commit", "-q", "-m", "Settings")
    (project / "conf.yaml").write_text("lr: 2\napi_keys:\n  - Zk9x81qPqY\n")
    found = captured(project).code
    assert found is not None
    assert "+lr: 2" in found.diff
    assert "Zk9x81" not in found.diff + found.files["conf.yaml"].text
