"""Saving and reading back through the facade."""

from __future__ import annotations

import json
import math
import os
import pickle
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

import stemmata
from makers import adapter_folder, contents, model_folder, safetensors_bytes, weights
from stemmata import errors, saving, trees
from stemmata.records import Run
from stemmata.repository import Repository
from stemmata.version import Version
from users import ordinary_user


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    return stemmata.open(tmp_path / "repo", create=True)


def test_a_saved_folder_comes_back_byte_for_byte(repo: Repository, tmp_path: Path) -> None:
    source = model_folder(tmp_path / "out")
    (source / "notes").mkdir()
    (source / "notes" / "схема ☂.txt").write_text("any script")
    (source / "empty.txt").write_bytes(b"")
    (source / "nothing").mkdir()
    version = repo.save(source, "sentiment", metrics={"eval_loss": 0.5}, message="first")
    target = version.checkout(tmp_path / "back")
    assert contents(target) == contents(source)
    assert (target / "nothing").is_dir()
    assert version.read("empty.txt") == b""
    assert version.kind == "model"
    assert version.config["model.hidden_size"] == 16


def test_a_new_process_sees_what_was_saved(repo: Repository, tmp_path: Path) -> None:
    version = repo.save(model_folder(tmp_path / "out"), "sentiment", name="one")
    again = stemmata.open(tmp_path / "repo")
    assert again["sentiment@one"].id == version.id
    assert again.models() == ["sentiment"]


def test_equal_tensors_are_stored_once(repo: Repository, tmp_path: Path) -> None:
    shared = weights(1, width=256)
    for index, extra in enumerate((2, 3)):
        folder = tmp_path / f"out{index}"
        folder.mkdir()
        tensors = {**{f"moved.{index}.{k}": v for k, v in shared.items()}, **weights(extra, layers=1)}
        (folder / "model.safetensors").write_bytes(safetensors_bytes(tensors))
        repo.save(folder, "m", name=f"v{index}")
    raw = sum(a.nbytes for a in shared.values())
    stored = sum(k.size for k in repo.session.storage.list("packs/"))
    assert stored < 1.3 * raw


def test_nan_and_infinite_metrics_survive(repo: Repository, tmp_path: Path) -> None:
    metrics = {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 0.1}
    version = repo.save(model_folder(tmp_path / "out"), "m", metrics=metrics, config={"x": math.nan})
    found = stemmata.open(tmp_path / "repo").get(version.id).metrics
    assert math.isnan(found["a"])
    assert (found["b"], found["c"], found["d"]) == (math.inf, -math.inf, 0.1)
    assert math.isnan(float(version.config["x"]))  # type: ignore[arg-type]


def test_versions_of_a_run_form_a_line(repo: Repository, tmp_path: Path) -> None:
    run = Run(id="r", name="run-a")
    made = [
        repo.save(model_folder(tmp_path / f"e{i}", i), "m", name=f"run-a/epoch-{i}", run=run, epoch=i)
        for i in (1, 2, 3)
    ]
    assert made[0].parents == []
    assert made[1].parents == [made[0].id.hex]
    assert repo["m@run-a/latest~2"].id == made[0].id
    assert repo["m"].id == made[2].id


def test_a_taken_name_is_refused_and_nothing_is_written(repo: Repository, tmp_path: Path) -> None:
    source = model_folder(tmp_path / "out")
    repo.save(source, "m", name="Run/One")
    before = sorted(k.key for k in repo.session.storage.list(""))
    with pytest.raises(errors.NameTaken):
        repo.save(source, "m", name="run/one")
    changed = model_folder(tmp_path / "other", seed=2)
    with pytest.raises(errors.NameTaken):
        repo.save(changed, "m", name="run/two", alias="Run/One")
    with pytest.raises(errors.NameTaken):
        repo.save(changed, "m", name="both", alias="Both")
    after = sorted(k.key for k in repo.session.storage.list(""))
    assert [k for k in after if not k.startswith("cache/")] == [
        k for k in before if not k.startswith("cache/")
    ]


def test_equal_bytes_can_become_a_second_name(repo: Repository, tmp_path: Path) -> None:
    source = model_folder(tmp_path / "out")
    run = Run(id="r", name="run")
    first = repo.save(source, "m", name="run/epoch-1", run=run)
    second = repo.save(source, "m", name="run/final", run=run, same_as_existing=True)
    assert second.id == first.id
    assert second.names == ["run/epoch-1", "run/final"]
    assert len(repo.versions("m")) == 1


