"""Several versions side by side: what varies, what is best, what is missing."""

from __future__ import annotations

import json
import math
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from makers import adapter_folder, model_folder
from stemmata.cli.sidebyside import _Line, laid_out
from stemmata.cli.styled import Text, cell_len
from stemmata.compare.many import Comparison, MetricRow, letter, table
from stemmata.records import Run
from stemmata.repository import Repository


def test_rows_are_what_is_not_the_same_in_all() -> None:
    found = table([{"a": 1, "b": None, "c": "x"}, {"a": 1.0, "b": None}, {"a": 1, "b": None, "c": "x"}])
    assert [(row.key, row.values, row.absent) for row in found.rows] == [("c", ("x", None, "x"), (1,))]
    assert found.same == 2
    assert found.to_dict() == {"different": {"c": ["x", None, "x"]}, "absent": {"c": [1]}, "same": 2}


@pytest.mark.parametrize(
    ("values", "direction", "best"),
    [
        ((0.5, 0.25, 0.25, None), "min", (1, 2)),
        ((0.5, 0.25, math.nan), "max", (0,)),
        ((0.5, 0.5, None), "max", ()),
        ((0.5, 0.25), None, ()),
        ((None, 0.5), "min", ()),
        ((math.inf, 1.0, -math.inf), "min", (2,)),
    ],
)
def test_the_best_with_ties_and_direction(values: Any, direction: str | None, best: tuple[int, ...]) -> None:
    assert MetricRow("m", values, direction).best == best


def test_versions_are_called_by_letters() -> None:
    assert [letter(n) for n in (0, 25, 26, 27, 701, 702)] == ["a", "z", "aa", "ab", "zz", "aaa"]
    assert len({letter(n) for n in range(3000)}) == 3000


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    repo = Repository.in_memory()
    for place, (rank, torch) in enumerate(((4, "2.12"), (8, "2.13"), (16, "2.13"))):
        kept = {"packages": json.dumps({"torch": torch, "attrs": "1"}).encode()}
        folder = adapter_folder(tmp_path / str(rank), seed=rank, rank=rank)
        repo.save(
            folder, "m", name=f"r{rank}", run=Run(str(rank), f"r{rank}"), step=10 * place, provenance=kept,
            metrics={"eval_loss": 1 / rank, "acc": 0.5, **({"late": 1.0} if place else {})},
            config={"lr": 1e-4 * rank, "seed": 0}, data={"train.rows": 10},
        )  # fmt: skip
    return repo


def test_three_versions_have_a_column_each(repo: Repository) -> None:
    found = repo.diff("m@r4", "m@r8", "m@r16")
    assert isinstance(found, Comparison)
    assert len(found) == 3
    assert found.labels == ("m@r4", "m@r8", "m@r16")
    metrics = {row.key: row for row in found.metrics}
    assert list(metrics) == ["eval_loss", "acc", "late"]
    assert (metrics["eval_loss"].direction, metrics["eval_loss"].best) == ("min", (2,))
    assert metrics["acc"].same
    assert metrics["late"].values == (None, 1.0, 1.0)
    config = {row.key: row.values for row in found.config.rows}
    assert config["lora.r"] == (4, 8, 16)
    assert config["lr"] == (4e-4, 8e-4, 16e-4)
    assert "seed" not in config
    assert [(row.key, row.values) for row in found.environment.rows] == [
        ("package:torch", ("2.12", "2.13", "2.13"))
    ]
    assert found.environment.same == 1
    assert {row.key: row.values for row in found.lora.rows}["rank"] == (4, 8, 16)
    assert {row.key: row.values for row in found.weights.rows}["tensors as in a"] == (4, 0, 0)
    assert {row.key: row.values for row in found.about.rows}["run"] == ("r4", "r8", "r16")
    assert not found.data


def test_the_declared_metric_and_direction_count(repo: Repository) -> None:
    repo.configure("m", metric="late", direction="min")
    found = repo.diff("m@r4", "m@r8", "m@r16")
    assert next((row.key, row.direction) for row in found.metrics) == ("late", "min")


