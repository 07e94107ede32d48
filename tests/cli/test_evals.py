"""Evals on the command line: annotate, show, diff --eval, search by what was measured on what."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]
A, B = "sentiment@r4/epoch-3", "sentiment@r8/epoch-3"


def _write(path: Path, scores: list[int], **more: object) -> Path:
    lines = [
        json.dumps({"id": f"q{n}", "input": f"What is {n}?", "correct": s, **more})
        for n, s in enumerate(scores)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_examples_are_kept_shown_and_compared(shop: Path, cli: Cli) -> None:
    a, b = _write(shop / "a.jsonl", [1, 0, 0, 1]), _write(shop / "b.jsonl", [1, 1, 1, 0], note="\x1b[31mred")
    added = cli(
        *("annotate", A, "--eval", "primes", "--examples", a, "--metric", "primes_acc=0.5"),
        *("--dataset", "primes-v1", "--source", "harness 2", "--label", "seen=yes", "--json"),
    ).json
    assert added["version"]["labels"] == {"seen": "yes"}
    wanted = {"name": "primes-v1", "fingerprint": None}
    assert (added["eval"]["examples"], added["eval"]["dataset"]) == (4, wanted)
    said = cli("annotate", B, "--examples", b, "--dataset", "primes", "--metric", "primes_acc=0.75")
    assert "eval primes: 4 examples" in said.out
    shown = cli("show", A)
    assert re.search(r"added later, \d{4}-\d\d-\d\d \d\d:\d\d by ", shown.out)
    assert "on primes-v1, with harness 2" in shown.out
    document = cli("show", A, "--json").json
    assert document["measured"]["primes_acc"]["dataset"] == wanted
    assert document["measured"]["eval_loss"]["later"] is False
    assert document["evals"][0]["kind"] == "eval:primes#1"
    assert cli("show", A, "--examples", "primes").out == a.read_text()
    compared = cli("diff", A, B, "--eval", "primes", "-n", "1")
    assert "2 fixed, 1 broken; 1 right and 0 wrong in both" in compared.out
    assert "What is 1?" in compared.out
    assert "What is 2?" not in compared.out
    assert "\x1b[31m" not in compared.out
    assert "they may not be the same examples: measured on primes-v1, the other on primes" in compared.err
    told = cli("diff", A, B, "--eval", "primes", "--json").json
    assert (told["better"], told["worse"], told["matched_by"], len(told["fixed"])) == (2, 1, "id", 2)
    words = ("promote", B, "production", "--require", "primes_acc > @r4/epoch-3.primes_acc", "--json")
    gate = cli(*words)
    assert (gate.code, "measured on primes, the other on primes-v1" in gate.out) == (8, True)
    cli("annotate", B, "--metric", "primes_acc=0.75", "--dataset", "primes-v1")
    assert cli(*words).code == 0


def test_metrics_are_found_by_what_they_were_measured_on(shop: Path, cli: Cli) -> None:
    def found() -> list[str]:
        expression = "measured_on.acc == 'v1' and acc > 0.5"
        return [v["name"] for v in cli("search", "sentiment", expression, "--json").json["versions"]]

    cli("annotate", A, "--metric", "acc=0.6", "--dataset", "v1")
    cli("annotate", B, "--metric", "acc=0.7", "--dataset", "v2", "--fingerprint", "abc")
    assert found() == ["r4/epoch-3"]
    cli("annotate", B, "--metric", "acc=0.8", "--dataset", "v1")
    assert sorted(found()) == ["r4/epoch-3", "r8/epoch-3"]
    cli("annotate", A, "--metric", "acc=0.9")  # measured on nobody knows what
    assert found() == ["r8/epoch-3"]
    nobody = cli("search", "sentiment", "measured_on.acc is none and acc is not none", "--json").json
    assert [v["name"] for v in nobody["versions"]] == ["r4/epoch-3"]
    assert cli("search", "sentiment", "acc == 'v1'", "--json").json["total"] == 0


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("annotate", A, "--examples", "good.jsonl"), 2, "say of which eval"),
        (("annotate", A, "--examples", "bad.jsonl", "--eval", "e"), 2, "line 2 is not JSON"),
        (("annotate", A, "--examples", "nosuch.jsonl", "--eval", "e"), 3, "does not exist"),
        (("annotate", A, "--eval", "e"), 2, "give metrics or examples"),
        (("annotate", A, "--dataset", "e", "--label", "a=b"), 2, "said of metrics"),
        (("annotate", A, "--eval", "a b", "--metric", "x=1"), 2, "cannot be a name"),
        (("diff", A, B, "--eval", "e"), 3, "has no examples of an eval 'e'"),
        (("diff", A, B, "--key", "id"), 2, "go with it"),
        (("show", A, "--examples", "e"), 3, "has no examples"),
    ],
)
def test_mistakes_are_named(shop: Path, cli: Cli, words: tuple[str, ...], code: int, said: str) -> None:
    _write(shop / "good.jsonl", [1])
    (shop / "bad.jsonl").write_text('{"id": 1}\n{"id"\n')
    found = cli(*words)
    assert (found.code, found.out) == (code, "")
    assert said in found.err


def test_what_occurs_twice_and_what_has_no_key_is_told(shop: Path, cli: Cli) -> None:
    (shop / "twice.jsonl").write_text('{"id": 1, "score": 0.5}\n' * 2 + '{"id": 2, "score": 0.5}\n')
    (shop / "loose.jsonl").write_text('{"id": 2, "score": 0.7}\n{"score": 1}\n')
    assert "as on line 2" in cli("annotate", A, "--eval", "e", "--examples", "twice.jsonl").err
    cli("annotate", B, "--eval", "e", "--examples", "loose.jsonl")
    found = cli("diff", A, B, "--eval", "e")
    assert "1 improved, 0 worsened; 0 equal" in found.out
    assert "1 example without id" in found.err
    assert "more than once, and so not compared: 1 of a, 0 of b (1)" in found.err
