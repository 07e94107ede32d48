"""What an export tells strangers, and what its script does on a machine that lacks what the first had."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from makers import adapter_folder, model_folder
from stemmata.capture import to_json
from stemmata.exporting.public import public
from stemmata.records import Base, Run
from stemmata.repository import Repository
from stemmata.repository import open as open_repository
from stemmata.version import Version


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    with open_repository(tmp_path / "models", create=True) as opened:
        yield opened


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("/home/ann/My Data/x.jsonl", "x.jsonl"),
        ("/home/ann/a.json,/home/ann/b.json", "a.json,b.json"),
        ("/home/ann/a.json /home/ann/b.json", "a.json b.json"),
        ("~/a.csv, ~/b.csv", "a.csv, b.csv"),
        ("C:\\ann\\a.csv;D:\\ann\\b.csv", "a.csv;b.csv"),
        ("C:\\Users\\Ann Doe\\train.json, C:\\Users\\Ann Doe\\test.json", "train.json, test.json"),
        ("/Users/Ann Doe/train.json,/Users/Ann Doe/test.json", "train.json,test.json"),
        ("/mnt/My Drive/one client/x.json; /tmp/y/z", "x.json; z"),
        ("/home/ann/x/ | ~/y", "x | y"),
        ("</s>/tool/call", "</s>call"),
        ("< /home/ann/x", "< x"),
        ("</home/ann/x", "<x"),
        ("~/x", "x"),
        ("~ann", "~ann"),
        ("~ann/", ""),
        ("C:\\Users\\ann\\x", "x"),
        ("C:/Users/ann/x/", "x"),
        ("\\\\server\\ann\\x", "x"),
        ("../ann/x", "x"),
        ("file:///home/ann/x", "x"),
        ("/", "/"),
        ("lm-eval --path=/home/ann/harness -o '/home/ann/o.json'", "lm-eval --path=harness -o 'o.json'"),
        ("path:/home/ann/x, D:\\ann\\y", "path:x, y"),
        ("data/train.jsonl", "data/train.jsonl"),
        ("//home/ann/secret/x.json", "x.json"),
        ("./../ann/x", "x"),
        ("zip:///home/ann/z.zip", "z.zip"),
        ("gcc -I/home/ann/include -o x", "gcc -Iinclude -o x"),
        ("see //home/ann/x", "see x"),
        ("/no_think", "/no_think"),
        ("owner/name", "owner/name"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("s3://bucket/a/b", "s3://bucket/a/b"),
        ("train and/or test, 1/2", "train and/or test, 1/2"),
        (["/home/ann/a", {"/home/ann/b": "/home/ann/c", "n": 1}], ["a", {"b": "c", "n": 1}]),
        (0.5, 0.5),
        (None, None),
    ],
)
def test_of_a_path_of_a_machine_the_last_name_is_shown(value: object, shown: object) -> None:
    assert public(value) == shown


def test_no_card_tells_whose_machine_it_was(repo: Repository, tmp_path: Path) -> None:
    home = "/home/ann"
    arguments = {
        "learning_rate": 2e-5,
        "train_file": [f"{home}/a.jsonl"],
        "model_init_kwargs": {"cache_dir": f"{home}/cache"},
        "deepspeed": {"path": f"{home}/ds.json"},
        "data_dir": "../ann/data",
    }
    version = repo.save(
        model_folder(tmp_path / "a"),
        "m",
        config={"dataset": f"{home}/d.jsonl", "lora.r": 8, "lora.layers": [f"{home}/l"]},
        data={"train.files": [f"{home}/part1.jsonl"], "train.path": f"{home}/part1.jsonl", "train.rows": 10},
        base=Base("C:\\Users\\ann\\models\\bert"),
        provenance={"training_arguments": to_json(arguments)},
    )
    repo.annotate(version, metrics={"f1": 0.5}, dataset=f"{home}/test.jsonl", source=f"eval --with {home}/h")
    card = repo.get(version.id).card()
    assert "ann" not in card
    for shown in ("a.jsonl", "ds.json", "part1.jsonl", "test.jsonl", "eval --with h", "named `bert`"):
        assert shown in card


def test_an_adapter_from_a_folder_is_loaded_on_the_class_of_its_task(
    repo: Repository, tmp_path: Path
) -> None:
    folder = adapter_folder(tmp_path / "a")
    base = model_folder(tmp_path / "out" / "base")
    settings = json.loads((folder / "adapter_config.json").read_text())
    settings |= {"task_type": "CAUSAL_LM", "base_model_name_or_path": "out/base"}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    (folder / "README.md").write_text("---\nbase_model: out/base\nlibrary_name: peft\n---\n")
    version = repo.save(folder, "m", base=Base(str(base)))
    card = version.card()
    assert 'AutoModelForCausalLM.from_pretrained("base")' in card
    assert "base_model: out/base" not in card
    assert "AutoModelForCausalLM" in version.script()
    # What somebody says themselves is a name on the hub, of a mirror in such a folder too.
    labelled = repo.save(folder, "m", base=Base(str(base)), labels={"base_model": "out/base"})
    assert "base_model: out/base" in labelled.card()
    settings["base_model_name_or_path"] = str(base)
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    assert "base_model: out/base" in repo.save(folder, "m", base=Base(str(base))).card()
    # Of another folder it tells nothing: there it is a name on the hub.
    (folder / "README.md").write_text("---\nbase_model: owner/base\n---\n")
    assert "base_model: owner/base" in repo.save(folder, "m", base=Base(str(base))).card()


def trained(repo: Repository, folder: Path, arguments: dict[str, Any], **more: Any) -> Version:
    provenance = {"training_arguments": to_json(arguments)}
    config = {"model.architecture": "GPT2LMHeadModel"}
    return repo.save(model_folder(folder), "m", provenance=provenance, config=config, **more)


def test_a_script_asks_for_no_metric_that_it_cannot_compute(repo: Repository, tmp_path: Path) -> None:
    said = {
        "eval_strategy": "epoch",
        "save_strategy": "best",
        "load_best_model_at_end": True,
        "metric_for_best_model": "accuracy",
        "greater_is_better": True,
        "lr_scheduler_type": "reduce_lr_on_plateau",
    }
    script = trained(repo, tmp_path / "a", said).script()
    for gone in ("metric_for_best_model", "greater_is_better", '"save_strategy": "best"'):
        assert gone not in script
    assert "the learning rate followed accuracy" in script
    assert "the best by accuracy alone was saved" in script


def test_a_script_without_data_to_evaluate_on_says_what_needs_it(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "a b"}\n')
    said = {"eval_strategy": "epoch", "lr_scheduler_type": "reduce_lr_on_plateau"}
    defined: dict[str, Any] = {"__name__": "exported"}
    exec(compile(trained(repo, tmp_path / "a", said).script(), "train.py", "exec"), defined)
    monkeypatch.setattr(sys, "argv", ["train.py", "--base", "none", "--data", str(rows)])
    with pytest.raises(SystemExit) as stopped:
        defined["main"]()
    assert stopped.value.code == "the learning rate follows the evaluation: give --eval-data"


def test_a_script_says_that_what_it_began_from_was_deleted(repo: Repository, tmp_path: Path) -> None:
    began = repo.save(model_folder(tmp_path / "base"), "m", name="began")
    version = trained(repo, tmp_path / "a", {}, parents=[began], run=Run(id="8" * 32, name="r8"))
    assert f'stored("{began.id.hex}")' in version.script()
    repo.delete(began)
    script = repo.get(version.id).script()
    assert "stored(" not in script
    assert f"version {began.short} (m@began, deleted), that it began from, is not here" in script
    assert "m@began`, deleted" in repo.get(version.id).card()


def test_requirements_keep_the_folder_within_a_repository(repo: Repository, tmp_path: Path) -> None:
    at = {"version": "1.0", "commit": "0" * 40}
    packages = {
        "within": {**at, "url": "https://example.org/a.git", "vcs": "git", "subdirectory": "python"},
        "mercurial": {**at, "url": "https://example.org/b", "vcs": "hg"},
        "here": {**at, "url": "file:///home/ann/c", "vcs": "git"},
    }
    folder = model_folder(tmp_path / "a")
    lines = repo.save(folder, "m", provenance={"packages": to_json(packages)}).requirements().splitlines()
    assert f"within @ git+https://example.org/a.git@{'0' * 40}#subdirectory=python" in lines
    assert f"mercurial @ hg+https://example.org/b@{'0' * 40}" in lines
    assert "# here==1.0: installed from a local folder or file" in lines


def test_every_dataset_of_a_list_is_named(repo: Repository, tmp_path: Path) -> None:
    version = repo.save(model_folder(tmp_path / "a"), "m", config={"dataset": ["own/a", "own/b"]})
    assert "datasets:\n- own/a\n- own/b\n" in version.card()