def test_it_is_json_and_a_frame(repo: Repository) -> None:
    found = repo.diff("m@r4", "m@r8", "m@r16", "m@r4")
    told = json.loads(json.dumps(found.to_dict()))
    assert [each["name"] for each in told["versions"]] == ["m@r4", "m@r8", "m@r16", "m@r4"]
    assert told["metrics"]["eval_loss"] == {
        "values": [0.25, 0.125, 0.0625, 0.25],
        "direction": "min",
        "best": [2],
        "differing_data": None,
    }
    assert told["metrics"]["late"]["values"] == [None, 1.0, 1.0, None]
    frame = found.to_pandas()
    assert list(frame.index) == ["m@r4", "m@r8", "m@r16", "m@r4"]
    assert list(frame["config.lora.r"]) == [4, 8, 16, 4]
    assert list(frame["environment.package:torch"]) == ["2.12", "2.13", "2.13", "2.12"]
    assert "config.seed" not in frame


def test_a_version_without_provenance_is_left_out_and_named(repo: Repository, tmp_path: Path) -> None:
    repo.save(model_folder(tmp_path / "plain"), "m", name="plain", provenance={})
    found = repo.diff("m@r8", "m@r16", "m@plain")
    assert not found.environment
    assert found.unknown == {"packages": "c: not kept"}
    assert [row.values for row in found.config.rows if row.key == "lora.r"] == [(8, 16, None)]
    repo.redact("m@r8", "packages", why="x")
    (why,) = repo.diff("m@r8", "m@r16", "m@plain").unknown.values()
    assert why.startswith("a: redacted on ")
    assert "c: not kept" in why


# --- layout -------------------------------------------------------------------------------------------

words = st.text(string.ascii_letters + string.digits + "/. é界", min_size=1, max_size=24).filter(
    lambda word: word == word.strip()
)


@given(
    st.integers(1, 9).flatmap(
        lambda n: st.tuples(
            st.just([letter(k) for k in range(n)]),
            st.dictionaries(
                st.text(string.ascii_lowercase + ".", min_size=1, max_size=40),
                st.lists(words, min_size=n, max_size=n),
                min_size=1,
                max_size=8,
            ),
        )
    ),
    st.integers(50, 160),
    st.booleans(),
)
def test_a_table_fits_and_shows_every_version(
    made: tuple[list[str], Mapping[str, list[str]]], width: int, right: bool
) -> None:
    letters, rows = made
    lines = [_Line(key, [Text(word) for word in values]) for key, values in rows.items()]
    blocks = [block.plain for block in laid_out(lines, letters, width, right=right)]
    shown = "\n".join(blocks).split("\n")
    assert all(cell_len(line) <= width for line in shown)
    assert all(line == line.rstrip() for line in shown)
    for mark in letters:
        assert any(mark in line.split() for line in shown)


def _table(values: list[str], width: int) -> list[str]:
    line = _Line("k", [Text(value) for value in values])
    (block,) = laid_out([line], ["a", "b"], width, right=False)
    return block.plain.split("\n")[1].split()[1:]


def test_values_that_are_cut_are_still_told_apart() -> None:
    paths = ["/data/corpora/reviews/2026/january.jsonl", "/data/corpora/reviews/2026/february.jsonl"]
    for width in (50, 60, 70):
        first, second = _table(paths, width)
        assert first != second
        assert first.startswith("…") == second.startswith("…") == (width < 70)
    first, second = _table(["aaaa" + "x" * 50, "bbbb" + "x" * 50], 50)
    assert first.startswith("aaaax")
    assert second.startswith("bbbbx")


def test_many_versions_of_few_keys_have_a_line_each() -> None:
    letters = [letter(n) for n in range(20)]
    lines = [_Line("eval_loss", [Text(f"0.{n}") for n in range(20)])]
    (block,) = laid_out(lines, letters, 80, right=True)
    shown = block.plain.split("\n")
    assert shown[0].split() == ["eval_loss"]
    assert [line.split() for line in shown[1:3]] == [["a", "0.0"], ["b", "0.1"]]
    assert len(shown) == 21
