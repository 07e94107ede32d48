"""What a run's capture says, that its versions share it, and that no planted secret is anywhere in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM

import tiny_models as tiny
from stemmata.capturing import Captured, background, code, rows
from stemmata.errors import InvalidArgument
from stemmata.hf import VersionCallback, datastore
from stemmata.repository import Repository
from stemmata.repository import open as open_repository
from stemmata.version import Version

pytestmark = pytest.mark.usefixtures("one_thread")


def run(repo: Repository, folder: Path, model: Any = None, *, data: Any = None, **more: Any) -> list[Version]:
    """The versions of one training, oldest first."""
    callback = VersionCallback(repo, "m", run_name="r")
    trainer = tiny.trainer(model or tiny.gpt2(), folder, [callback], **more)
    if data is not None:
        trainer.train_dataset = data
    trainer.train()
    return list(reversed(repo.versions("m")))


def why(found: Captured, what: str) -> str:
    return next(reason.why for reason in found.missing if reason.what == what)


def test_a_run_says_what_it_was_made_of(repo: Repository, base: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base)
    torch.manual_seed(4)
    version = run(repo, tmp_path / "out", model, eval_strategy="epoch")[-1]
    found = version.captured()
    assert found.command is not None
    assert found.command.folder == str(Path.cwd())
    assert found.environment is not None
    assert found.environment.torch is not None
    assert found.environment.torch["version"] == torch.__version__
    assert found.packages is not None
    assert found.packages["torch"].version == torch.__version__
    assert found.seeds is not None
    assert found.seeds.torch is not None
    assert found.seeds.python is not None
    assert (found.seeds.seed, found.seeds.full_determinism) == (7, False)
    assert found.seeds.torch["deterministic_algorithms"] is False
    assert found.seeds.torch["initial_seed"] == 7  # the Trainer sets its own
    assert len(found.seeds.torch["state"]) == len(found.seeds.python["state"]) == 64
    assert found.training_arguments is not None
    assert found.training_arguments["learning_rate"] == 1e-2
    assert found.trainer is not None
    assert found.trainer.trainer == "transformers.trainer.Trainer"
    assert found.trainer.optimizer is not None
    assert "AdamW" in found.trainer.optimizer
    assert found.trainer.model == "transformers.models.gpt2.modeling_gpt2.GPT2LMHeadModel"
    assert "stemmata.hf.callback.VersionCallback" in found.trainer.callbacks
    assert found.base is not None
    assert found.base.digest is not None
    assert (found.base.name_or_path, [row[0] for row in found.base.files]) == (
        str(base),
        ["config.json", "model.safetensors"],
    )
    assert found.data is not None
    assert set(found.data.parts) == {"train", "eval"}
    part = found.data.parts["train"]
    assert (part.rows, part.covers) == (8, "all")
    assert part.columns == {"input_ids": "list<item: int32>", "labels": "list<item: int64>"}
    assert part.digest == rows.digest(tiny.dataset())[0] != found.data.parts["eval"].digest
    assert part.fingerprint == version.data["train.fingerprint"]


def test_the_versions_of_a_run_share_its_objects(repo: Repository, tmp_path: Path) -> None:
    versions = run(repo, tmp_path / "out", num_train_epochs=3)
    kinds = [{k: d for k, d in v.record.provenance.items() if k != "logged"} for v in versions]
    assert len(versions) == 3
    assert kinds[0] == kinds[1] == kinds[2]
    assert {"command", "environment", "packages", "seeds", "code", "trainer", "data"} <= set(kinds[0])


def test_two_runs_that_began_alike_have_the_same_seeds_and_data(repo: Repository, tmp_path: Path) -> None:
    one = run(repo, tmp_path / "out")[-1].record.provenance
    two = run(repo, tmp_path / "out")[-1].record.provenance
    three = run(repo, tmp_path / "out", seed=8)[-1].record.provenance
    assert one["seeds"] == two["seeds"] != three["seeds"]
    assert one["data"] == two["data"] == three["data"]


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (Dataset.from_dict(tiny.dataset().to_dict()).to_iterable_dataset(), "it streams"),
        (torch.utils.data.Subset(tiny.dataset(), range(4)), None),
    ],
    ids=["streams", "subset"],
)
def test_data_that_cannot_be_hashed_says_why(
    repo: Repository, tmp_path: Path, data: Any, what: str | None
) -> None:
    found = run(repo, tmp_path / "out", data=data, max_steps=2)[-1].captured()
    assert found.data is not None
    part = found.data.parts["train"]
    if what is None:
        assert part.digest is not None
    else:
        assert part.digest is None
        assert why(found, "rows of train").startswith(what)


def test_a_capture_that_fails_is_a_reason_and_no_failure(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> Any:
        raise RuntimeError("no such luck")

    for module, name in ((code, "collect"), (rows, "collect"), (background.process, "collect")):
        monkeypatch.setattr(module, name, broken)
    found = run(repo, tmp_path / "out")[-1].captured()
    for what in ("code", "data", "command"):
        assert why(found, what) == "capturing it failed: RuntimeError: no such luck"
    assert found.packages


def test_git_is_asked_beside_the_training(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []
    collect = code.collect

    def noted(folder: Path | None = None) -> dict[str, bytes]:
        threads.append(threading.current_thread())
        return collect(folder)

    monkeypatch.setattr(code, "collect", noted)
    run(repo, tmp_path / "out", num_train_epochs=3)
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()


def test_a_loop_of_ones_own_is_captured_too(repo: Repository) -> None:
    with repo.run("m", "r") as own:
        own.save(tiny.gpt2(), epoch=1)
        own.save(tiny.gpt2(), epoch=2)
    one, two = reversed(repo.versions("m"))
    assert one.record.provenance == two.record.provenance
    found = two.captured()
    assert found.code is not None
    assert found.seeds is not None
    assert found.seeds.torch is not None
    assert found.seeds.torch["state"]


# --- data="store" -----------------------------------------------------------------------------------------


def trained(repo: Repository, folder: Path, data: Any, **more: Any) -> Version:
    """The newest version of a training that stores its rows."""
    trainer = tiny.trainer(tiny.gpt2(), folder, [VersionCallback(repo, "m", data="store")], **more)
    trainer.train_dataset = data
    trainer.train()
    return repo["m@latest"]


def test_stored_rows_come_back_as_they_were(repo: Repository, tmp_path: Path) -> None:
    data = tiny.dataset(2000)
    one = trained(repo, tmp_path / "out", data, max_steps=1, eval_strategy="epoch").captured().data
    assert one is not None
    assert one.stored is not None
    assert one.stored.model == "m.data"
    assert one.stored.files == {"train": "train.arrow", "eval": "eval.arrow"}
    folder = repo.get(one.stored.version).checkout(tmp_path / "rows")
    back = Dataset.from_file(str(folder / "train.arrow"))
    assert back.features == data.features
    assert back.to_dict() == data.to_dict()
    assert rows.digest(back)[0] == one.parts["train"].digest

    again = trained(repo, tmp_path / "out", data, max_steps=1, eval_strategy="epoch").captured().data
    assert again is not None
    assert again.stored == one.stored
    assert len(repo.versions("m.data")) == 1
    other = trained(repo, tmp_path / "out", data.select(range(1999)), max_steps=1).captured().data
    assert other is not None
    assert other.stored is not None
    assert other.stored.version != one.stored.version


def test_rows_that_stream_cannot_be_stored_and_it_says_so(repo: Repository, tmp_path: Path) -> None:
    found = trained(repo, tmp_path / "out", tiny.dataset().to_iterable_dataset(), max_steps=1).captured()
    assert found.data is not None
    assert found.data.stored is None
    assert "do not stream" in why(found, "stored rows of train")


def test_rows_that_cannot_be_written_cost_no_version(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(datastore, "_write", full)
    callback = VersionCallback(repo, "m", run_name="r", data="store")
    tiny.trainer(tiny.gpt2(), tmp_path / "out", [callback]).train()
    assert len(repo.versions("m")) == 2
    assert "No space left" in why(repo["m@latest"].captured(), "stored rows")
    assert [name for name in callback.missing if "training data" in name]


def test_another_word_for_data_is_refused(repo: Repository) -> None:
    with pytest.raises(InvalidArgument, match="neither"):
        VersionCallback(repo, "m", data="all")  # type: ignore[arg-type]


# --- I10 --------------------------------------------------------------------------------------------------

SHAPED = "hf_" + "AbCdEfGhIjKlMnOpQrStUvWx"
PLAIN = [
    f"Pl4in-{place}-48151623" for place in ("env", "flag", "url", "args", "diff", "file", "used", "entropy")
]
ENV, FLAG, URL, ARGS, DIFF, FILE, USED, NAMED = PLAIN

SCRIPT = f'''
import sys
from pathlib import Path
import torch
import tiny_models as tiny
import helper
import stemmata
from stemmata.errors import InvalidArgument
from stemmata.hf import VersionCallback, datastore

WANDB_API_KEY = "{DIFF}"
torch.set_num_threads(1)
repo = stemmata.open("models", create=True)
callback = VersionCallback(repo, "m", run_name="r", config={{"note": "as {ENV}"}})
trainer = tiny.trainer(
    tiny.gpt2(), Path("out"), [callback], num_train_epochs=1, hub_token="{ARGS}", run_name="with {SHAPED}"
)
trainer.train()
'''


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, "-C", str(folder), *arguments], check=True, capture_output=True)


def test_i10_no_planted_secret_is_anywhere_in_the_repository(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    git(project, "init", "-q", "-b", "main")
    git(project, "remote", "add", "origin", f"https://me:{URL}@example.org/team/x.git")
    (project / "train.py").write_text(f'import stemmata\npassword = "{USED}"\n')
    git(project, "add", ".")
    git(project, "commit", "-q", "-m", "Begin")
    (project / "train.py").write_text(SCRIPT)  # what it held, and what it holds, is in the diff
    (project / "helper.py").write_text(f'TOKEN: str = "{FILE}"\nused = "{ENV}"\nshaped = "{SHAPED}"\n')
    (project / "settings.yaml").write_text(f"api_key: {NAMED}\nnote: {ENV}\n")
    (project / ".env").write_text(f"WHATEVER={NAMED}\n")
    here = Path(__file__).parents[1]
    variables = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(here.parent / "src"), str(here)]),
        "MY_SERVICE_TOKEN": ENV,
        "OMP_NUM_THREADS": "1",
        "NCCL_ALGO": f"Ring {ENV}",
    }
    words = [sys.executable, "train.py", "--api-key", FLAG, f"--note={ENV}", f"--other={SHAPED}"]
    done = subprocess.run(words, cwd=project, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    secrets = [*PLAIN, SHAPED]
    everything = {str(path): path.read_bytes() for path in (project / "models").rglob("*") if path.is_file()}
    with open_repository(project / "models") as repo:
        versions = list(repo.versions("m"))
        for version in versions:
            everything["record"] = json.dumps(version.record.config).encode()
            for kind in version.record.provenance:
                everything[kind] = version.provenance(kind)
        found = versions[0].captured()
    for place, data in everything.items():
        for secret in secrets:
            assert secret.encode() not in data, f"{secret} is in {place}"
    # It is not for want of looking: what stood around the secrets is there.
    assert found.code is not None
    assert found.command is not None
    assert found.environment is not None
    assert found.code.remote == "https://***@example.org/team/x.git"
    assert "+WANDB_API_KEY = " in found.code.diff
    assert set(found.code.files) >= {"train.py", "helper.py", "settings.yaml"}
    assert 'TOKEN: str = "***"' in found.code.files["helper.py"].text
    assert found.command.argv[2:] == ["--api-key", "***", "--note=***", "--other=***"]
    assert found.environment.variables["NCCL_ALGO"] == "Ring ***"
    assert {"argument 3", "argument 4", "argument 5", "secrets in train.py"} <= {
        m.what for m in found.missing
    }
