"""`import`: what is there already, complete or not, in every layout; twice and while it vanishes."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from makers import adapter_folder, model_folder
from stemmata.errors import EmptySource, InvalidArgument, SourceMissing, UnsupportedFile
from stemmata.intake import find, import_folders
from stemmata.intake import taking as taking_module
from stemmata.repository import Repository
from stemmata.repository import open as open_repository
from users import ordinary_user


def statuses(outcomes: list[Any]) -> list[tuple[str, str]]:
    return [(o.found.name, o.status) for o in outcomes]


def test_a_trainers_output_becomes_a_line(repo: Repository, tmp_path: Path, checkpoint: Any) -> None:
    out = tmp_path / "out"
    for step in (10, 2, 4):
        checkpoint(out, step)
    os.utime(out / "checkpoint-2" / "model.safetensors", (1.5e9, 1.5e9))
    os.utime(out / "checkpoint-2" / "config.json", (1.4e9, 1.4e9))
    model_folder(out, 77)
    done = import_folders(repo, [out], model="sentiment")
    names = ["out/step-2", "out/step-4", "out/step-10", "out/final"]
    assert statuses(done) == [(name, "new") for name in names]
    first, second, third, final = (repo[f"sentiment@{name}"] for name in names)
    assert [v.parents for v in (first, second, third, final)] == [
        [],
        [first.id.hex],
        [second.id.hex],
        [third.id.hex],
    ]
    assert (second.step, second.epoch, second.event, second.kind) == (4, 2.0, "import", "model")
    assert second.metrics["loss"] == 0.25
    assert second.metrics["eval_loss"] == 0.5
    assert str(first.created_at).startswith("2017-07-14T02:40:00")
    assert {f.path for f in first.files} == {"config.json", "model.safetensors"}
    assert json.loads(first.provenance("trainer_state"))["global_step"] == 2
    logged = {row["step"]: row["loss"] for row in first.logged()}
    assert [logged[step] for step in (2, 4, 6, 8, 10)] == [1 / 2, 1 / 4, 1 / 6, 1 / 8, 1 / 10]
    assert "logged" not in third.record.provenance, "its trainer_state has all rows: nothing is stored twice"


def test_a_repeat_is_nothing_new(repo: Repository, tmp_path: Path, checkpoint: Any) -> None:
    out = tmp_path / "out"
    checkpoint(out, 2)
    shutil.copytree(out / "checkpoint-2", out, dirs_exist_ok=True)
    assert statuses(import_folders(repo, [out])) == [("out/step-2", "new"), ("out/final", "named")]
    assert len(repo.versions("out")) == 1
    assert statuses(import_folders(repo, [out])) == [("out/step-2", "known"), ("out/final", "known")]
    checkpoint(out, 4)
    assert statuses(import_folders(repo, [out]))[1:] == [("out/step-4", "new"), ("out/final", "known")]


def test_another_training_under_the_same_name_is_refused_and_costs_nothing_else(
    repo: Repository, tmp_path: Path, checkpoint: Any
) -> None:
    out = tmp_path / "out"
    checkpoint(out, 2)
    import_folders(repo, [out])
    model_folder(out / "checkpoint-2", 99)
    checkpoint(out, 4)
    refused, taken = import_folders(repo, [out])
    assert (refused.status, taken.status) == ("failed", "new")
    assert refused.error is not None
    assert refused.error.kind == "name-taken"


def test_trap_5_the_highest_number_is_not_the_last_checkpoint(
    repo: Repository, tmp_path: Path, checkpoint: Any
) -> None:
    """The Trainer's save is not atomic, and its "last checkpoint" is the highest number, complete or not."""
    from transformers.trainer_utils import get_last_checkpoint

    out = tmp_path / "out"
    checkpoint(out, 2)
    checkpoint(out, 4, whole=False)
    assert str(get_last_checkpoint(str(out))).endswith("checkpoint-4")
    outcomes = import_folders(repo, [out])
    assert statuses(outcomes) == [("out/step-2", "new"), ("out/step-4", "incomplete")]
    assert "trainer_state.json" in outcomes[1].reason
    assert repo["out@latest"].step == 2