def test_an_adapter_says_its_rank(repo: Repository, tmp_path: Path) -> None:
    version = repo.save(adapter_folder(tmp_path / "out", rank=8), "m")
    assert version.kind == "adapter"
    assert version.config["lora.r"] == 8
    facts = version.lora()
    assert facts is not None
    assert facts.rank == 8
    assert [v.id for v in repo.search("m", "lora.r == 8")] == [version.id]
    assert len(repo.search("m", "lora.r == 4")) == 0


def test_annotations_are_shown_as_the_versions_own(repo: Repository, tmp_path: Path) -> None:
    version = repo.save(model_folder(tmp_path / "out"), "m", metrics={"loss": 1.0})
    shown = repo.annotate(
        version, metrics={"eval_loss": 0.25, "loss": 0.9}, labels={"stage": "dev"}, notes="ok"
    )
    assert shown.metrics == {"loss": 0.9, "eval_loss": 0.25}
    assert shown.labels == {"stage": "dev"}
    assert shown.notes == ["ok"]
    assert shown.id == version.id
    assert repo.annotate(version, labels={"stage": None}).labels == {}
    with pytest.raises(errors.InvalidArgument):
        repo.annotate(version)


def test_aliases_move_roll_back_and_remember(repo: Repository, tmp_path: Path) -> None:
    one, two, three = (repo.save(model_folder(tmp_path / f"o{i}", i), "m", name=f"v{i}") for i in range(3))
    for version in (one, two, three):
        repo.alias("m", "production", version, why=f"ship {version.name}")
    assert repo["m@production@{1}"].id == two.id
    assert repo.rollback("m", "production").after == two.id
    assert repo.rollback("m", "production").after == one.id
    with pytest.raises(errors.NothingToRollBack):
        repo.rollback("m", "production")
    assert [m.after for m in repo.history("m", "production")] == [one.id, two.id, three.id, two.id, one.id]
    assert [m.rollback for m in repo.history("m", "production")] == [False, False, False, True, True]
    assert repo.rollback("m", "production", to=three).after == three.id
    assert repo.aliases("m")["production"].id == three.id


def test_an_alias_moves_only_from_the_expected_value(repo: Repository, tmp_path: Path) -> None:
    one, two = (repo.save(model_folder(tmp_path / f"o{i}", i), "m", name=f"v{i}") for i in range(2))
    repo.alias("m", "production", one, expect=None)
    with pytest.raises(errors.AliasMoved):
        repo.alias("m", "production", two, expect=None)
    with pytest.raises(errors.AliasMoved):
        repo.alias("m", "production", two, expect=two)
    assert repo.alias("m", "production", two, expect=one).before == one.id


def test_a_tag_never_moves(repo: Repository, tmp_path: Path) -> None:
    one, two = (repo.save(model_folder(tmp_path / f"o{i}", i), "m", name=f"v{i}") for i in range(2))
    repo.tag("m", "paper", one)
    repo.tag("m", "Paper", one)  # it is there already
    with pytest.raises(errors.NameTaken):
        repo.tag("m", "paper", two)
    with pytest.raises(errors.NameTaken):
        repo.alias("m", "paper", two)
    assert repo["m@paper"].id == one.id


def test_an_alias_to_a_missing_version_is_refused(repo: Repository, tmp_path: Path) -> None:
    other = repo.save(model_folder(tmp_path / "o"), "other")
    repo.save(model_folder(tmp_path / "p", 1), "m")
    with pytest.raises(errors.VersionNotFound):
        repo.alias("m", "production", "m@nowhere")
    with pytest.raises(errors.VersionNotFound, match="not a version of"):
        repo.alias("m", "production", other)
    assert repo.aliases("m") == {}


def test_best_and_configure(repo: Repository, tmp_path: Path) -> None:
    scores = {"a": 0.5, "b": 0.2, "c": math.nan}
    made = {
        n: repo.save(model_folder(tmp_path / n, i), "m", name=f"v-{n}", metrics={"eval_loss": s, "acc": i})
        for i, (n, s) in enumerate(scores.items())
    }
    assert repo.best("m", "eval_loss").id == made["b"].id
    repo.configure("m", metric="acc", direction="max")
    assert repo["m@best"].id == made["c"].id
    with pytest.raises(errors.InvalidArgument):
        repo.configure("m", direction="sideways")
    for wrong in ("minimize", "MAX", ""):
        with pytest.raises(errors.InvalidArgument, match="neither 'min' nor 'max'"):
            repo.best("m", "acc", direction=wrong)


