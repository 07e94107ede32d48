"""Whatever a capture or a commit holds, nothing is written outside of the work folder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from makers import model_folder
from projects import Project
from stemmata.capturing import gitting
from stemmata.errors import UnsafePath
from stemmata.repository import Repository
from stemmata.repository import open as open_repository
from stemmata.reproducing.problems import ReproductionFailed
from stemmata.version import Version
from stemmata.versions import folder_weights

Contents = Callable[[Path], dict[str, bytes]]


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    return open_repository(tmp_path / "models", create=True)


def version(repo: Repository, project: Project, code: dict[str, Any], **parts: dict[str, Any]) -> Version:
    """One whose script makes nothing: what matters is done before it is run."""
    told: dict[str, dict[str, Any]] = {
        "command": {"argv": ["python", "train.py"], "folder": str(project.folder)},
        "code": {"root": str(project.folder), "entry": {"kind": "script", "path": "train.py"}, **code},
        "code_files": {"files": {"train.py": {"text": "print(1)\n"}}},
    }
    provenance = {kind: json.dumps(said).encode() for kind, said in {**told, **parts}.items()}
    out = model_folder(project.folder.parent / "out", seed=len(repo.versions()))
    return repo.save(out, "m", name=f"x{len(repo.versions())}", provenance=provenance)


def test_what_links_of_the_commit_led_to_stays_as_it_is(
    repo: Repository, project: Project, tmp_path: Path, contents: Contents
) -> None:
    theirs = tmp_path / "theirs"
    (theirs / "rows").mkdir(parents=True)
    for name in ("a.txt", "b.txt", "large.dat"):
        (theirs / name).write_text(f"{name} of somebody\n")
    project.git("init", "-q", "-b", "main")
    for link, target in (("choice", "a.txt"), ("large", "large.dat"), ("rows", "rows")):
        (project.folder / link).symlink_to(theirs / target)
    project.commit()
    # All three are other things by the time of the run: another link, a file, a folder.
    for link in ("choice", "large", "rows"):
        (project.folder / link).unlink()
    (project.folder / "choice").symlink_to(theirs / "b.txt")
    (project.folder / "large").write_bytes(b"\0" * 100)
    (project.folder / "rows").mkdir()
    (project.folder / "rows" / "new.csv").write_text("1\n")
    found = gitting.tree(project.folder)
    before = contents(theirs)
    made = version(repo, project, {"commit": found.commit, "changed": ["choice", "large"]})
    with pytest.raises(ReproductionFailed):
        repo.reproduce(made, work=tmp_path / "work")
    assert contents(theirs) == before
    code = tmp_path / "work" / "code"
    assert os.readlink(code / "choice") == str(theirs / "b.txt")
    assert (code / "large").read_bytes() == b"\0" * 100
    assert not (code / "rows").is_symlink()
    assert (code / "rows" / "new.csv").read_text() == "1\n"


def test_a_working_folder_that_climbs_out_is_none_of_the_codes(
    repo: Repository, project: Project, tmp_path: Path
) -> None:
    folder = f"{project.folder}/../../{tmp_path.name}/made/by/nobody"
    for entry in ({"kind": "script", "path": "train.py"}, {"kind": "notebook"}):
        command = {"argv": ["python", "train.py"], "folder": folder}
        made = version(repo, project, {"entry": entry}, command=command, code_cells={"cells": ["print(1)"]})
        with pytest.raises(ReproductionFailed):
            repo.reproduce(made, work=tmp_path / f"work-{entry['kind']}")
        assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("where", ["the working folder", "a module"])
def test_what_a_link_of_the_commit_leads_elsewhere_is_refused(
    repo: Repository, project: Project, tmp_path: Path, where: str
) -> None:
    (tmp_path / "theirs").mkdir()
    project.git("init", "-q", "-b", "main")
    (project.folder / "sub").symlink_to(tmp_path / "theirs")
    project.commit()
    code = {"commit": gitting.tree(project.folder).commit, "entry": {"kind": "command"}}
    module = where == "a module"
    folder = project.folder if module else project.folder / "sub" / "deeper"
    files = {f"{project.folder}/sub/evil.py": {"text": "1\n"}} if module else {}
    command = {"argv": ["python", "-c", "print(1)"], "folder": str(folder)}
    made = version(repo, project, code, command=command, code_files={"files": files})
    with pytest.raises(UnsafePath, match="a link leads out of the work folder"):
        repo.reproduce(made)
    assert not list((tmp_path / "theirs").iterdir())


def test_a_base_that_lay_above_the_working_folder_is_not_laid_outside(
    repo: Repository, project: Project, tmp_path: Path
) -> None:
    repo.save(model_folder(tmp_path / "base", seed=9), "base", name="b", provenance={})
    base = {"name_or_path": "../../../bases/tiny", "digest": folder_weights(tmp_path / "base").digest}
    by_script = version(repo, project, {}, base=base)
    command = {"argv": ["python", "train.py", "../../../bases/tiny"], "folder": str(project.folder)}
    by_argument = version(repo, project, {}, base=base, command=command)
    plan = repo.plan_reproduction(by_script)
    assert [m.what for m in plan.blocked] == ["base model ../../../bases/tiny"]
    plan = repo.plan_reproduction(by_argument)
    assert (plan.blocked, plan.argv[-1], plan.base.target) == ([], "WORK/base", Path("WORK/base"))


def test_a_question_to_git_fetches_nothing(project: Project, tmp_path: Path) -> None:
    project.git("init", "-q", "-b", "main")
    project.write(a__txt="1\n")
    project.commit()
    project.git("config", "uploadpack.allowFilter", "true")
    clone = tmp_path / "clone"
    project.git("clone", "-q", "--filter=blob:none", f"file://{project.folder}", str(clone))
    ran = tmp_path / "ran"
    project.git("config", "remote.origin.uploadpack", f"touch {ran}; git-upload-pack", at=clone)
    with pytest.raises(gitting.NoTree):
        gitting.ask(clone, "cat-file", "-e", "b" * 40)
    assert not ran.exists()


def test_a_remote_is_an_address_whatever_it_looks_like(
    repo: Repository, project: Project, tmp_path: Path
) -> None:
    project.git("init", "-q", "-b", "main")
    project.write(train__py="print(1)\n")
    project.commit()
    remote = f"--upload-pack=touch {tmp_path / 'ran'}"
    made = version(repo, project, {"commit": gitting.tree(project.folder).commit, "remote": remote})
    with pytest.raises(ReproductionFailed, match="ended well") as failed:
        repo.reproduce(made, work=tmp_path / "work")
    assert project.git("config", "remote.origin.url", at=tmp_path / "work" / "code") == remote
    assert not (tmp_path / "ran").exists()
    assert failed.value.data["work"] == str(tmp_path / "work")


def test_a_folder_is_asked_about_whoever_asks(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.git("init", "-q", "-b", "main")
    project.write(train__py="print(1)\n")
    project.commit()
    commit = project.git("rev-parse", "HEAD")
    # As a hook of another repository has it.
    monkeypatch.setenv("GIT_DIR", str(project.folder / "elsewhere.git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(project.folder / "elsewhere.git" / "index"))
    assert gitting.tree(project.folder).commit == commit