def long_state(path: Path, end: bytes) -> None:
    """Write one with the end `end` whose log nobody could hold in memory: a file with a hole."""
    head = {"best_global_step": 2, "best_metric": 0.5, "epoch": 2.0, "global_step": 4}
    with path.open("wb") as file:
        file.write(json.dumps(head, indent=2).encode()[:-2] + b',\n  "log_history": [\n')
        file.seek(1 << 36)
        file.write(end)


HARMS = ["state", "long state", "weights", "zip", "zip's end", "none", "shard", "step", "pipe", "huge"]


@pytest.mark.parametrize("harm", HARMS)
def test_each_way_to_be_incomplete_is_named(
    repo: Repository, tmp_path: Path, checkpoint: Any, harm: str
) -> None:
    folder = checkpoint(tmp_path / "out", 4)
    weights, state = folder / "model.safetensors", folder / "trainer_state.json"
    if harm == "state":
        state.write_bytes(state.read_bytes()[: state.stat().st_size // 2])
    elif harm == "long state":
        long_state(state, b'    {"step": 2}')
    elif harm == "weights":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif harm.startswith("zip"):
        weights.rename(weights := folder / "pytorch_model.bin")
        with zipfile.ZipFile(weights, "w") as whole:
            whole.writestr("pytorch_model/data.pkl", b"a pickle")
            whole.writestr("pytorch_model/data/0", b"w" * (1 << 17))
        weights.write_bytes(weights.read_bytes()[: -10 if "end" in harm else -70])
    elif harm == "none":
        weights.unlink()
    elif harm == "shard":
        index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    elif harm == "pipe":
        state.unlink()
        os.mkfifo(state)
    elif harm == "huge":
        with open(folder / "model.safetensors.index.json", "wb") as file:
            file.truncate(1 << 36)
    else:
        state.write_text('{"global_step": 5}')
    (outcome,) = import_folders(repo, [tmp_path / "out"])
    words = {
        "state": "cut off",
        "long state": "cut off",
        "weights": "beyond the file",
        "zip": "pytorch_model.bin lacks the end",
        "zip's end": "pytorch_model.bin lacks the end",
        "none": "no weights",
        "shard": "00002",
        "step": "step 5",
        "pipe": "no ordinary file",
        "huge": "which no index needs",
    }
    assert outcome.status == "incomplete"
    assert words[harm] in outcome.reason
    assert repo.models() == []


def test_a_folder_that_vanishes_while_it_is_read_is_no_version_and_no_error(
    repo: Repository, tmp_path: Path, checkpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    checkpoint(out, 2)
    checkpoint(out, 4)
    before = taking_module._run

    def rotate(*given: Any) -> Any:
        shutil.rmtree(out / "checkpoint-2", ignore_errors=True)
        return before(*given)

    monkeypatch.setattr(taking_module, "_run", rotate)
    assert statuses(import_folders(repo, [out])) == [("out/step-2", "gone"), ("out/step-4", "new")]


def test_what_one_may_not_read_or_write_is_named_and_costs_nothing_else(checkpoint: Any) -> None:
    # Not pytest's tmp_path: that is its owner's alone.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        out = folder / "out"
        state, weights = checkpoint(out, 2) / "trainer_state.json", checkpoint(out, 4) / "model.safetensors"
        closed = checkpoint(out, 6)
        checkpoint(out, 8)
        open_repository(folder / "models", create=True).close()
        for barred in (state, weights, closed):
            barred.chmod(0)
        with ordinary_user():
            kept = Repository.in_memory()
            outcomes = import_folders(kept, [out])
            with open_repository(folder / "models") as theirs:
                (refused,) = import_folders(theirs, [out / "checkpoint-8"])
        closed.chmod(0o755)
    assert [(o.found.name, o.status) for o in outcomes] == [
        ("out/step-2", "incomplete"),
        ("out/step-4", "incomplete"),
        ("out/step-6", "incomplete"),
        ("out/step-8", "new"),
    ]
    assert all("Permission denied" in o.reason for o in outcomes[:3])
    assert refused.status == "failed"
    assert refused.error is not None
    assert refused.error.kind == "storage-read-only"


def test_half_of_a_vanishing_folder_is_no_version(
    repo: Repository, tmp_path: Path, checkpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkpoint(tmp_path / "out", 2)
    before = taking_module._run

    def rotate(*given: Any) -> Any:
        (folder / "config.json").unlink()
        return before(*given)

    monkeypatch.setattr(taking_module, "_run", rotate)
    (outcome,) = import_folders(repo, [tmp_path / "out"])
    assert outcome.error is not None
    assert outcome.error.kind == "source-changed"
    assert repo.models() == []


def test_shards_of_a_training_are_no_weights(repo: Repository, tmp_path: Path, checkpoint: Any) -> None:
    """FSDP and DeepSpeed leave a second copy of the weights beside the whole, or parts in its place."""
    whole, parts = checkpoint(tmp_path / "out", 2), checkpoint(tmp_path / "out", 4)
    (parts / "model.safetensors").unlink()
    for folder, name in ((whole, "pytorch_model_fsdp.bin"), (parts, "pytorch_model_fsdp_rank0.bin")):
        (folder / name).write_bytes(b"a pickle")
    (whole / "latest").write_text("global_step2")
    (whole / "global_step2").mkdir()
    taken, refused = import_folders(repo, [tmp_path / "out"], model="m")
    assert (taken.status, refused.status) == ("new", "incomplete")
    assert "sharded by FSDP or ZeRO" in refused.reason
    assert {f.path for f in repo["m@out/step-2"].files} == {"config.json", "model.safetensors"}
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "pytorch_model_fsdp.bin").write_bytes(b"a pickle")
    assert statuses(import_folders(repo, [plain])) == [("plain/final", "new")]


def test_the_tutorials_own_layout(repo: Repository, tmp_path: Path) -> None:
    shelf = tmp_path / "model_versions"
    adapter_folder(shelf / "v_20260415_143022", 1, rank=8)
    adapter_folder(shelf / "v_20260416_090000", 2)
    metadata = {
        "version_id": "20260415_143022",
        "timestamp": "2026-04-15T14:31:00+00:00",
        "model_name": "gpt2",
        "lora_config": {"r": 8, "lora_alpha": 16, "lora_dropout": 0.05},
        "num_epochs": 1,
        "metrics": {"eval_loss": 0.5},
        "train_loss": 0.7,
    }
    (shelf / "metadata_20260415_143022.json").write_text(json.dumps(metadata))
    (shelf / "metadata_20260416_090000.json").write_text('{"version_id": "2026')
    good, broken = import_folders(repo, [shelf], model="sentiment")
    assert (good.status, good.found.warning) == ("new", "")
    assert broken.status == "new"
    assert "metadata_20260416_090000.json" in broken.found.warning
    version = repo["sentiment@v_20260415_143022/final"]
    assert version.kind == "adapter"
    assert str(version.created_at).startswith("2026-04-15")
    assert version.metrics == {"eval_loss": 0.5, "train_loss": 0.7}
    assert (version.config["lora.lora_dropout"], version.config["model_name"]) == (0.05, "gpt2")
    alone = find(shelf / "v_20260415_143022")
    assert [(f.model, f.name) for f in alone] == [("model_versions", "v_20260415_143022/final")]
    # Where no metadata says when, the tutorial's own name of the version does.
    local = datetime(2026, 4, 16, 9, 0, 0).astimezone(UTC)
    assert str(repo["sentiment@v_20260416_090000/final"].created_at).startswith(f"{local:%Y-%m-%dT%H:%M:%S}")


def test_files_beside_several_runs_do_not_make_one_version_of_them(
    repo: Repository, tmp_path: Path, checkpoint: Any
) -> None:
    shelf = tmp_path / "shelf"
    checkpoint(shelf / "exp1", 2)
    checkpoint(shelf / "exp2", 4)
    model_folder(shelf / "exp3", 3)
    (shelf / "exp3" / "training_args.bin").write_bytes(b"a pickle")
    for name in (".DS_Store", "README.md", "train.log"):
        (shelf / name).write_text("by hand")
    done = import_folders(repo, [shelf], model="m")
    assert statuses(done) == [("exp1/step-2", "new"), ("exp2/step-4", "new"), ("exp3/final", "new")]
    said = [outcome.found.warning for outcome in done]
    assert said == ["left out is what lies beside the runs: README.md, train.log", "", ""]
    assert {f.path for f in repo["m@exp1/step-2"].files} == {"config.json", "model.safetensors"}


def test_plain_folders_adapters_and_single_checkpoints(
    repo: Repository, tmp_path: Path, checkpoint: Any
) -> None:
    adapter = adapter_folder(tmp_path / "my adapter", 1)
    (tmp_path / "plain" / "unet").mkdir(parents=True)
    (tmp_path / "plain" / "model_index.json").write_text("{}")
    (tmp_path / "plain" / "unet" / "w.bin").write_bytes(b"w")
    single = checkpoint(tmp_path / "deadbeef", 6)
    done = import_folders(repo, [adapter, tmp_path / "plain", single], model="m")
    assert statuses(done) == [
        ("my-adapter/final", "new"),
        ("plain/final", "new"),
        ("run-deadbeef/step-6", "new"),
    ]
    assert {f.path for f in repo["m@plain/final"].files} == {"model_index.json", "unet/w.bin"}


def test_a_model_of_parts_stays_one_though_a_trainer_wrote_a_part(repo: Repository, tmp_path: Path) -> None:
    for part in ("unet", "text_encoder"):
        (tmp_path / "pipe" / part).mkdir(parents=True)
        (tmp_path / "pipe" / part / "model.safetensors").write_bytes(save({"w": np.ones(3, np.float32)}))
    (tmp_path / "pipe" / "text_encoder" / "training_args.bin").write_bytes(b"")
    (tmp_path / "pipe" / "model_index.json").write_text("{}")
    done = import_folders(repo, [tmp_path / "pipe"], model="m")
    assert statuses(done) == [("pipe/final", "new")]
    assert {f.path for f in repo["m@pipe/final"].files} >= {"model_index.json", "unet/model.safetensors"}


def test_metrics_that_no_version_can_have_cost_themselves_alone(
    repo: Repository, tmp_path: Path, checkpoint: Any
) -> None:
    folder = checkpoint(tmp_path / "out", 2)
    row = {"step": 2, "eval_loss": 0.5, "": 1.0, "half \ud800": 2.0, "line\nbreak": 3.0}
    state = {"global_step": 2, "log_history": [row, None, "x", {"step": 2, "much": 10**400}]}
    (folder / "trainer_state.json").write_text(json.dumps(state))
    (outcome,) = import_folders(repo, [tmp_path / "out"])
    assert outcome.status == "new"
    assert "left out are metrics that no version can have: ''" in outcome.found.warning
    assert repo["out@out/step-2"].metrics == {"eval_loss": 0.5}


def test_a_folder_with_a_very_long_name_and_a_file(repo: Repository, tmp_path: Path, checkpoint: Any) -> None:
    folder = checkpoint(tmp_path / ("é" * 120), 2)
    (outcome,) = import_folders(repo, [folder.parent])
    assert (outcome.status, outcome.found.name) == ("new", "é" * 60 + "/step-2")
    with pytest.raises(InvalidArgument, match="is a file; give the folder"):
        import_folders(repo, [folder / "model.safetensors"])


def test_weights_of_torch_are_taken_when_they_are_whole(
    repo: Repository, tmp_path: Path, checkpoint: Any
) -> None:
    """As a zip file, with a comment or without, or in the older form, which has no end to look for."""
    for step, comment in ((2, b""), (4, b"c" * 65535)):
        with zipfile.ZipFile(checkpoint(tmp_path / "out", step) / "pytorch_model.bin", "w") as whole:
            whole.writestr("pytorch_model/data/0", b"w" * (1 << 17))
            whole.comment = comment
    (checkpoint(tmp_path / "out", 6) / "pytorch_model.bin").write_bytes(b"\x80\x02\x8a\nl\xfc")
    assert [o.status for o in import_folders(repo, [tmp_path / "out"])] == ["new"] * 3


@pytest.mark.parametrize("ordered", [True, False])
def test_of_a_state_too_long_to_be_read_the_log_alone_is_lost(
    repo: Repository, tmp_path: Path, checkpoint: Any, ordered: bool
) -> None:
    state = checkpoint(tmp_path / "out", 4) / "trainer_state.json"
    long_state(state, b'  ],\n  "max_steps": 4\n}\n')
    if not ordered:
        with state.open("r+b") as file:
            file.write(b'{\n  "odd":  ')
    shutil.copytree(checkpoint(tmp_path / "out", 2), tmp_path / "out", dirs_exist_ok=True)
    (tmp_path / "out" / "trainer_state.json").unlink()
    os.link(state, tmp_path / "out" / "trainer_state.json")
    _, four, final = import_folders(repo, [tmp_path / "out"])
    assert (four.status, final.status) == ("new", "named")
    words = "trainer_state.json: it has more than 64 MiB: its log is left out, and with it the metrics"
    assert four.found.warning == final.found.warning == words
    version = repo["out@out/step-4"]
    assert (version.step, version.epoch, version.metrics) == (4, 2.0 if ordered else None, {})
    assert version.parents == [repo["out@out/step-2"].id.hex]
    assert "trainer_state" not in version.record.provenance, "it would stand for all that was logged"
    assert final.found.state.step == (2 if ordered else None)


def test_include_takes_the_optimizer_along(repo: Repository, tmp_path: Path, checkpoint: Any) -> None:
    checkpoint(tmp_path / "out", 2)
    import_folders(repo, [tmp_path / "out"], include=["optimizer.pt"])
    assert {f.path for f in repo["out@out/step-2"].files} == {
        "config.json",
        "model.safetensors",
        "optimizer.pt",
    }


def test_what_is_not_there_or_holds_nothing_is_refused_before_anything(
    repo: Repository, tmp_path: Path, checkpoint: Any
) -> None:
    checkpoint(tmp_path / "out", 2)
    (tmp_path / "empty").mkdir()
    for wrong, error in (("nowhere", SourceMissing), ("empty", EmptySource)):
        with pytest.raises(error):
            import_folders(repo, [tmp_path / "out", tmp_path / wrong])
    assert repo.models() == []


def test_a_file_system_that_fails_is_a_named_error_with_its_reason(
    repo: Repository, tmp_path: Path, checkpoint: Any, unreachable: set[Path]
) -> None:
    checkpoint(tmp_path / "out", 2)
    unreachable.add(tmp_path / "out")
    for look in (lambda: find(tmp_path / "out"), lambda: import_folders(repo, [tmp_path / "out"])):
        with pytest.raises(UnsupportedFile, match="Stale file handle"):
            look()
    with pytest.raises(UnsupportedFile, match="File name too long"):
        import_folders(repo, [tmp_path / ("x" * 300)])


def test_one_folder_that_cannot_be_looked_at_costs_itself_alone(
    repo: Repository, tmp_path: Path, checkpoint: Any, unreachable: set[Path]
) -> None:
    for step in (2, 4):
        checkpoint(tmp_path / "out", step)
    unreachable.add(tmp_path / "out" / "checkpoint-2")
    stale, taken = import_folders(repo, [tmp_path / "out"])
    assert (stale.status, taken.status) == ("incomplete", "new")
    assert "Stale file handle" in stale.reason


@pytest.mark.parametrize("dry_run", [False, True])
def test_what_fails_between_the_look_and_the_reading_is_named(
    repo: Repository,
    tmp_path: Path,
    checkpoint: Any,
    unreachable: set[Path],
    monkeypatch: pytest.MonkeyPatch,
    dry_run: bool,
) -> None:
    folder, before = checkpoint(tmp_path / "out", 2), taking_module._known

    def leave(*given: Any) -> Any:
        unreachable.add(folder)
        os.stat(folder)
        return before(*given)

    monkeypatch.setattr(taking_module, "_known", leave)
    (outcome,) = import_folders(repo, [tmp_path / "out"], dry_run=dry_run)
    assert outcome.status == "failed"
    assert "Stale file handle" in outcome.reason
    assert repo.models() == []


def test_a_dry_run_writes_nothing(repo: Repository, tmp_path: Path, checkpoint: Any) -> None:
    checkpoint(tmp_path / "out", 2)
    assert statuses(import_folders(repo, [tmp_path / "out"], dry_run=True)) == [("out/step-2", "new")]
    assert repo.models() == []


@pytest.mark.parametrize("gone", [0, 2, 6])
def test_best_weights_beside_a_later_state_are_of_their_own_step(
    repo: Repository, tmp_path: Path, checkpoint: Any, gone: int
) -> None:
    """As a training leaves them that brings its best ones back and is saved then; one may be gone."""
    out = tmp_path / "out"
    for step in (2, 4, 6):
        checkpoint(out, step)
    shutil.copytree(out / "checkpoint-2", out, dirs_exist_ok=True)
    state = json.loads((out / "checkpoint-6/trainer_state.json").read_text())
    state |= {"best_global_step": 2, "best_model_checkpoint": "elsewhere/checkpoint-2"}
    (out / "trainer_state.json").write_text(json.dumps(state))
    if gone:
        shutil.rmtree(out / f"checkpoint-{gone}")
    import_folders(repo, [out], model="m")
    final = repo["m@out/final"]
    assert (final.step, final.epoch, final.metrics["eval_loss"]) == (2, 1.0, 1.0)
    if gone != 2:
        assert final == repo["m@out/step-2"]


def test_last_weights_beside_a_state_that_tells_of_better_ones_keep_their_step(
    repo: Repository, tmp_path: Path, checkpoint: Any
) -> None:
    out = tmp_path / "out"
    for step in (2, 4):
        checkpoint(out, step)
    shutil.copytree(out / "checkpoint-4", out, dirs_exist_ok=True)
    state = json.loads((out / "trainer_state.json").read_text())
    (out / "trainer_state.json").write_text(json.dumps({**state, "best_global_step": 2}))
    import_folders(repo, [out], model="m")
    assert repo["m@out/final"].step == 4
    assert repo["m@out/final"].metrics["eval_loss"] == 0.5


@pytest.mark.parametrize("name", ["model.safetensors", "model-00001-of-00001.safetensors"])
def test_weights_of_which_nothing_tells_the_step_keep_that_of_their_state(
    repo: Repository, tmp_path: Path, checkpoint: Any, name: str
) -> None:
    """A merged adapter, one in halves, or other shards, saved after a training whose best one is gone."""
    out = tmp_path / "out"
    checkpoint(out, 4)
    shutil.copytree(out / "checkpoint-4", out, dirs_exist_ok=True)
    (out / "model.safetensors").unlink()
    (out / name).write_bytes(save({"merged": np.ones(9, np.float16)}))
    state = json.loads((out / "trainer_state.json").read_text())
    (out / "trainer_state.json").write_text(json.dumps({**state, "best_global_step": 2}))
    import_folders(repo, [out], model="m")
    assert (repo["m@out/final"].step, repo["m@out/final"].metrics["eval_loss"]) == (4, 0.5)
