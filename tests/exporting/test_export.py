"""Cards, scripts and requirements of versions: read by those that they are written for."""

from __future__ import annotations

import ast
import dataclasses
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.utils import validate_repo_id
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.requirements import Requirement

from makers import adapter_folder, model_folder
from stemmata.capture import to_json
from stemmata.exporting import arguments, writing
from stemmata.records import Base, Run
from stemmata.repository import Repository
from stemmata.repository import open as open_repository
from stemmata.version import Version

PACKAGES = {
    "zzz": "1.0",
    "Torch": "2.6.0+cu124",
    "transformers": "5.1.0",
    "peft": "0.17.1",
    "from-git": {"version": "0.3", "url": "https://example.org/a/b.git", "commit": "0" * 40},
    "private": {"version": "1.0", "url": "git+https://***@example.org/a/b.git@main"},
    "editable": {"version": "0.1", "url": "file:///home/ann/code"},
    "odd": "not a version\n--index-url https://elsewhere.example",
    "bad name!": "1.0",
    "pip": "25.0",
}


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    with open_repository(tmp_path / "models", create=True) as opened:
        yield opened


def saved(repo: Repository, folder: Path, **more: Any) -> Version:
    """An adapter on a model of the hub, as a Trainer's version is recorded."""
    said = {
        "learning_rate": 2e-4,
        "num_train_epochs": 3.0,
        "lr_scheduler_type": "cosine",
        "output_dir": "/home/ann/out",
        "hub_token": "***",
        "seed": 7,
        "gradient_checkpointing": False,
    }
    provenance = {
        "training_arguments": to_json(said),
        "packages": to_json(PACKAGES),
        "environment": to_json({"python": "3.11.7", "platform": "Linux"}),
    }
    settings: dict[str, Any] = {
        "name": "r8/epoch-2",
        "run": Run(id="8" * 32, name="r8"),
        "epoch": 2.0,
        "step": 100,
        "metrics": {"eval_loss": 0.5, "eval_accuracy": 0.75, "eval_runtime": 2.0},
        "config": {**said, "model.architecture": "LlamaForCausalLM"},
        "data": {"train.dataset": "stanfordnlp/imdb", "train.rows": 10, "train.fingerprint": "abc"},
        **more,
    }
    model = settings.pop("model", "sentiment")
    base = Base(name_or_path="meta/tiny", revision="1" * 40)
    return repo.save(adapter_folder(folder), model, base=base, provenance=provenance, **settings)


def header_of(card: str) -> dict[str, Any]:
    """The YAML as the hub's client reads it; it fails for what the client does not take."""
    read = ModelCard(card, ignore_metadata_errors=False)
    plain: dict[str, Any] = yaml.safe_load(card.split("\n---\n")[0].removeprefix("---\n"))
    assert read.data.to_dict().keys() == plain.keys()
    return plain


def test_the_client_of_the_hub_reads_the_card(repo: Repository, tmp_path: Path) -> None:
    first = saved(repo, tmp_path / "a", name="r8/epoch-1", epoch=1.0, step=50, metrics={"eval_loss": 0.9})
    version = saved(repo, tmp_path / "b", parents=[first.id])
    repo.annotate(version, metrics={"accuracy": 1e-5, "f1": float("nan")}, dataset="Panel 3: hard")
    repo.annotate(version, labels={"license": "Apache-2.0"})
    version = repo.get(version.id)
    card = version.card()
    data = ModelCard(card).data
    assert data.library_name == "peft"
    assert data.base_model == "meta/tiny"
    assert data["base_model_relation"] == "adapter"
    assert data.datasets == ["stanfordnlp/imdb"]
    assert data.license == "apache-2.0"
    assert data.pipeline_tag == "text-generation"
    assert "accuracy" in data.metrics
    assert "runtime" not in data.metrics
    (result,) = data.eval_results
    assert (result.dataset_name, result.metric_type, result.metric_value) == (
        "Panel 3: hard",
        "accuracy",
        1e-5,
    )
    validate_repo_id(data.base_model)
    header_of(card)
    body = ModelCard(card).text
    assert "| `learning_rate` | `0.0002` |" in body
    assert "num_train_epochs" not in body  # its default
    assert "| 1 | 50 | 0.9 |" in body
    assert f'stemmata.open()["{version.id.hex}"]' in body
    assert 'from_pretrained("meta/tiny", revision="' + "1" * 40 in body
    assert first.short in body
    assert "/home/ann" not in card


