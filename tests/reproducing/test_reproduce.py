"""A run is made again from what was captured, whatever became of its places; those stay as they are."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from projects import TRAIN, Project
from stemmata.errors import InvalidArgument
from stemmata.redirecting import end_of
from stemmata.reproducing.problems import CannotReproduce, ReproductionFailed

Contents = Callable[[Path], dict[str, bytes]]


def why(found: Any, what: str) -> str:
    """Why something of a plan is missing."""
    return next(m.why for m in found if m.what == what)


def test_a_dirty_tree_after_it_was_cleaned_and_the_branch_moved_on(
    dirty: Project, contents: Contents
) -> None:
    commit = dirty.git("rev-parse", "HEAD")
    (dirty.folder / "helper.py").unlink()
    dirty.git("checkout", "-q", ".")
    dirty.write(train__py="raise SystemExit('another script by now')\n", new__py="z = 1\n")
    dirty.commit("go on")
    before = contents(dirty.folder)
    made = dirty.reproduce(keep=True)
    assert made.verdict.kind == "bit-identical"
    assert made.plan.sources.commit == commit
    assert made.work is not None
    code = made.work / "code"
    assert dirty.git("rev-parse", "HEAD", at=code) == commit
    assert dirty.git("branch", "--show-current", at=code) == "main"
    assert (code / "other.py").read_text() == "x = 1\n"
    assert (code / "helper.py").read_text() == "SCALE = 2.0\n"
    assert not (code / "gone.py").exists()
    assert not (code / "new.py").exists()
    after = contents(dirty.folder)
    assert {p: b for p, b in after.items() if not p.startswith("models/")} == {
        p: b for p, b in before.items() if not p.startswith("models/")
    }
    assert dirty.git("worktree", "list").count("\n") == 0
    shutil.rmtree(made.work, ignore_errors=True)


def test_the_repository_gets_the_verdict_and_nothing_else(dirty: Project) -> None:
    before = end_of(dirty.repository)
    made = dirty.reproduce(why="the audit of May")
    with dirty.open() as repository:
        version = repository["plain@one"]
        assert len(repository.versions()) == 1
        kept = [a for a in version.annotations if a.event == "reproduce"]
    assert end_of(dirty.repository) == before + 1
    assert [(a.details["reproduced"]["verdict"], a.why) for a in kept] == [
        ("bit-identical", "the audit of May")
    ]
    assert made.work is None
    assert not made.plan.places.work.exists()


def test_a_file_read_at_run_time_that_was_edited_is_a_cause_that_is_unknown(dirty: Project) -> None:
    dirty.write(data__csv="1,2,4\n")
    made = dirty.reproduce()
    assert made.verdict.kind == "diverged"
    assert made.verdict.cause_unknown
    assert [b.there.name for b in made.plan.beside] == ["data.csv"]


def test_a_package_of_another_version_is_named(project: Project, tmp_path: Path) -> None:
    site = tmp_path / "fake" / "site-packages"

    def install(version: str) -> None:
        shutil.rmtree(site, ignore_errors=True)
        (site / f"scaling-{version}.dist-info").mkdir(parents=True)
        about = f"Metadata-Version: 2.1\nName: scaling\nVersion: {version}\n"
        (site / f"scaling-{version}.dist-info" / "METADATA").write_text(about)
        (site / "helper.py").write_text(f"SCALE = {version}\n")

    install("1.0")
    project.write(train__py=TRAIN, data__csv="1,2\n")
    project.run("train.py", PYTHONPATH=f"{os.environ.get('PYTHONPATH', '')}{os.pathsep}{site}")
    install("2.0")
    with project.open() as repository:
        plan = repository.plan_reproduction("plain@one")
        made = repository.reproduce("plain@one")
    assert [c.item.name for c in plan.surroundings.changes] == ["scaling"]
    assert made.verdict.kind == "diverged"
    assert [(c.kind, c.name) for c in made.verdict.causes] == [("package", "scaling")]


def test_without_git_from_the_captured_sources(project: Project) -> None:
    (project.folder / "scripts").mkdir()
    script = TRAIN.replace("from helper", "sys.path.insert(0, 'lib')\nfrom helper")
    (project.folder / "scripts/train.py").write_text(script)
    (project.folder / "lib").mkdir()
    (project.folder / "lib/helper.py").write_text("SCALE = 5.0\n")
    project.write(data__csv="1,2\n")
    project.run("scripts/train.py")
    (project.folder / "lib/helper.py").write_text("SCALE = 6.0\n")
    (project.folder / "scripts/train.py").unlink()
    made = project.reproduce()
    assert made.verdict.kind == "bit-identical"
    assert "captured file" in made.plan.sources.words()
    assert why(made.plan.missing, "commit") == "it is in no git repository"


def test_a_commit_that_is_gone_is_had_from_a_clone(dirty: Project, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    dirty.git("clone", "-q", str(dirty.folder), str(clone))
    shutil.rmtree(dirty.folder / ".git")
    (dirty.folder / "train.py").unlink()
    with dirty.open() as repository:
        plan = repository.plan_reproduction("plain@one")
    assert why(plan.blocked, "file train.py").startswith("the command runs it")
    assert plan.reach == "it cannot be run; what is listed can be restored"
    assert [m.why for m in plan.missing if m.what.startswith("commit") and "(--code)" in m.why]
    with pytest.raises(CannotReproduce, match=r"train\.py"):
        dirty.reproduce()
    assert dirty.reproduce(code=clone).verdict.kind == "bit-identical"


def test_without_a_git_program_nothing_is_cloned(
    dirty: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotReproduce, match=r"neither git nor the capture has it"):
        dirty.reproduce()
    with dirty.open() as repository:
        missing = repository.plan_reproduction("plain@one").missing
    assert "there is no git program" in next(m.why for m in missing if m.what.startswith("commit"))


def test_submodules_are_restored_where_their_commit_is_there(project: Project, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    project.git("init", "-q", "-b", "main", at=inner)
    read = "import pathlib\nSCALE = float(pathlib.Path(__file__).with_name('scale.dat').read_text())\n"
    (inner / "__init__.py").write_text(read)
    (inner / "scale.dat").write_text("3")
    project.git("add", ".", at=inner)
    project.git("commit", "-q", "-m", "one", at=inner)
    project.git("init", "-q", "-b", "main")
    project.write(train__py=TRAIN, data__csv="1\n")
    project.git("submodule", "add", "-q", str(inner), "helper")
    (project.folder / ".gitignore").write_text("out\nmodels\n")
    project.commit()
    project.run("train.py")
    (project.folder / "helper/scale.dat").write_text("4")
    project.git("commit", "-q", "-a", "-m", "two", at=project.folder / "helper")
    assert project.reproduce().verdict.kind == "bit-identical"
    shutil.rmtree(project.folder / "helper")
    with pytest.raises(ReproductionFailed) as caught:
        project.reproduce()
    assert "scale.dat" in str(caught.value)
    shutil.rmtree(str(caught.value.data["work"]))
    with project.open() as repository:
        missing = repository.plan_reproduction("plain@one").missing
    assert why(missing, "submodule helper").startswith("its commit ")


def test_a_huge_file_is_linked_if_that_is_asked_for(project: Project) -> None:
    project.write(train__py=TRAIN.replace("data.csv", "big/data.csv"), helper__py="SCALE = 1.0\n")
    (project.folder / "big").mkdir()
    (project.folder / "big/data.csv").write_text("1,2\n")
    with open(project.folder / "big/corpus.txt", "wb") as file:
        file.truncate(5 << 30)
    project.run("train.py")
    with project.open() as repository:
        plan = repository.plan_reproduction("plain@one")
        assert why(plan.missing, f"file {project.folder}/big/corpus.txt").startswith("it has 5,120 MiB")
        assert [b.there.name for b in plan.beside] == ["data.csv"]
        made = repository.reproduce("plain@one", link=["big"], keep=True)
    assert made.work is not None
    assert (made.work / "code/big").is_symlink()
    assert made.verdict.kind == "bit-identical"
    shutil.rmtree(made.work, ignore_errors=True)


def test_links_beside_the_code_lead_where_they_led(project: Project, tmp_path: Path) -> None:
    project.write(train__py=TRAIN.replace("data.csv", "data/rows.csv"), helper__py="SCALE = 1.0\n")
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/rows.csv").write_text("1,2\n")
    (project.folder / "data").symlink_to(tmp_path / "shared")
    project.run("train.py")
    assert project.reproduce().verdict.kind == "bit-identical"
    # What they lead to is not written either.
    project.write(train__py=TRAIN.replace("data.csv", "data/rows.csv").replace('"out"', '"data/out"'))
    (project.folder / "train.py").write_text((project.folder / "train.py").read_text().replace("one", "two"))
    project.run("train.py")
    shutil.rmtree(tmp_path / "shared/out")
    with pytest.raises(ReproductionFailed, match=r"written .*/shared/out") as caught:
        project.reproduce("plain@two")
    shutil.rmtree(str(caught.value.data["work"]))


def test_outputs_that_lay_behind_a_link_lie_in_the_work_folder(
    project: Project, tmp_path: Path, contents: Contents
) -> None:
    (tmp_path / "disk").mkdir()
    (project.folder / "out").symlink_to(tmp_path / "disk")
    project.write(train__py=TRAIN, helper__py="SCALE = 1.0\n", data__csv="1\n")
    project.run("train.py")
    before = contents(tmp_path / "disk")
    made = project.reproduce()
    assert (made.verdict.kind, made.notes) == ("bit-identical", [])
    assert contents(tmp_path / "disk") == before != {}


def test_a_link_to_the_runs_own_folder_leads_to_the_one_of_now(project: Project) -> None:
    script = TRAIN.replace('Path("out")', 'Path("here/out")')
    project.write(train__py=script, helper__py="SCALE = 1.0\n", data__csv="1\n")
    (project.folder / "here").symlink_to(project.folder)
    project.run("train.py")
    assert project.reproduce().verdict.kind == "bit-identical"


def test_bytes_of_then_that_were_moved_since(dirty: Project) -> None:
    with dirty.open() as repository:
        repository.save(dirty.folder / "out", "other", name="x", provenance={})
        other = repository["other@x"]
    script = TRAIN.replace('"one"', '"two"').replace("(3)", "(4)")
    read = 'stemmata.open("models")["other@x"].checkout("read")\nrows ='
    script = script.replace("rows =", read)
    dirty.write(train__py=script)
    dirty.run("train.py")
    with dirty.open() as repository:
        repository.delete("plain@one", why="a trial")
        packs = repository.session.packs(repository.session.row(other.id))
        repository.gc(undo_window=0, grace=0)
        repository.gc(undo_window=0, grace=0)
        assert repository.session.packs(repository.session.row(other.id)) != packs
        made = repository.reproduce("plain@two")
    assert made.verdict.kind == "bit-identical"
    assert made.notes == ["1 version is gone from the repository that the run may have read"]


def test_what_writes_without_python_is_held_back_too(project: Project, contents: Contents) -> None:
    script = TRAIN.replace('out / "model', f'Path({str(project.folder / "out")!r}) / "model')
    project.write(train__py=script, helper__py="SCALE = 1.0\n", data__csv="1\n")
    project.run("train.py")
    before = contents(project.folder / "out")
    project.write(data__csv="2\n")
    with pytest.raises(ReproductionFailed, match=r"written .*/out/model\.safetensors") as caught:
        project.reproduce()
    shutil.rmtree(str(caught.value.data["work"]))
    assert contents(project.folder / "out") == before


def test_an_absolute_output_of_the_first_run_stays_as_it_is(project: Project) -> None:
    script = TRAIN.replace('Path("out")', f"Path({str(project.folder / 'out')!r})")
    project.write(train__py=script, helper__py="SCALE = 1.0\n", data__csv="1\n")
    project.run("train.py")
    (project.folder / "out/model.safetensors").unlink()
    (project.folder / "out").rmdir()
    with pytest.raises(ReproductionFailed, match=r"written .*/out, which was there before") as caught:
        project.reproduce()
    shutil.rmtree(str(caught.value.data["work"]))
    assert not (project.folder / "out").exists()


def test_an_absolute_output_on_the_command_line_goes_to_the_work_folder(
    project: Project, contents: Contents
) -> None:
    script = TRAIN.replace('Path("out")', "Path(sys.argv[2])")
    project.write(train__py=script, helper__py="SCALE = 1.0\n", data__csv="1\n")
    project.run("train.py", "--out", str(project.folder / "out"))
    before = contents(project.folder / "out")
    made = project.reproduce(keep=True)
    assert made.verdict.kind == "bit-identical"
    assert made.work is not None
    assert made.plan.argv[2:] == ["--out", str(made.work / "code/out")]
    assert (made.work / "code/out/model.safetensors").exists()
    assert contents(project.folder / "out") == before
    shutil.rmtree(made.work, ignore_errors=True)


def test_a_command_that_fails_says_how_and_keeps_its_folder(dirty: Project) -> None:
    dirty.write(data__csv="no number\n")
    with pytest.raises(ReproductionFailed, match=r"ended with status 1: .*ValueError") as caught:
        dirty.reproduce()
    work = Path(str(caught.value.data["work"]))
    assert "ValueError" in (work / "output.log").read_text()
    shutil.rmtree(work, ignore_errors=True)
    assert not [a for a in dirty.version().annotations if a.event == "reproduce"]


def test_a_command_that_hangs_is_ended(dirty: Project) -> None:
    script = TRAIN.replace("rows =", "exec(open('today.csv').read())\nrows =").replace('"one"', '"two"')
    dirty.write(train__py=script, today__csv="")
    dirty.run("train.py")
    dirty.write(today__csv="import signal; signal.pause()")
    with pytest.raises(ReproductionFailed, match="took longer than 1 seconds and was ended") as caught:
        dirty.reproduce("plain@two", timeout=1.0)
    shutil.rmtree(str(caught.value.data["work"]))


def test_a_command_does_not_wait_for_a_listener_that_is_gone(dirty: Project) -> None:
    dirty.write(helper__py="print('x' * 200_000, flush=True)\nSCALE = 2.0\n")
    dirty.write(train__py=TRAIN.replace('"one"', '"two"'))
    dirty.run("train.py")
    heard = []

    def gone(data: bytes) -> None:
        heard.append(data)
        raise BrokenPipeError

    made = dirty.reproduce("plain@two", output=gone, timeout=60, keep=True)
    assert made.verdict.kind == "bit-identical"
    assert len(heard) == 1
    assert made.work is not None
    assert (made.work / "output.log").stat().st_size == 200_001
    shutil.rmtree(made.work, ignore_errors=True)


def test_a_run_that_makes_nothing_is_said_to(dirty: Project) -> None:
    script = TRAIN.replace("with stemmata", "open('today.csv').read() == 'no' and sys.exit()\nwith stemmata")
    dirty.write(train__py=script.replace('name="one"', 'name="two"'), today__csv="yes")
    dirty.run("train.py")
    dirty.write(today__csv="no")
    with pytest.raises(ReproductionFailed, match="ended well, and made no version of plain") as caught:
        dirty.reproduce("plain@two")
    shutil.rmtree(str(caught.value.data["work"]))


def test_the_script_sees_the_repository_as_it_was(project: Project) -> None:
    script = TRAIN.replace(
        "rows =",
        'before = stemmata.open("models", create=True)\n'
        "names = [v.name for m in before.models() for v in before.versions(m)]\n"
        "SCALE *= 1 + len(names)\nrows =",
    )
    project.write(train__py=script, helper__py="SCALE = 1.0\n", data__csv="1\n")
    project.run("train.py")
    project.write(train__py=script.replace('"one"', '"two"'))
    project.run("train.py")
    project.write(train__py=script.replace('"one"', '"three"'))
    project.run("train.py")
    assert project.reproduce("plain@two").verdict.kind == "bit-identical"
    assert project.reproduce("plain@one").verdict.kind == "bit-identical"


def test_a_work_folder_of_ones_own_must_be_empty_and_stays(dirty: Project, tmp_path: Path) -> None:
    work = tmp_path / "work"
    made = dirty.reproduce(work=work)
    assert made.work == work
    assert (work / "code/train.py").is_file()
    wrong = (
        (work, "holds something already"),
        (dirty.repository / "w", "lies in the repository"),
        (dirty.folder / "train.py", "File exists"),
        (dirty.folder / "train.py" / "w", "Not a directory"),
    )
    for place, reason in wrong:
        with pytest.raises(InvalidArgument, match=reason):
            dirty.reproduce(work=place)
    assert not (dirty.repository / "w").exists()


def test_numbers_that_make_no_sense_are_refused_before_anything_is_run(dirty: Project) -> None:
    heard: list[str] = []
    wrong: tuple[dict[str, Any], ...] = (
        {"rtol": float("nan")},
        {"atol": -1.0},
        {"timeout": 0.0},
        {"timeout": -1},
    )
    for more in wrong:
        with pytest.raises(InvalidArgument, match=next(iter(more))):
            dirty.reproduce(told=lambda stage, _plan: heard.append(stage), **more)
    assert heard == []
