"""What is missing is said before anything is run, and how far a run can be made again without it."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from makers import model_folder
from projects import TRAIN, Project
from stemmata.cli.main import run as command_line
from stemmata.errors import BaseMismatch, InvalidArgument
from stemmata.repository import Repository
from stemmata.repository import open as open_repository
from stemmata.reproducing.problems import CannotReproduce, ReproductionFailed
from stemmata.version import Version
from stemmata.versions import folder_weights

CELLS = [
    "from pathlib import Path\nimport numpy as np\nfrom safetensors.numpy import save_file\nimport stemmata",
    "Path('out').mkdir(exist_ok=True)\nsave_file({'w': np.ones((2, 2), 'f4')}, 'out/model.safetensors')",
    "stemmata.open('models', create=True).save('out', 'm', name='x')",
]


def why(found: Any, what: str) -> str:
    return next(m.why for m in found if m.what == what)


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    return open_repository(tmp_path / "proj/models", create=True)


def version(repo: Repository, **parts: dict[str, Any]) -> Version:
    """One whose capture is what is given over that of a script `train.py` without git."""
    folder = Path(repo.where).parent
    told: dict[str, dict[str, Any]] = {
        "command": {"argv": ["/usr/bin/python3", "train.py"], "folder": str(folder)},
        "code": {"root": str(folder), "entry": {"kind": "script", "path": "train.py"}},
        "code_files": {"files": {"train.py": {"text": "print(1)\n"}}},
        "packages": {},
        "environment": {"python": "3.11"},
        "seeds": {},
    }
    provenance = {kind: json.dumps(said).encode() for kind, said in {**told, **parts}.items()}
    out = model_folder(folder / "elsewhere" / "out", seed=5)
    return repo.save(out, "m", name=f"x{len(repo.versions())}", provenance=provenance)


def test_a_version_without_a_capture(repo: Repository, tmp_path: Path) -> None:
    made = repo.save(model_folder(tmp_path / "out"), "m", name="x", provenance={})
    with pytest.raises(CannotReproduce, match="nothing was captured with it"):
        repo.reproduce(made)
    plan = repo.plan_reproduction(made)
    assert [m.what for m in plan.blocked] == ["capture"]
    assert plan.reach == "it cannot be run; what is listed can be restored"


def test_a_version_that_a_command_of_stemmata_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    project = Project(tmp_path / "proj")
    model_folder(project.folder / "out")
    open_repository(project.repository, create=True).close()
    project.run("-m", "stemmata", "-R", "models", "save", "out", "m", "--name", "x")
    with pytest.raises(CannotReproduce, match="what trained it was not captured"):
        project.reproduce("m@x")


def test_a_repository_that_no_other_process_can_open(tmp_path: Path) -> None:
    repo = Repository.in_memory()
    repo.save(model_folder(tmp_path / "out"), "m", name="x")
    with pytest.raises(CannotReproduce, match="no folder that another process could open"):
        repo.reproduce("m@x")


def test_a_script_that_went_elsewhere_is_started_where_it_was(repo: Repository, tmp_path: Path) -> None:
    command = {"argv": ["python", "src/train.py"], "folder": str(tmp_path / "proj/runs/today")}
    code = {"root": str(tmp_path / "proj"), "entry": {"kind": "script", "path": "src/train.py"}}
    files = {"files": {"src/train.py": {"text": "1\n"}}}
    plan = repo.plan_reproduction(version(repo, command=command, code=code, code_files=files))
    assert plan.places.folder == Path("WORK/code")


@pytest.mark.parametrize("kind", ["command", "code", "code_files"])
def test_a_capture_that_was_redacted(repo: Repository, kind: str) -> None:
    made = version(repo)
    repo.redact(made, kind)
    plan = repo.plan_reproduction(made)
    assert any("it was redacted" in m.why for m in [*plan.missing, *plan.blocked])
    assert plan.blocked
    with pytest.raises(CannotReproduce):
        repo.reproduce(made)


def test_packages_that_are_redacted_are_no_reason_not_to_run(repo: Repository) -> None:
    made = version(repo)
    repo.redact(made, "packages")
    plan = repo.plan_reproduction(made)
    assert not plan.blocked
    assert "packages" in plan.surroundings.unknown


def test_a_dataset_that_streamed_is_told(repo: Repository) -> None:
    reason = {"what": "digest of train", "why": "it streams: its rows are not there to be read"}
    plan = repo.plan_reproduction(version(repo, data={"parts": {}, "missing": [reason]}))
    assert why(plan.missing, "digest of train").startswith("it streams")
    assert not plan.blocked
    assert plan.reach == "the whole command, if it needs nothing of what is missing"


def test_the_cells_of_a_notebook_are_run(repo: Repository, tmp_path: Path) -> None:
    code = {"root": str(tmp_path / "proj"), "entry": {"kind": "notebook", "path": "n.ipynb"}}
    argv = ["/usr/bin/python3", "-m", "ipykernel_launcher", "-f", "/run/kernel.json"]
    command = {"argv": argv, "folder": str(tmp_path / "proj")}
    made = version(repo, code=code, command=command, code_files={}, code_cells={"cells": CELLS})
    plan = repo.plan_reproduction(made)
    assert list(plan.argv) == [sys.executable, "stemmata_cells.py"]
    assert plan.reach == "the cells that had been run when the training began, as a script"
    assert "3 cells that had been run" in plan.sources.words()
    found = repo.reproduce(made)
    assert found.verdict.kind == "diverged"  # other weights than the ones that were saved by hand
    assert found.verdict.again is not None

    def of(*cells: str) -> Version:
        return version(repo, code=code, command=command, code_files={}, code_cells={"cells": cells})

    found = repo.reproduce(of("y = undefined", CELLS[0], "print(", "raise SystemExit(2)", *CELLS[1:]))
    assert (found.status, found.verdict.kind) == (0, "diverged")
    assert why(found.plan.missing, "1 cell") == "left out: as Python cannot read it, it failed then too"
    assert "5 cells that had been run" in found.plan.sources.words()
    plan = repo.plan_reproduction(of("%pip list", *CELLS))
    assert list(plan.argv[1:3]) == ["-m", "IPython"]
    plan = repo.plan_reproduction(of("token = '***'"))
    assert why(plan.blocked, "cells") == "a secret in one of them was masked"
    plan = repo.plan_reproduction(of())
    assert why(plan.blocked, "cells") == "none of the notebook's cells was captured"


def test_a_file_that_leads_out_of_the_work_folder_is_not_restored(repo: Repository, tmp_path: Path) -> None:
    files = {"train.py": {"text": "1\n"}, "../../evil.py": {"text": "1\n"}, ".git/hooks/x": {"text": "1\n"}}
    plan = repo.plan_reproduction(version(repo, code_files={"files": files}))
    assert set(plan.sources.files) == {"train.py"}
    assert why(plan.missing, "file ../../evil.py") == "its path leads out of the work folder"
    assert why(plan.missing, "file .git/hooks/x") == "its path leads out of the work folder"


def test_a_link_of_the_commit_is_not_followed(tmp_path: Path) -> None:
    project = Project(tmp_path / "proj")
    project.git("init", "-q", "-b", "main")
    (tmp_path / "target").mkdir()
    project.write(train__py=TRAIN, helper__py="SCALE = 1.0\n", data__csv="1\n")
    (project.folder / "pkg").symlink_to(tmp_path / "target")
    project.commit()
    project.run("train.py")
    with project.open() as repo:
        made = repo["plain@one"]
        said = {kind: made.provenance(kind) for kind in made.record.provenance}
        files = {"files": {"pkg/evil.py": {"text": "1\n"}}}
        said["code_files"] = json.dumps(files).encode()
        again = repo.save(project.folder / "out", "plain", name="two", provenance=said)
        with pytest.raises(Exception, match="a link leads out of the work folder"):
            repo.reproduce(again)
    assert not list((tmp_path / "target").iterdir())


# --- secrets --------------------------------------------------------------------------------------


def test_a_masked_argument_is_asked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Project(tmp_path / "proj")
    script = TRAIN.replace("rows =", "assert sys.argv[2] == 'hf_' + 'a1B2' * 8, sys.argv\nrows =")
    project.write(train__py=script, helper__py="SCALE = 1.0\n", data__csv="1\n")
    project.run("train.py", "--api-token", "hf_" + "a1B2" * 8)
    with pytest.raises(CannotReproduce, match="--arg api-token=VALUE, or STEMMATA_ARG_API_TOKEN"):
        project.reproduce()
    with pytest.raises(InvalidArgument, match="token names no masked argument"):
        project.reproduce(arguments={"token": "x"})
    assert project.reproduce(arguments={"api-token": "hf_" + "a1B2" * 8}).verdict.kind == "bit-identical"


def test_what_is_given_for_a_mask_is_neither_shown_nor_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    secret, key = "Wv8kQ4nYs3bH77", "Zq7x"
    project = Project(tmp_path / "proj")
    script = TRAIN.replace(', name="one"', ', name=f"n{len(repo.versions())}"')
    project.write(train__py=script, helper__py="SCALE = 1.0\n", data__csv="1\n")
    # One is masked by its option's name, one by its value.
    project.run("train.py", "--rate=1", "--api-key", key, secret, MY_TOKEN=secret)
    given = ["-R", str(project.repository), "--arg", f"api-key={key}", "--arg", f"5={secret}"]
    ways: tuple[list[str], ...] = (
        ["reproduce", "--dry-run"],
        ["reproduce", "--dry-run", "--json"],
        ["reproduce"],
        ["repeat", "--set", "rate=2", "--dry-run"],
        ["repeat", "--set", "rate=2"],
        ["repeat", "--set", "api_key=Kx9wPq2sVb", "--dry-run", "--json"],
    )
    for name, *more in ways:
        assert command_line([name, "plain@n0", *given, *more]) == 0, more
        said = "".join(capsys.readouterr())
        assert not any(each in said for each in (secret, key, "Kx9wPq2sVb")), said
    with project.open() as repo:
        kept = [repo[f"plain@n{n}"] for n in range(2)]
        said = "".join(v.provenance(k).decode() for v in kept for k in v.record.provenance)
        said += kept[0].provenance("reproduction#1").decode()
        command = kept[1].captured().command
    assert secret not in said
    assert key not in said
    assert command is not None
    assert list(command.argv[1:]) == ["train.py", "--rate=2", "--api-key", "***", "***"]


def test_secrets_stay_out_of_the_work_folder_and_of_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEAM_SECRET", "Wv8kQ4nYs3bH77")
    project = Project(tmp_path / "proj")
    fails = (
        "import os\nif os.environ.get('AGAIN'):\n    raise SystemExit(f\"no {os.environ['TEAM_SECRET']}\")\n"
    )
    project.write(train__py=fails + TRAIN, helper__py="SCALE = 1.0\n", data__csv="1\n")
    (project.folder / ".env").write_text("API_KEY=Zq7xR2pLm9vT\n")
    project.run("train.py")
    monkeypatch.setenv("AGAIN", "1")
    work = tmp_path / "work"
    with pytest.raises(ReproductionFailed, match=r"status 1: .*no \*\*\*$|no \*\*\*;") as failed:
        project.reproduce(work=work)
    assert "Wv8kQ4nYs3bH77" not in f"{failed.value} {failed.value.data}"
    assert work.stat().st_mode & 0o777 == 0o700
    assert (work / "code/.env").resolve() == project.folder / ".env"


def test_a_masked_file_is_taken_from_its_place_while_it_is_the_same(tmp_path: Path) -> None:
    project = Project(tmp_path / "proj")
    helper = "API_TOKEN = 'hf_" + "a1B2" * 8 + "'\nSCALE = float(len(API_TOKEN))\n"
    project.write(train__py=TRAIN, helper__py=helper, data__csv="1\n")
    project.run("train.py")
    assert project.reproduce().verdict.kind == "bit-identical"
    (project.folder / "helper.py").unlink()
    with project.open() as repo:
        plan = repo.plan_reproduction("plain@one")
        found = repo.reproduce("plain@one")
    assert "*** stands there" in next(m.why for m in plan.missing if "*** stands" in m.why)
    assert found.verdict.kind == "diverged"


# --- base -----------------------------------------------------------------------------------------


def with_base(repo: Repository, folder: Path, name: str | None = None) -> Version:
    digest = folder_weights(folder).digest
    base = {"name_or_path": name or str(folder), "revision": None, "digest": digest, "files": []}
    return version(repo, base=base)


def test_a_base_that_is_there_is_linked(repo: Repository, tmp_path: Path) -> None:
    inside, outside = model_folder(tmp_path / "proj/base", seed=1), model_folder(tmp_path / "base", seed=1)
    plan = repo.plan_reproduction(with_base(repo, inside))
    assert (plan.base.how, plan.base.target, plan.base.source) == ("link", Path("WORK/code/base"), inside)
    plan = repo.plan_reproduction(with_base(repo, outside))
    assert (plan.base.how, plan.base.target) == ("there", None)
    assert "with the same files" in plan.base.words


def test_a_base_that_has_disappeared(repo: Repository, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "proj/base", seed=1)
    made = with_base(repo, folder)
    kept = tmp_path / "kept"
    shutil.move(folder, kept)
    plan = repo.plan_reproduction(made)
    assert why(plan.blocked, f"base model {folder}").startswith("it is not there any more")
    with pytest.raises(CannotReproduce, match=r"no version of this repository holds its files.*--base"):
        repo.reproduce(made)
    model_folder(folder, seed=2)
    assert "holds another model now" in why(repo.plan_reproduction(made).blocked, f"base model {folder}")
    with pytest.raises(BaseMismatch):
        repo.plan_reproduction(made, base=folder)
    plan = repo.plan_reproduction(made, base=kept)
    assert not plan.blocked
    assert (plan.base.target, plan.base.source) == (Path("WORK/code/base"), kept)


def test_a_base_that_the_repository_holds_is_checked_out(repo: Repository, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "elsewhere", seed=1)
    stored = repo.save(folder, "base", name="b", kind="model", provenance={})
    named = with_base(repo, folder)
    hub = with_base(repo, folder, "team/tiny")
    by_argument = version(
        repo,
        base={"name_or_path": str(folder), "digest": folder_weights(folder).digest},
        command={"argv": ["python", "train.py", "--base", str(folder)], "folder": str(tmp_path / "proj")},
    )
    shutil.rmtree(folder)
    plan = repo.plan_reproduction(hub)
    assert (plan.base.how, plan.base.target) == ("checkout", Path("WORK/code/team/tiny"))
    assert plan.base.version == stored
    assert not plan.blocked
    plan = repo.plan_reproduction(by_argument)
    assert list(plan.argv[2:]) == ["--base", "WORK/base"]
    assert not plan.blocked
    # The script itself names a place that is not ours to write.
    plan = repo.plan_reproduction(named)
    assert why(plan.blocked, f"base model {folder}").startswith("the script itself names")


def test_a_base_that_the_run_made_itself_is_made_again(repo: Repository, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "proj/base", seed=1)
    command: dict[str, Any] = {"argv": ["python", "train.py"], "folder": str(tmp_path / "proj")}
    command["begun"] = "2026-01-01T00:00:00Z"
    base = {"name_or_path": "base", "digest": folder_weights(folder).digest}
    assert repo.plan_reproduction(version(repo, base=base, command=command)).base.how == "made"
    said = {"command": json.dumps(command).encode()}
    repo.save(folder, "base", name="b", kind="model", provenance=said)
    shutil.rmtree(folder)
    plan = repo.plan_reproduction(version(repo, base=base, command=command))
    assert plan.base.words == "the run made and saved it itself (base@b)"


def test_a_base_of_a_hub_is_the_scripts_to_fetch(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    made = with_base(repo, model_folder(tmp_path / "elsewhere", seed=1), "team/tiny")
    plan = repo.plan_reproduction(made)
    assert plan.base.how == "hub"
    assert "the script fetches it, if it can" in why(plan.missing, "base team/tiny")
    assert not plan.blocked


# --- repetitions and the command line -------------------------------------------------------------


def test_a_repetition_is_a_fork_with_another_option(tmp_path: Path) -> None:
    project = Project(tmp_path / "proj")
    script = TRAIN.replace("* SCALE", "* float(sys.argv[sys.argv.index('--rate') + 1])")
    script = script.replace('name="one", ', "") + '    repo.alias("plain", "production", "plain@latest")\n'
    project.write(train__py=script, helper__py="SCALE = 1.0\n", data__csv="1\n")
    project.run("train.py", "--rate", "0.5", "--name=x")
    with project.open() as repo:
        first = repo["plain@latest"]
        made = repo.repeat(first, {"rate": "0.25"})
        assert made.changed == "rate=0.25"
        # What the script does to the repository besides is not for a repetition.
        assert made.status == 1
        assert "OnlyAdds: a run that is repeated adds versions and nothing else: ref.set" in made.notes[-1]
        assert repo["plain@production"] == first
        assert len(made.versions) == 1
        fork = made.versions[0]
        assert fork == repo["plain@latest"]
        labels = dict(fork.labels)
        assert len(labels.pop("repetition")) == 12
        assert labels == {"repeats": first.short, "changed": "rate=0.25"}
        assert {n.name: n.repeats for n in repo.lineage("plain").nodes} == {
            first.name: None,
            fork.name: first.short,
        }
        captured = fork.captured()
        assert captured.command is not None
        assert captured.command.argv[2:] == ["--rate", "0.25", "--name=x"]
        # Its work folder is gone: what is captured leads to the places of the run that it repeats.
        assert captured.command.folder == str(project.folder)
        assert repo.reproduce(fork).verdict.kind == "bit-identical"


def test_a_list_and_a_flag_become_what_was_asked_for(repo: Repository) -> None:
    words = ["--target-modules", "q_proj", "v_proj", "--api-key", "***", "--fp16", "--lr", "1"]
    command = {"argv": ["python", "train.py", *words], "folder": str(Path(repo.where).parent)}
    made = version(repo, command=command)
    changes = {"target_modules": "k_proj", "fp16": "false"}
    plan = repo.plan_reproduction(made, changes=changes, arguments={"6": "Wv8kQ4nYs3bH77"})
    assert plan.argv[2:] == ["--target-modules", "k_proj", "--api-key", "Wv8kQ4nYs3bH77", "--lr", "1"]
    assert not plan.blocked
    # What gets another value need not be given again first.
    plan = repo.plan_reproduction(made, changes={"api_key": "x", "target_modules": ["a", "b"]})
    assert plan.argv[2:] == ["--target-modules", "a", "b", "--api-key", "x", "--fp16", "--lr", "1"]
    assert not plan.blocked


def test_an_unknown_argument_is_refused_with_those_that_are_near(repo: Repository) -> None:
    arguments = {"learning_rate": 2e-4, "num_train_epochs": 3.0, "seed": 7, "output_dir": "out"}
    made = version(repo, training_arguments=arguments)
    with pytest.raises(Exception, match=r"'learnig_rate' is neither .*it has learning_rate") as caught:
        repo.repeat(made, {"learnig_rate": "1e-5"})
    assert caught.value.kind == "unknown-setting"  # type: ignore[attr-defined]
    with pytest.raises(Exception, match="it has num_train_epochs"):
        repo.repeat(made, {"epochs": "1"})
    with pytest.raises(InvalidArgument, match="is not a whole number; it was 7"):
        repo.repeat(made, {"seed": "x"})
    with pytest.raises(InvalidArgument, match="goes into the work folder"):
        repo.repeat(made, {"output_dir": "x"})
    with pytest.raises(InvalidArgument, match="name what is to change"):
        repo.repeat(made, {})
    plan = repo.plan_reproduction(made, changes={"learning-rate": "1e-5", "seed": "9"})
    assert plan.changed is not None
    assert plan.changed.arguments == {"learning_rate": 1e-5, "seed": 9}


def test_steps_of_what_is_no_trainer_are_no_steps(repo: Repository) -> None:
    plan = repo.plan_reproduction(version(repo), steps=3)
    assert plan.steps is None
    assert "no Trainer of transformers to stop: the whole command is run" in plan.notes[0]
    plan = repo.plan_reproduction(version(repo, trainer={"trainer": "transformers.trainer.Trainer"}), steps=3)
    assert (plan.steps, plan.reach) == (3, "the first 3 steps")
    with pytest.raises(InvalidArgument, match="less than one step"):
        repo.plan_reproduction(version(repo), steps=0)


def test_the_command_line_says_what_would_be_done_and_what_came_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    project = Project(tmp_path / "proj")
    project.write(train__py=TRAIN, helper__py="SCALE = 1.0\n", data__csv="1\n")
    project.run("train.py")
    here = ["-R", str(project.repository)]

    def call(*arguments: str) -> tuple[int, str, str]:
        code = command_line([*here, *arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    code, out, _ = call("reproduce", "plain@one", "--dry-run")
    assert code == 0
    assert f"command  {sys.executable} train.py\n" in out
    assert "2 captured files" in out
    assert "it is in no git repository" in out
    code, out, _ = call("reproduce", "plain@one", "--dry-run", "--json")
    assert json.loads(out)["command"] == [sys.executable, "train.py"]
    code, out, err = call("reproduce", "plain@one")
    assert (code, out.splitlines()[0]) == (0, "bit-identical: the one tensor has the same digest")
    assert "the command took" in err
    project.write(data__csv="2\n")
    code, out, _ = call("reproduce", "plain@one", "--json")
    told = json.loads(out)
    assert (code, told["verdict"], told["cause_unknown"], told["reproduced"]) == (1, "diverged", True, False)
    project.write(data__csv="x\n")
    code, _, err = call("reproduce", "plain@one", "--work", str(tmp_path / "work"))
    assert code == 4
    assert "error: the run of plain@one was not made again: its command ended with status 1" in err
    code, _, err = call("repeat", "plain@one", "--set", "rate=1")
    assert code == 2
    assert "'rate' is neither a training argument of plain@one nor an option of its command" in err
    code, _, err = call("repeat", "plain@one", "--set", "rate")
    assert code == 2
