"""What callers pass that no record can keep is refused by name, before anything is written."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stemmata
from faults import contents
from makers import adapter_folder, model_folder
from stemmata import recording
from stemmata.describe import Description, describe
from stemmata.errors import InvalidArgument, InvalidName
from stemmata.records import Base, Run
from stemmata.repository import Repository

HALF = "\udc80"
TOKEN = "hf_AbCdEfGhIjKlMnOpQrStUvWx"


@pytest.fixture
def repo() -> Repository:
    return Repository.in_memory()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return model_folder(tmp_path / "src")


@pytest.mark.parametrize(
    "wrong",
    [
        {"metrics": {"x": 10**400}},
        {"metrics": {"x": "abc"}},
        {"metrics": {"x": "1"}},
        {"metrics": {"x": None}},
        {"metrics": {"x": [1]}},
        {"metrics": {"x": 1j}},
        {"metrics": {"": 1}},
        {"metrics": {HALF: 1}},
        {"metrics": {"a\nb": 1}},
        {"labels": {"": "x"}},
        {"step": 2**63},
        {"step": 10**400},
        {"step": 3.5},
        {"step": "7"},
        {"epoch": math.nan},
        {"epoch": 10**400},
        {"epoch": "one"},
        {"created_at": datetime.min.replace(tzinfo=timezone(timedelta(hours=14)))},
        {"created_at": datetime.max.replace(tzinfo=timezone(timedelta(hours=-14)))},
        {"run": "r8"},
        {"base": "gpt2"},
        {"provenance": {"command": "text"}},
        {"provenance": {HALF: b""}},
    ],
    ids=lambda wrong: str(wrong)[:40].encode("unicode_escape").decode(),
)
def test_a_save_refuses_by_name(repo: Repository, source: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        repo.save(source, "m", **({"provenance": {}} | wrong))
    assert repo.models() == []


def test_provenance_larger_than_an_object(
    repo: Repository, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stemmata.recording._MAX_PROVENANCE", 10)
    repo.save(source, "m", provenance={"command": bytes(10)})
    with pytest.raises(InvalidArgument):
        repo.save(source, "m", provenance={"command": bytes(11)})


@pytest.mark.parametrize("name", ["", "a b", "x@{1}", HALF, "-x"])
def test_a_run_that_no_reference_could_name_is_refused(repo: Repository, source: Path, name: str) -> None:
    with pytest.raises(InvalidName):
        repo.save(source, "m", run=Run("id", name), provenance={})


def test_scalars_of_numpy_are_numbers(repo: Repository, source: Path) -> None:
    version = repo.save(
        source,
        "m",
        metrics={"a": np.float32(0.5), "b": np.int64(3), "c": np.array(2.0)},
        config={"lr": np.float32(0.5), "n": np.int64(3), "flag": np.bool_(True)},
        step=np.int64(7),
        epoch=np.float32(1.5),
        provenance={},
    )
    assert version.metrics == {"a": 0.5, "b": 3.0, "c": 2.0}
    assert {k: version.config[k] for k in ("lr", "n", "flag")} == {"lr": 0.5, "n": 3, "flag": True}
    assert (version.step, version.epoch) == (7, 1.5)
    assert len(repo.search("m", "lr < 1 and n == 3")) == 1


def test_half_surrogates_in_texts_cost_nothing_but_themselves(repo: Repository, source: Path) -> None:
    version = repo.save(
        source,
        "m",
        message=f"a{HALF}",
        author=HALF,
        event=HALF,
        config={HALF: HALF, "a": {HALF: 1}},
        data={HALF: HALF},
        labels={"l": HALF},
        provenance={},
    )
    assert (version.message, version.author, version.labels) == ("a?", "?", {"l": "?"})
    repo.annotate(version, notes=HALF, labels={"k": HALF}, why=HALF, event=HALF)
    repo.alias("m", "p", version, why=HALF)
    assert repo.check().sound


@pytest.mark.parametrize("wrong", [{"x": 10**400}, {"x": None}, {HALF: 1}, {"": 1}, {" a": 1}])
def test_an_annotation_refuses_by_name(repo: Repository, source: Path, wrong: dict[str, Any]) -> None:
    version = repo.save(source, "m", provenance={})
    with pytest.raises(InvalidArgument):
        repo.annotate(version, metrics=wrong)


def test_metrics_of_a_set_whose_name_has_blanks_arrive_late_as_they_do_early(
    repo: Repository, source: Path
) -> None:
    name = 'eval_my set/it\'s "ü"_loss'
    version = repo.save(source, "m", metrics={name: 1.0}, provenance={})
    assert repo.annotate(version, metrics={name: 0.5}).metrics == {name: 0.5}


def test_no_secret_in_labels_author_or_base(tmp_path: Path) -> None:
    """I10"""
    repo = stemmata.open(tmp_path / "repo", create=True)
    base = Base(name_or_path=f"https://user:{TOKEN}@example.org/base")
    repo.save(
        adapter_folder(tmp_path / "src"),
        "m",
        labels={"note": f"token={TOKEN}"},
        author=f"me {TOKEN}",
        base=base,
        event=f"manual {TOKEN}",
        run=Run("r", "run"),
        provenance={},
    )
    repo.close()
    for path in (tmp_path / "repo").rglob("*"):
        assert path.is_dir() or TOKEN.encode() not in path.read_bytes(), path


def test_what_lies_below_a_secrets_name_is_a_secret_too(repo: Repository, source: Path) -> None:
    """I10"""
    version = repo.save(
        source,
        "m",
        config={"db": {"credentials": {"value": "hunter2"}}, "optim": {"lr": 0.1}},
        labels={"api_key": "hunter2", "stage": "beta"},
        provenance={},
    )
    assert version.config["db.credentials.value"] == "***"
    assert version.config["optim.lr"] == 0.1
    assert version.labels == {"api_key": "***", "stage": "beta"}
    assert repo.annotate(version, labels={"password": "hunter2", "stage": None}).labels["password"] == "***"


def test_a_naive_moment_of_creation_is_local_time(repo: Repository, source: Path) -> None:
    moment = datetime(2026, 3, 1, 12)  # just that is tested
    version = repo.save(source, "m", created_at=moment, provenance={})
    assert datetime.fromisoformat(version.created_at) == moment.astimezone(UTC)


def test_nan_in_the_trainers_state_survives(repo: Repository, source: Path) -> None:
    state = {"global_step": 5, "epoch": 1.0, "log_history": [{"loss": math.nan, "step": 5, "big": 10**400}]}
    (source / "trainer_state.json").write_text(json.dumps(state))
    version = repo.save(source, "m", provenance={})
    assert version.step == 5
    assert math.isnan(version.metrics["loss"])


@pytest.mark.parametrize(
    "text",
    [
        b'{"global_step": 1e999, "epoch": NaN}',
        b'{"global_step": ' + b"9" * 400 + b"}",
        b'{"a":"\xff"}',
        b"[" * 100_000,
    ],
    ids=["infinite", "huge", "no-utf8", "deep"],
)
def test_a_broken_side_file_does_not_cost_the_weights(repo: Repository, source: Path, text: bytes) -> None:
    for name in ("trainer_state.json", "config.json", "adapter_config.json"):
        (source / name).write_bytes(text)
    version = repo.save(source, "m", provenance={})
    assert (version.step, version.epoch) == (None, None)
    assert version.read("config.json") == text


def test_half_surrogates_in_a_side_file_do_not_cost_the_weights(repo: Repository, tmp_path: Path) -> None:
    source = adapter_folder(tmp_path / "src")
    base = {"base_model_name_or_path": f"org/{HALF}", "revision": HALF, "target_modules": [HALF]}
    (source / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 8, **base}))
    row = {"eval_loss": 0.5, HALF: 1.0, "": 2.0, "a\0b": 3.0, " a": 4.0, "k" * 2000: 5.0}
    (source / "trainer_state.json").write_text(json.dumps({"global_step": 5, "log_history": [row]}))
    version = repo.save(source, "m", provenance={})
    assert (version.step, version.metrics) == (5, {"eval_loss": 0.5})
    assert version.base == Base(name_or_path="org/?", revision="?")
    assert repo.check().sound


def test_a_side_file_that_is_too_long_to_be_one_is_not_read() -> None:
    """Holes take no disk, but would take memory."""

    def read(path: str) -> bytes:
        raise AssertionError(f"{path} was read")

    sizes = dict.fromkeys(("adapter_config.json", "config.json", "trainer_state.json"), 3 << 29)
    found = describe(sizes, read)
    assert found == Description(kind="adapter")


@pytest.fixture
def short_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "MAX_RECORD_BYTES", 1 << 15)


@pytest.mark.usefixtures("short_records")
@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("config", {f"key {n}": "no secret " * 10 for n in range(500)}),
        ("data", {f"key {n}": "no secret " * 10 for n in range(500)}),
        ("metrics", {f"metric {n:0900}": 0.5 for n in range(50)}),
        ("message", "no secret " * 10_000),
    ],
)
def test_what_no_record_can_hold_is_refused_by_name_before_it_is_stored(
    repo: Repository, source: Path, argument: str, said: Any
) -> None:
    (source / "config.json").write_text(json.dumps({"model_type": "bert"}))
    before = contents(repo.session.storage)
    given = {"message": "why", "config": {"lr": 0.5}, argument: said}
    with pytest.raises(InvalidArgument, match=rf"^{argument}: the record would be \d+ bytes long"):
        repo.save(source, "m", provenance={}, **given)
    assert contents(repo.session.storage) == before


@pytest.mark.usefixtures("short_records")
def test_a_side_file_that_tells_too_much_for_a_record_does_not_cost_the_weights(
    repo: Repository, source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    much = {f"key {n}": "no secret " * 10 for n in range(500)}
    (source / "config.json").write_text(json.dumps({"model_type": "bert", "quantization_config": much}))
    state = {"global_step": 5, "log_history": [{"step": 5, "loss": 0.5}]}
    (source / "trainer_state.json").write_text(json.dumps(state))
    version = repo.save(source, "m", config={"lr": 0.5}, provenance={})
    assert (version.step, version.metrics, version.config) == (5, {"loss": 0.5}, {"lr": 0.5})
    assert [r.message for r in caplog.records] == [
        "the config that the folder's own files tell is left out: too long for a record"
    ]
    state["log_history"] = [{f"metric {n:0900}": 0.5} for n in range(50)]
    (source / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (source / "trainer_state.json").write_text(json.dumps(state))
    version = repo.save(source, "m", metrics={"loss": 0.25}, provenance={})
    assert (version.step, version.metrics) == (5, {"loss": 0.25})
    assert version.config["model.model_type"] == "bert"
    assert repo.check().sound