def test_what_is_not_known_stays_out_of_the_card(repo: Repository, tmp_path: Path) -> None:
    version = repo.save(model_folder(tmp_path / "a"), "plain")
    card = version.card()
    data = header_of(card)
    assert data == {"library_name": "transformers", "tags": ["stemmata"]}
    assert "# license: not recorded" in card
    assert "# base_model: no name on the hub was recorded" in card


def test_a_base_in_a_folder_is_no_name_on_the_hub(repo: Repository, tmp_path: Path) -> None:
    base = Base(name_or_path="/home/ann/secret-project/gpt2-base")
    version = repo.save(adapter_folder(tmp_path / "a"), "plain", base=base)
    card = version.card()
    assert "base_model" not in header_of(card)
    assert "/home/ann" not in card
    assert "`gpt2-base`" in card


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("MIT", {"license": "mit"}),
        ("My Own: v2", {"license": "other", "license_name": "my-own-v2"}),
    ],
)
def test_a_license_is_one_of_the_hub_or_named(
    repo: Repository, tmp_path: Path, said: str, wanted: dict[str, str]
) -> None:
    version = saved(repo, tmp_path / "a")
    repo.annotate(version, labels={"license": said})
    found = header_of(repo.get(version.id).card())
    assert {k: v for k, v in found.items() if k.startswith("license")} == wanted


def test_the_license_of_a_readme_among_the_files_is_taken(repo: Repository, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "a")
    readme = (
        "---\nlicense: cc-by-4.0\nbase_model:\n- org/base\ndatasets:\n- org/data\nx: {y: [}\n---\n# Hello\n"
    )
    (folder / "README.md").write_text(readme)
    found = header_of(repo.save(folder, "plain").card())
    assert (found["license"], found["base_model"], found["datasets"]) == (
        "cc-by-4.0",
        "org/base",
        ["org/data"],
    )
    assert found["base_model_relation"] == "finetune"


HOSTILE = [
    'x"\n---\nlicense: mit',
    "| a | b |\n\n# Title",
    "<script>alert(1)</script>",
    "`` ` ``",
    "[a](http://b)",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_words_show_and_do_nothing(repo: Repository, tmp_path: Path, text: str) -> None:
    version = saved(repo, tmp_path / "a", message=text, config={"note": text, "optim": text})
    repo.annotate(version, metrics={"accuracy": 0.5}, dataset=text, source=text)
    card = repo.get(version.id).card()
    data = header_of(card)
    assert "license" not in data
    body = ModelCard(card).text
    assert "<script>" not in body.replace("`<script>alert(1)</script>`", "")
    assert "\n# Title" not in body
    assert "[a](http://b)" not in body.replace("`[a](http://b)`", "")
    lines = body.split("\n")
    for before, line in itertools.pairwise(lines):
        if before.startswith("| ") and line.startswith("| "):
            bars = [each.replace(r"\|", "").count("|") for each in (before, line)]
            assert bars[0] == bars[1]
    script = repo.get(version.id).script()
    ast.parse(script)


@given(st.text(), st.floats(allow_nan=False, allow_infinity=False))
@settings(max_examples=200, deadline=None)
def test_yaml_gives_back_what_was_written(text: str, number: float) -> None:
    surrogates = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    lines = writing.yaml_lines("a", [{"b": text, "c": [text, number]}, {"b": True, "c": 3}])
    assert yaml.safe_load("\n".join(lines)) == {
        "a": [{"b": surrogates, "c": [surrogates, number]}, {"b": True, "c": 3}]
    }


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda v: st.lists(v) | st.dictionaries(st.text(), v),
        max_leaves=6,
    )
)
@settings(max_examples=200, deadline=None)
def test_python_gives_back_what_was_written(value: object) -> None:
    written = writing.python(value)
    assert written.isascii()
    assert eval(written, {"float": float}) == value


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_a_remark_stays_on_its_line_and_in_its_docstring(text: str) -> None:
    source = f'"""{writing.remark(text)}"""\n# {writing.remark(text)}\nx = 1\n'
    assert [type(node) for node in ast.parse(source).body] == [ast.Expr, ast.Assign]


