"""`stemmata diff` as people see it: what comes first, what is folded, what is said of what is missing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from makers import adapter_folder, model_folder, safetensors_bytes
from picture_pages import Read
from stemmata.cli.provenances import quoted
from stemmata.cli.styled import cell_len
from stemmata.repository import open as open_repository

Cli = Callable[..., Any]
A, B = "sentiment@r4/epoch-3", "sentiment@r8/epoch-3"


def provenance(torch: str, extra: int, *argv: str, commit: str = "1", **code: object) -> dict[str, bytes]:
    packages = {"torch": torch, "numpy": "2.0", **{f"p{n}": str(extra) for n in range(20)}}
    kept = {
        "packages": packages,
        "environment": {"python": f"3.11.{extra}", "gpus": ["NVIDIA H100"] * extra, "variables": {}},
        "command": {"argv": ["python", "train.py", *argv], "folder": "/desk"},
        "code": {"commit": commit * 40, "branch": "main", "dirty": False, **code},
    }
    return {kind: json.dumps(told).encode() for kind, told in kept.items()}


@pytest.fixture
def twins(shop: Path, tmp_path: Path) -> tuple[str, str]:
    """Two versions that differ in all that a training can be asked of."""
    (work := tmp_path / "twins").mkdir()
    for number, extra in (("a", ""), ("b", "new")):
        folder = model_folder(work / number, seed=1 if number == "a" else 2)
        vocabulary = {"x": 0, "y": 1, **({"<|\x1b[31m|>": 2, "\u202ez": 3} if extra else {})}
        (folder / "tokenizer.json").write_text(json.dumps({"model": {"type": "BPE", "vocab": vocabulary}}))
        (folder / "tokenizer_config.json").write_text(
            json.dumps({"model_max_length": 8, "pad_token": extra or None})
        )
        (folder / "chat_template.jinja").write_text(f"begin\n{extra}{{{{ message }}}}\n")
        (folder / "train.py").write_text(f"lr = {len(extra)}\n")
        kept = provenance("2.12.0", 1, "--lr", "1e-4") if not extra else provenance(
            "2.13.0", 2, "--lr", "2e-4", "--seed", "7", commit="2", dirty=True
        )  # fmt: skip
        with open_repository(".stemmata") as repo:
            repo.save(folder, "twins", name=number, parents=[], provenance=kept)
    return "twins@a", "twins@b"


def test_environment_code_and_tokenizer(twins: tuple[str, str], cli: Cli) -> None:
    out = cli("diff", *twins).out
    words = " ".join(out.split())
    assert "no common ancestor in this repository" in words
    assert "environment 1 equal torch 2.12.0 → 2.13.0 gpus NVIDIA H100 → 2 × NVIDIA H100 python" in words
    assert "others 20 packages: 20 other releases p0, p1, p10, p11, p12, p13 and 14 others" in words
    assert "commit 111111111111 → 222222222222" in words
    assert "uncommitted no changes → changes that no commit has" in words
    assert "command python train.py --lr 1e-4 → 2e-4 --seed 7" in words
    assert "vocabulary 2 → 4" in words
    assert "added + '<|\\x1b[31m|>' 2, '\\u202ez' 3" in words
    assert "pad_token + new" in words
    assert "chat template +1 −1 line" in words
    assert "+new{{ message }}" in words
    assert "train.py ~ 7 B +1 −1 lines" in words
    assert "train.py @@ -1 +1 @@ -lr = 0 +lr = 3" in words
    assert "\x1b[31m" not in out
    assert "\u202e" not in out


def test_a_page_has_environment_code_and_tokenizer_too(twins: tuple[str, str], cli: Cli) -> None:
    assert cli("diff", *twins, "--html", "twins.html").code == 0
    html = Path("twins.html").read_text(encoding="utf-8")
    words = " ".join(Read(html).lines)
    assert "no common ancestor in this repository" in words
    assert "Environment a b torch 2.12.0 2.13.0 gpus NVIDIA H100 2 × NVIDIA H100 python" in words
    assert "20 others a b p0 1 2 p1 1 2" in words
    assert f"Code a b commit {'1' * 40} {'2' * 40} uncommitted changes no yes" in words
    assert "command python train.py --lr 1e-4 python train.py --lr 2e-4 --seed 7" in words
    assert "Tokenizer a b tokens 2 4 pad_token – new" in words
    assert "2 tokens came token number '<|\\x1b[31m|>' 2 '\\u202ez' 3" in words
    assert "chat template: +1 −1 lines @@ -1,2 +1,2 @@ begin -{{ message }} +new{{ message }}" in words
    assert "train.py: +1 −1 lines @@ -1 +1 @@ -lr = 0 +lr = 3" in words
    assert "\x1b" not in html
    cli("redact", twins[0], "packages", "--why", "secret", "-y")
    cli("diff", *twins, "--html", "twins.html")
    words = " ".join(Read(Path("twins.html").read_text(encoding="utf-8")).lines)
    assert "packages: of a redacted on" in words
    assert "2.12" not in words


def test_a_page_of_several_versions_has_a_column_each(twins: tuple[str, str], shop: Path, cli: Cli) -> None:
    assert json.loads(cli("diff", A, B, *twins, "--html", "four.html", "--json").out) == {"html": "four.html"}
    words = " ".join(Read(Path("four.html").read_text(encoding="utf-8")).lines)
    assert "Comparison of 4 versions" in words
    assert f"a {A}" in words
    assert "Metrics a b c d eval_loss ↓" in words
    assert "Environment" in words
    assert re.search(r"torch \S+ \S+ 2\.12\.0 2\.13\.0", words)
    assert re.search(r"\d+ others a b c d", words)
    assert cli("diff", A, B, *twins, "--heatmap").code == 2


def test_full_folds_nothing(twins: tuple[str, str], cli: Cli) -> None:
    words = " ".join(cli("diff", *twins, "--full").out.split())
    assert "p19 1 → 2" in words
    assert "others" not in words
    assert "command python train.py --lr 1e-4 → 2e-4 --seed 7" in words


def test_all_of_it_is_json(twins: tuple[str, str], cli: Cli) -> None:
    told = cli("diff", *twins, "--json").json
    assert told["environment"]["changes"][0] == {
        "kind": "package",
        "name": "torch",
        "a": "2.12.0",
        "b": "2.13.0",
    }
    assert len(told["environment"]["changes"]) == 23
    assert told["code"]["git"]["changed"]["dirty"] == {"a": False, "b": True}
    assert told["tokenizer"]["added"] == {"<|\x1b[31m|>": 2, "\u202ez": 3}
    assert told["kinship"] == {"ancestor": None, "steps_a": None, "steps_b": None}


def test_redacted_provenance_says_only_that(twins: tuple[str, str], cli: Cli) -> None:
    for kind in ("packages", "command"):
        cli("redact", twins[0], kind, "--why", "secret", "-y")
    words = " ".join(cli("diff", *twins).out.split())
    assert "packages of a redacted on" in words
    assert "command of a redacted on" in words
    assert "2.12" not in words
    assert "1e-4" not in words


@pytest.mark.parametrize("width", [50, 60, 80, 120])
def test_everything_fits_the_terminal(
    twins: tuple[str, str], cli: Cli, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    for words in (twins, (A, B), (A, B, "sentiment@r4/epoch-1"), (*twins, "--full"), (A, B, "--step", "50")):
        for line in cli("diff", *words).out.split("\n"):
            assert cell_len(line) <= width, words
            assert line == line.rstrip()


def test_layers_that_moved_stand_together_and_the_others_are_named(
    shop: Path, cli: Cli, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    parts = [
        *(f"enc.layer.{n}.{p}.weight" for n in range(6) for p in ("q", "up")),
        "enc.emb.weight",
        "head.weight",
    ]
    first = {name: random.normal(size=(8, 8)).astype(np.float32) for name in parts}
    second = {
        n: x * np.float32(1.01) if n.startswith(("enc.layer.4", "enc.layer.5", "head")) else x
        for n, x in first.items()
    }
    with open_repository(".stemmata") as repo:
        for number, tensors in enumerate((first, second)):
            (tmp_path / "m").mkdir(exist_ok=True)
            (tmp_path / "m" / "model.safetensors").write_bytes(safetensors_bytes(tensors))
            repo.save(tmp_path / "m", "m", name=f"v{number}", provenance={}, parents=["m@v0"] * number)
    lines = [" ".join(line.split()) for line in cli("diff", "m@v0", "m@v1").out.split("\n")]
    assert "b comes from a" in lines
    assert "enc.layer.{4-5} moved 1 %" in lines
    assert "q.weight ~ F32 8×8 ×2 moved 1 %" in lines
    assert "as before enc.emb, enc.layer.{0-3}" in lines
    assert not any(line.startswith("read ") for line in lines)


def test_a_layer_that_differs_from_the_others_is_named(shop: Path, cli: Cli, tmp_path: Path) -> None:
    one = {f"h.{n}.w": np.ones((4, 4), np.float32) * n for n in range(4)}
    two = {name: x + 1 for name, x in one.items()} | {"h.3.w": np.ones((4, 5), np.float32)}
    with open_repository(".stemmata") as repo:
        for number, tensors in enumerate((one, two)):
            (tmp_path / "m").mkdir(exist_ok=True)
            (tmp_path / "m" / "model.safetensors").write_bytes(safetensors_bytes(tensors))
            repo.save(tmp_path / "m", "m", name=f"v{number}", provenance={}, parents=["m@v0"] * number)
    words = " ".join(cli("diff", "m@v0", "m@v1").out.split())
    assert "w of {0-2} ~ F32 4×4 ×3 moved" in words
    assert "w of 3 ≠ F32 4×4 → F32 4×5" in words


def test_packed_tensors_say_what_is_compared(shop: Path, cli: Cli, tmp_path: Path) -> None:
    with open_repository(".stemmata") as repo:
        for number in (0, 1):
            (tmp_path / "m").mkdir(exist_ok=True)
            tensors = {f"h.{n}.q.qweight": np.full((4, 4), number, np.int64) for n in range(2)}
            (tmp_path / "m" / "model.safetensors").write_bytes(safetensors_bytes(tensors))
            repo.save(tmp_path / "m", "m", name=f"v{number}", provenance={}, parents=["m@v0"] * number)
    words = " ".join(cli("diff", "m@v0", "m@v1").out.split())
    assert "q.qweight ~ I64 4×4 ×2 as stored" in words
    assert "as stored GPTQ or AWQ: quantised, packed or of another type" in words
    assert "moved" not in words


def test_metrics_at_a_step_and_where_they_stand(shop: Path, cli: Cli) -> None:
    words = " ".join(cli("diff", A, B, "--step", "100").out.split())
    assert "metrics at step 100" in words
    assert "eval_loss 0.1667 → 0.1" in words
    assert "a step 100, epoch 2: version sentiment@r4/epoch-2" in words
    words = " ".join(cli("diff", A, B, "--epoch", "7").out.split())
    assert "a run r4 has no metrics at epoch 7; it has some at epochs 1, 2, 3" in words
    told = cli("diff", A, B, "--epoch", "1", "--json").json
    assert told["readings"][1]["sources"] == ["version sentiment@r8/epoch-1"]
    assert told["metrics"]["eval_loss"]["direction"] == "min"
    both = cli("diff", A, B, "--epoch", "1", "--step", "50")
    assert both.code == 2
    assert "one of the two" in both.err


def test_three_versions_have_a_column_each_with_the_best_marked(shop: Path, cli: Cli) -> None:
    said = cli("diff", A, B, "sentiment@r8/epoch-1")
    lines = [" ".join(line.split()) for line in said.out.split("\n")]
    assert said.code == 0
    assert "eval_loss ↓ 0.1429 *0.0909 0.1111" in lines
    assert "eval_f1 ↑ *0.8 *0.8 0.6" in lines
    assert "* best; ↓ less is better, ↑ more is" in lines
    assert "lora.r 4 8 8" in lines
    assert "run r4 r8 r8" in lines
    assert "tensors as in a 4 0 0" in lines
    told = cli("diff", A, B, "sentiment@r8/epoch-1", "--json").json
    assert told["metrics"]["eval_loss"]["best"] == [1]
    assert told["config"]["different"]["lora.r"] == [4, 8, 8]
    assert told["at"] is None


def test_many_packages_of_several_versions_are_folded(twins: tuple[str, str], cli: Cli) -> None:
    lines = [" ".join(line.split()) for line in cli("diff", *twins, twins[0]).out.split("\n")]
    assert "torch 2.12.0 2.13.0 2.12.0" in lines
    assert "gpus NVIDIA H100 2 × NVIDIA H100 NVIDIA H100" in lines
    assert "and 20 others: p0, p1, p10, p11, p12, p13, …; --full shows all" in lines
    assert "p19 1 2 1" in [
        " ".join(x.split()) for x in cli("diff", *twins, twins[0], "--full").out.split("\n")
    ]


def test_examples_are_compared_of_two_alone(shop: Path, cli: Cli) -> None:
    said = cli("diff", A, B, "sentiment@r8/epoch-1", "--eval", "sst2")
    assert (said.code, "two versions, not of more" in " ".join(said.err.split())) == (2, True)


@pytest.mark.parametrize(
    "words", [("--eval", "sst2", "--html", "x.html"), ("--eval", "sst2", "--step", "1"), ("--limit", "3")]
)
def test_what_does_not_go_together_is_refused(shop: Path, cli: Cli, words: tuple[str, ...]) -> None:
    said = cli("diff", A, B, *words)
    assert (said.code, "--eval" in said.err) == (2, True)
    assert not Path("x.html").exists()


def test_metrics_that_were_measured_on_other_data_are_said_to_be(shop: Path, cli: Cli) -> None:
    cli("annotate", A, "--metric", "f1=0.8", "--metric", "em=0.7", "--dataset", "dev-v1")
    cli("annotate", B, "--metric", "f1=0.9", "--metric", "em=0.7", "--dataset", "dev-v2")
    third = "sentiment@r8/epoch-1"
    cli("annotate", third, "--metric", "f1=0.7")  # on nobody knows what: nothing is said of it
    said = "em, f1: measured on dev-v1, the other on dev-v2"
    assert said in cli("diff", A, B).out
    told = cli("diff", A, B, "--json").json["metrics"]
    assert told["f1"]["differing_data"] == "measured on dev-v1, the other on dev-v2"
    assert told["eval_loss"]["differing_data"] is None
    assert "f1: measured on dev-v1, the other on dev-v2" in cli("diff", A, B, third).out
    assert "measured on" not in cli("diff", A, third).out
    cli("diff", A, B, "--html", "data.html")
    assert said in Read(Path("data.html").read_text(encoding="utf-8")).words


def test_metrics_of_one_side_alone_are_said_to_be(shop: Path, cli: Cli, tmp_path: Path) -> None:
    with open_repository(".stemmata") as repo:
        repo.save(adapter_folder(tmp_path / "o", 3), "m", name="a", metrics={"x": 1.0}, provenance={})
        repo.save(adapter_folder(tmp_path / "o", 4), "m", name="b", metrics={"y": 2.0}, provenance={})
    words = " ".join(cli("diff", "m@a", "m@b").out.split())
    assert "x 1 only in a" in words
    assert "y 2 only in b" in words
    assert "no metric is on both sides" in words


def test_tokens_are_shown_so_that_nothing_hides_in_them() -> None:
    assert quoted("<|user|>") == "'<|user|>'"
    assert quoted("a\x1b[0m\n\u200b\u202e") == r"'a\x1b[0m\n\u200b\u202e'"
    assert quoted("Ġcafé") == "'Ġcafé'"
    assert len(quoted("x" * 1000)) == 42


@pytest.mark.parametrize(
    ("numbers", "said"),
    [([-0.0, 1.0], "not moved: zeros of another sign"), ([np.nan, 1.0], "but for what is not finite")],
)
def test_what_moved_by_nothing_is_said_to_be_what_it_is(
    shop: Path, cli: Cli, tmp_path: Path, numbers: list[float], said: str
) -> None:
    (work := tmp_path / "zeros").mkdir()
    for name, values in (("a", [0.0, 1.0]), ("b", numbers)):
        tensors = {"w": np.array(values, np.float32)}
        (work / "model.safetensors").write_bytes(safetensors_bytes(tensors))
        assert cli("save", str(work), "zeros", "--name", name).code == 0
    assert said in cli("diff", "zeros@a", "zeros@b").out


def test_the_same_numbers_of_another_type_are_said_to_be(shop: Path, cli: Cli, tmp_path: Path) -> None:
    (work := tmp_path / "types").mkdir()
    for name, dtype in (("a", np.float32), ("b", np.float16)):
        (work / "model.safetensors").write_bytes(safetensors_bytes({"w": np.array([0.0, 1.0], dtype)}))
        assert cli("save", str(work), "types", "--name", name).code == 0
    said = cli("diff", "types@a", "types@b").out
    assert "the same numbers" in said
    assert "zeros of another sign" not in said