def test_i10_files_of_secrets_stay_out_of_a_saved_folder_and_are_named(
    repo: Repository, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = model_folder(tmp_path / "out", 1)
    for name in (".env", "id_rsa", "hf_token.txt", "special_tokens_map.json", "tokens.txt"):
        (source / name).write_text("tell-nobody")
    version = repo.save(source, "m")
    kept = {f.path for f in version.files}
    assert not kept & {".env", "id_rsa", "hf_token.txt"}
    assert kept >= {"special_tokens_map.json", "tokens.txt", "config.json"}
    assert "left out .env, hf_token.txt, id_rsa" in caplog.text
    assert ".env" in {f.path for f in repo.save(source, "m", include=[".env"]).files}


def test_i10_a_token_in_a_configuration_that_somebody_else_wrote_is_told_and_refused_if_strict(
    repo: Repository, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = model_folder(tmp_path / "out", 1)
    config = {"eos_token": "</s>", "token": "<tok>", "use_auth_token": None, "chat_template": "{{ token }}"}
    (source / "tokenizer_config.json").write_text(json.dumps(config))
    repo.save(source, "m", strict=True)
    assert not caplog.records
    (source / "tokenizer_config.json").write_text(json.dumps({**config, "use_auth_token": "Zk9x81qPqZ"}))
    with pytest.raises(errors.SurprisingSave, match="use_auth_token"):
        repo.save(source, "m", strict=True)
    repo.save(source, "m")
    assert "tokenizer_config.json holds a token in clear (use_auth_token)" in caplog.text
    assert "Zk9x81qPqZ" not in caplog.text


def test_i10_training_args_bin_stays_out_unless_asked_for(repo: Repository, tmp_path: Path) -> None:
    source = model_folder(tmp_path / "out")
    (source / "training_args.bin").write_bytes(b"hf_abcdefghijklmnopqrstuvwxyz012345")
    plain = repo.save(source, "m")
    assert "training_args.bin" not in {f.path for f in plain.files}
    (source / "checkpoint-5").mkdir()
    (source / "checkpoint-5/training_args.bin").write_bytes(pickle.dumps({"hub_token": "plain", "seed": 3}))
    wide = repo.save(source, "m", include=["checkpoint-*"])
    assert not [f.path for f in wide.files if "training_args" in f.path]
    assert json.loads(wide.provenance("training_arguments:checkpoint-5")) == {"hub_token": "***", "seed": 3}
    asked = repo.save(source, "m", include=["training_args.bin"])
    assert asked.read("training_args.bin").startswith(b"hf_")


def test_i10_of_arguments_that_are_excluded_outside_or_no_file_nothing_is_kept(
    repo: Repository, tmp_path: Path
) -> None:
    source, arguments = model_folder(tmp_path / "out"), pickle.dumps({"seed": 3})
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/training_args.bin").write_bytes(arguments)
    file = source / "training_args.bin"
    file.write_bytes(arguments)
    assert "training_arguments" in repo.save(source, "m").record.provenance
    assert "training_arguments" not in repo.save(source, "m", exclude=["training_args*"]).record.provenance
    file.unlink()
    file.symlink_to(tmp_path / "elsewhere/training_args.bin")
    assert "training_arguments" not in repo.save(source, "m").record.provenance
    file.unlink()
    os.mkfifo(file)
    assert "training_arguments" not in repo.save(source, "m").record.provenance, "and it does not wait"
    file.unlink()
    file.mkdir()
    repo.save(source, "m")


def test_what_no_reader_would_take_is_refused_while_the_source_is_there(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = model_folder(tmp_path / "out")
    (source / "hollow").mkdir()
    version = repo.save(source, "m")
    monkeypatch.setattr(trees, "MAX_FILES", len(version.files))
    with pytest.raises(errors.UnsupportedFile, match="there are more than"):
        repo.save(source, "m")
    assert len(repo.versions("m")) == 1


def test_i10_planted_tokens_are_nowhere_in_the_store(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = "hf_" + "Abcdefghij0123456789KLMNOPQRSTuvwx"
    monkeypatch.setenv("HF_TOKEN", token)
    for argv in ("sys.argv", "sys.orig_argv"):
        monkeypatch.setattr(argv, ["train.py", f"--hub_token={token}", "--api-key", token])
    version = repo.save(
        model_folder(tmp_path / "out"),
        "m",
        config={"hub_token": token, "nested": {"api_key": token}},
        message=f"with {token}",
        data={"url": f"https://user:{token}@example.org/x"},
    )
    repo.annotate(version, notes=f"see {token}", labels={"k": token})
    repo.alias("m", "production", version, why=token)
    for kind in version.record.provenance:
        assert token.encode() not in version.provenance(kind)
    for key in repo.session.storage.list(""):
        assert token.encode() not in repo.session.storage.get(key.key), key.key


def test_provenance_tells_how_the_version_was_made(repo: Repository, tmp_path: Path) -> None:
    version = repo.save(model_folder(tmp_path / "out"), "m")
    assert {"command", "environment", "packages"} <= set(version.record.provenance)
    packages = json.loads(version.provenance("packages"))
    assert "numpy" in json.dumps(packages)
    with pytest.raises(errors.NotFound):
        version.provenance("horoscope")


def test_default_exclusions_are_reported(repo: Repository, tmp_path: Path) -> None:
    source = model_folder(tmp_path / "out")
    (source / "checkpoint-5").mkdir()
    (source / "checkpoint-5" / "model.safetensors").write_bytes(b"x")
    version = repo.save(source, "m")
    assert "checkpoint-5/model.safetensors" not in {f.path for f in version.files}


def test_opening_and_creating(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STEMMATA_REPO", raising=False)
    with pytest.raises(errors.RepositoryNotFound):
        stemmata.open(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    work = tmp_path / "work" / "deep"
    work.mkdir(parents=True)
    monkeypatch.chdir(work)
    with pytest.raises(errors.RepositoryNotFound, match="stemmata init"):
        stemmata.open()
    made = stemmata.init(tmp_path / "work" / ".stemmata")
    assert stemmata.open().id == made.id
    with pytest.raises(errors.RepositoryExists):
        stemmata.init(tmp_path / "work" / ".stemmata")
    monkeypatch.setenv("STEMMATA_REPO", str(tmp_path / "other"))
    with pytest.raises(errors.RepositoryNotFound):
        stemmata.open()


def test_a_folder_of_other_things_is_not_made_a_repository(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(errors.RepositoryExists):
        stemmata.open(tmp_path, create=True)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_repository_that_was_removed_or_replaced_since_it_was_opened(tmp_path: Path) -> None:
    folder, source = tmp_path / "repo", model_folder(tmp_path / "out")
    for name in ("m/a", "m/b"):
        with stemmata.open(folder, create=True) as repo:
            if name == "m/b":
                repo.save(source, "m")
            shutil.rmtree(folder)
            with pytest.raises(errors.RepositoryNotFound):
                repo.save(source, "m")
            assert not (folder / "log").exists(), "nothing is written where nobody would look"
            with (
                stemmata.open(folder, create=True),
                pytest.raises(errors.DamagedRepository, match="its place"),
            ):
                repo.save(source, "m")
        shutil.rmtree(folder)


def test_a_newer_repository_is_refused_i9(tmp_path: Path) -> None:
    from stemmata.log.entries import seal

    folder = tmp_path / "repo"
    folder.mkdir()
    body = json.dumps(
        {"magic": "stemmata", "format": 99, "repository": "0" * 32, "created": "2030-01-01T00:00:00.000000Z"},
        separators=(",", ":"),
    )
    (folder / "stemmata.json").write_bytes(seal(body.encode()))
    with pytest.raises(errors.NewerFormat, match="upgrade"):
        stemmata.open(folder)


def test_a_read_only_repository_can_be_read_but_not_written() -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        root = Path(name)
        root.chmod(0o755)
        patch.setenv("STEMMATA_CACHE", str(root / "no-cache" / "here"))
        repo = stemmata.open(root / "repo", create=True)
        version = repo.save(model_folder(root / "out"), "m")
        repo.check()
        repo.close()
        _chmod(root / "repo", 0o555, 0o444)
        (root / "back").mkdir()
        (root / "back").chmod(0o777)
        with ordinary_user():
            again = stemmata.open(root / "repo")
            assert again["m"].id == version.id
            assert contents(again["m"].checkout(root / "back" / "x")) == contents(root / "out")
            with pytest.raises(errors.StorageReadOnly):
                again.save(root / "out", "m")
            with pytest.raises(errors.StorageReadOnly):
                again.alias("m", "production", version)
        _chmod(root / "repo", 0o755, 0o644)


def _chmod(root: Path, folders: int, files: int) -> None:
    for path in [root, *root.rglob("*")]:
        path.chmod(folders if path.is_dir() else files)


def test_a_local_base_is_recorded_with_the_digest_of_its_files(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEMMATA_CACHE", str(tmp_path / "user-cache"))
    base = model_folder(tmp_path / "base")
    adapter = adapter_folder(tmp_path / "out")
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(base)
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    first = repo.save(adapter, "m").base
    assert first is not None
    assert first.digest is not None
    assert {path for path, _, _ in first.files} == {"config.json", "model.safetensors"}
    model_folder(base, seed=9)
    second = repo.save(adapter, "m").base
    assert second is not None
    assert second.digest != first.digest


def test_a_folder_with_too_long_a_list_of_files_is_refused_at_save(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stemmata.recording.MAX_TREE_BYTES", 100)
    with pytest.raises(errors.UnsupportedFile, match="too many files"):
        repo.save(model_folder(tmp_path / "out"), "m")
    assert repo.models() == []


def test_an_empty_path_is_not_the_working_folder(repo: Repository) -> None:
    with pytest.raises(errors.InvalidArgument, match="empty"):
        repo.save("", "m")


def test_a_direction_belongs_to_the_metric_it_was_declared_for(repo: Repository, tmp_path: Path) -> None:
    for number in (1, 2):
        source = model_folder(tmp_path / str(number), seed=number)
        repo.save(source, "m", name=f"v{number}", metrics={"loss": 1 / number, "f1": 1 / number})
    repo.configure("m", metric="loss", direction="min")
    assert repo["m@best"].name == "v2"
    repo.configure("m", metric="loss")
    assert repo["m@best"].name == "v2"
    repo.configure("m", metric="f1")
    assert repo["m@best"].name == "v1"
    repo.configure("m", direction="min")
    assert repo["m@best"].name == "v2"


def test_the_state_of_a_long_training_that_logs_each_step_is_read(repo: Repository, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "out")
    row = '{"step": 1, "loss": 0.5, "grad_norm": 1.2345678901234567, "learning_rate": 1e-05, "epoch": 0.1}, '
    rows = row * ((17 << 20) // len(row))
    state = f'{{"global_step": 700, "epoch": 2.0, "log_history": [{rows}{{"eval_loss": 0.25, "step": 700}}]}}'
    (folder / "trainer_state.json").write_text(state)
    version = repo.save(folder, "m")
    assert (version.step, version.epoch, version.metrics["eval_loss"]) == (700, 2.0, 0.25)


def test_a_numbered_name_is_found_in_one_go(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that goes on a third time: the name and `-2` are of others' bytes; nothing is coded thrice."""
    attempts: list[str | None] = []
    real = saving._attempt

    def attempt(session: Any, request: Any) -> Any:
        attempts.append(request.name)
        return real(session, request)

    monkeypatch.setattr(saving, "_attempt", attempt)
    run = Run(id="8" * 32, name="r")

    def save(seed: int, **more: Any) -> Version:
        folder = model_folder(tmp_path / "out", seed)
        more = {"run": run, "step": 5, "same_as_existing": True, "numbered": True, **more}
        return repo.save(folder, "m", name="r/epoch-1", **more)

    made = [save(seed) for seed in range(3)]
    assert [v.name for v in made] == ["r/epoch-1", "r/epoch-1-2", "r/epoch-1-3"]
    assert len(attempts) == 3
    # The very bytes are the version that has them, by whichever of these names.
    assert [save(seed).id for seed in range(3)] == [v.id for v in made]
    assert [len(repo.get(v.id).names) for v in made] == [1, 1, 1]
    with pytest.raises(errors.NameTaken):
        save(3, numbered=False)
    other = save(3, same_as_existing=False)
    assert other.name == "r/epoch-1-4"
    final = repo.save(
        tmp_path / "out", "m", name="r/final", run=run, step=5, same_as_existing=True, numbered=True
    )
    assert (final.id, final.names) == (other.id, ["r/epoch-1-4", "r/final"])


def test_a_number_passes_over_the_alias(repo: Repository, tmp_path: Path) -> None:
    repo.save(model_folder(tmp_path / "out"), "m", name="x")
    again = repo.save(model_folder(tmp_path / "out", 1), "m", name="x", numbered=True, alias="x-2")
    assert (again.name, again.aliases) == ("x-3", ["x-2"])
    with pytest.raises(errors.NameTaken):
        repo.save(model_folder(tmp_path / "out", 2), "m", name="y", alias="Y")


def test_a_second_name_brings_its_alias(repo: Repository, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "out")
    made = repo.save(folder, "m", name="a")
    again = repo.save(folder, "m", name="b", alias="production", same_as_existing=True)
    assert (again.id, again.names, repo.aliases("m")) == (made.id, ["a", "b"], {"production": made})
    repo.protect("m", "production", ["acc > 1"])
    for name in ("b", "c"):
        with pytest.raises(errors.AliasProtected):
            repo.save(folder, "m", name=name, alias="production", same_as_existing=True)
    assert repo.get(made.id).names == ["a", "b"]