def test_pip_reads_the_requirements(repo: Repository, tmp_path: Path) -> None:
    text = saved(repo, tmp_path / "a").requirements()
    lines = [line.partition("  #")[0] for line in text.splitlines() if line and not line.startswith("#")]
    found = {r.name: str(r.specifier) or r.url for r in map(Requirement, lines)}
    assert found == {
        "Torch": "==2.6.0",
        "transformers": "==5.1.0",
        "peft": "==0.17.1",
        "from-git": f"git+https://example.org/a/b.git@{'0' * 40}",
        "zzz": "==1.0",
    }
    assert list(found)[:3] == ["Torch", "transformers", "peft"]
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert any("Python 3.11.7" in line for line in comments)
    for name in ("private", "editable", "odd", "bad name!", "pip"):
        assert any(line.startswith(f"# {name}") for line in comments)
    assert "/home/ann" not in text


def test_requirements_of_nothing_say_so(repo: Repository, tmp_path: Path) -> None:
    version = repo.save(model_folder(tmp_path / "a"), "plain", provenance={})
    text = version.requirements()
    assert "the packages that were installed: not recorded" in text
    assert all(line.startswith("#") for line in text.splitlines() if line)


def test_what_was_redacted_is_said(repo: Repository, tmp_path: Path) -> None:
    version = saved(repo, tmp_path / "a")
    repo.redact(version, "packages", why="private")
    repo.redact(version, "training_arguments", why="private")
    version = repo.get(version.id)
    assert "the packages that were installed: redacted" in version.requirements()
    assert "trainer's arguments: redacted" in version.card()
    # What the config has of them is still there.
    assert '"lr_scheduler_type": "cosine"' in version.script()


def test_the_script_has_what_differs_from_the_defaults(repo: Repository, tmp_path: Path) -> None:
    script = saved(repo, tmp_path / "a").script()
    ast.parse(script)
    assert '"learning_rate": 0.0002,' in script
    assert '"lr_scheduler_type": "cosine",' in script
    assert "num_train_epochs" not in script
    assert "hub_token" not in script
    assert "SEED = 7" in script
    assert 'default="meta/tiny"' in script
    assert 'default="stanfordnlp/imdb"' in script


def test_a_trainer_that_takes_functions_is_refused_at_the_start(repo: Repository, tmp_path: Path) -> None:
    provenance = {"training_arguments": to_json({"num_generations": 8, "beta": 0.1})}
    version = repo.save(adapter_folder(tmp_path / "a"), "grpo", provenance=provenance)
    script = version.script()
    with pytest.raises(SystemExit, match="GRPOTrainer"):
        exec(compile(script, "train.py", "exec"), {})


def test_the_defaults_are_those_of_the_libraries(tmp_path: Path) -> None:
    from transformers import TrainingArguments
    from trl import SFTConfig

    for config, known in (
        (TrainingArguments, arguments.DEFAULTS),
        (SFTConfig, {**arguments.DEFAULTS, **arguments.OF_SFT, **arguments.SFT_INSTEAD}),
    ):
        fields = {f.name: f for f in dataclasses.fields(config)}
        found = {
            n: fields[n].default
            if fields[n].default is not dataclasses.MISSING
            else fields[n].default_factory()
            for n in known
            if n in fields
        }
        found.pop("bf16", None)  # None in SFTConfig: a choice of its own, so it is always said
        known = {n: v for n, v in known.items() if n != "bf16"}
        assert {n: v for n, v in known.items() if n in found} == found
        assert set(known) - set(found) == set()
    made = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none").to_dict()
    plain = json.loads(json.dumps(made, default=str))
    assert set(arguments.telling(plain, "Trainer")) <= {"use_cpu", "dataloader_pin_memory"}
