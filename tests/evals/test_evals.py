"""Evals: examples that are kept with a version, and what became of them in another."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faults import Damage, damage
from stemmata import errors
from stemmata.evals import comparing, lines, storing
from stemmata.evals.index import Index
from stemmata.log.ops import VersionAnnotate
from stemmata.repository import Repository
from stemmata.version import Version


@pytest.fixture
def repo() -> Repository:
    return Repository.in_memory()


@pytest.fixture
def pair(repo: Repository, tmp_path: Path) -> tuple[Version, Version]:
    """Two versions of a model."""
    made = []
    for name in ("old", "new"):
        (tmp_path / "file.txt").write_text(name)
        made.append(repo.save(tmp_path / "file.txt", "m", name=name, metrics={"acc": 0.5}, provenance={}))
    return made[0], made[1]


def rows(scores: Iterable[object], **more: Callable[[int], object]) -> list[dict[str, Any]]:
    """Examples 0, 1, … with these scores and what `more` makes of their numbers."""
    return [
        {"id": n, "correct": score, **{k: make(n) for k, make in more.items()}}
        for n, score in enumerate(scores)
    ]


# --- kept -------------------------------------------------------------------------------------------


def test_i3_examples_come_back_byte_for_byte_and_checked(
    repo: Repository, pair: tuple[Version, Version], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storing, "PIECE", 100)  # several pieces
    data = b'\xef\xbb\xbf{"id": 1, "score": NaN}\r\n\n' + b"".join(
        b'{"id": %d, "text": "\xc3\xa4%s"}\n' % (n, b"x" * n) for n in range(30)
    )
    path = tmp_path / "out.jsonl"
    path.write_bytes(data[:-1])  # the last line without its end
    kept = pair[0].add_eval("glue/sst2", metrics={"acc": 0.9}, examples=path, dataset="sst2", source="h 1")
    assert (kept.count, kept.bytes) == (31, len(data) - 1)
    assert len(kept.kinds) > 5
    assert kept.kinds[:2] == ("eval:glue/sst2#1", "eval:glue/sst2#1+2")
    again = Repository(repo.session.storage).get(pair[0].id)
    assert again.evals() == [kept]
    assert b"".join(again.example_lines("glue/sst2")) == data[:-1]
    found = list(again.examples("glue/sst2"))
    assert math.isnan(found[0]["score"])
    assert found[-1]["text"] == "ä" + "x" * 29
    assert (again.metrics["acc"], again.measurements["acc"].dataset.name) == (0.9, "sst2")
    assert repo.check().problems == []


def test_i4_damaged_examples_are_found_and_not_handed_out(
    repo: Repository, pair: tuple[Version, Version]
) -> None:
    storage = repo.session.storage
    before = {k.key for k in storage.list("packs/")}
    pair[0].add_eval("e", examples=rows([1, 0]))
    (key,) = {k.key for k in storage.list("packs/")} - before
    damage(storage, key, Damage.FLIP, 40)
    with pytest.raises(errors.Damage):
        list(Repository(storage).get(pair[0].id).examples("e"))
    assert repo.check().problems


def test_i7_examples_outlive_a_collection_and_a_redaction_ends_them(
    repo: Repository, pair: tuple[Version, Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storing, "PIECE", 20)
    old, new = pair
    old.add_eval("e", examples=rows([1, 0]))
    new.add_eval("e", examples=rows([0, 0, 1]))
    new.add_eval("e", metrics={"acc": 0.1})  # one without examples hides none
    repo.delete(old)
    repo.gc(undo_window=0, grace=0)
    repo.gc(undo_window=0, grace=0)
    assert [e["correct"] for e in new.examples("e")] == [0, 0, 1]
    new.add_eval("e#1+2", examples=rows([1]))  # no piece of it
    # One piece of it may have gone by itself before: the rest goes with the first all the same.
    assert repo.redact(new, ["eval:e#1+2"])[0].kinds == ("eval:e#1+2",)
    erased = repo.redact(new, ["eval:e#1"])
    assert erased[0].kinds == ("eval:e#1", "eval:e#1+3")
    with pytest.raises(errors.Redacted):
        repo.redact(new, ["eval:e#1+2"])
    with pytest.raises(errors.Redacted):
        list(repo.get(new.id).examples("e"))
    with pytest.raises(errors.Redacted):
        repo.diff_evals(new, new, "e")
    new.add_eval("e", examples=rows([1]))
    assert repo.get(new.id).evals()[-1].kinds == ("eval:e#2",)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "it holds no example"),
        (b"\n \n", "it holds no example"),
        (b'{"a":1}\n[1]\n\n{"a":\n"x"\n7\nnull\n{"a":2}', "line 2 is no object, line 4 is not JSON"),
        (b"x\n" * 9, "and 4 more"),
        (b'{"a": "\xff"}\n', "line 1 is not JSON"),
        (b'{"a":1}\n' + b"[" * 100_000 + b"\n", "line 2 is not JSON"),
        (b'{"a":' + b"9" * 5000 + b"}\n", "line 1 is not JSON"),
    ],
)
def test_what_are_no_examples_is_named_by_line_and_adds_nothing(
    repo: Repository, pair: tuple[Version, Version], tmp_path: Path, data: bytes, said: str
) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_bytes(data)
    end = repo.session.catalog.refresh().n
    with pytest.raises(errors.InvalidExamples) as caught:
        pair[0].add_eval("e", examples=path)
    assert said in str(caught.value)
    assert repo.session.catalog.refresh().n == end
    assert pair[0].evals() == []


def test_a_line_without_end_is_refused_before_it_fills_the_memory(
    pair: tuple[Version, Version], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "MAX_LINE", 1000)
    path = tmp_path / "long.jsonl"
    path.write_bytes(b'{"a":1}\n{"a":"' + b"x" * 5000 + b'"}\n{"a":2}\nbroken\n')
    with pytest.raises(errors.InvalidExamples, match=r"line 2 is longer than .*, line 4 is not JSON"):
        pair[0].add_eval("e", examples=path)


def test_other_mistakes_are_named(pair: tuple[Version, Version], tmp_path: Path, repo: Repository) -> None:
    old, _ = pair
    with pytest.raises(errors.SourceMissing):
        old.add_eval("e", examples=tmp_path / "nosuch.jsonl")
    with pytest.raises(errors.UnsupportedFile):
        old.add_eval("e", examples=tmp_path)
    for examples in ([3], [{"a": object()}]):
        with pytest.raises(errors.InvalidExamples):
            old.add_eval("e", examples=examples)  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidArgument):
        old.add_eval("e")
    with pytest.raises(errors.InvalidName):
        old.add_eval("a@1", metrics={"acc": 1})
    with pytest.raises(errors.InvalidArgument):
        repo.annotate(old, labels={"a": "b"}, dataset="sst2")
    with pytest.raises(errors.EvalNotFound, match="those of: none"):
        list(old.examples("e"))
    repo.delete(old)
    with pytest.raises(errors.VersionNotFound):
        old.add_eval("e", examples=rows([1]))


def test_ids_that_occur_twice_are_told_when_they_are_added(pair: tuple[Version, Version]) -> None:
    told: list[list[int]] = []
    pair[0].add_eval("e", examples=[*rows([1, 1]), *rows([0])], told=lambda found: told.append(found.twice))
    assert told == [[3]]


@pytest.mark.parametrize(
    "details",
    [
        {"eval": 7},
        {"eval": {"name": 3}},
        {"eval": {"name": "e", "examples": 3}},
        {"eval": {"name": "e", "examples": {"count": -1, "bytes": "x", "objects": ["nosuch", 4]}}},
        {"eval": {"name": "e"}, "measured": [1]},
    ],
)
def test_what_others_say_of_an_eval_may_be_anything(
    repo: Repository, pair: tuple[Version, Version], details: dict[str, object]
) -> None:
    op = VersionAnnotate(version=pair[0].id.hex, details=details)
    repo.session.commit(lambda _: [op])
    for each in repo.get(pair[0].id).evals():
        assert (each.count, each.bytes, each.kinds) == (0, 0, ())
    with pytest.raises(errors.EvalNotFound):
        list(repo.get(pair[0].id).examples("e"))


# --- compared ---------------------------------------------------------------------------------------


def test_fixed_broken_and_what_stayed(repo: Repository, pair: tuple[Version, Version]) -> None:
    old, new = pair
    old.add_eval("e", examples=rows([True, False, True, False, True, True], output=lambda n: f"a{n}"))
    after = rows([True, True, False, False, False, None], output=lambda n: f"b{n}")
    new.add_eval("e", examples=[*reversed(after), {"id": "more", "correct": 1}, {"correct": 1}])
    found = repo.diff_evals(old, new, "e", show=1)
    assert found.summary == "1 fixed, 2 broken"
    assert (found.right, found.wrong, found.unchanged, found.unscored) == (1, 1, 2, 1)
    assert (found.only_a, found.only_b, found.unkeyed_a, found.unkeyed_b) == (0, 1, 0, 1)
    assert (found.matched_by, found.key, found.score, found.binary) == ("id", "id", "correct", True)
    assert [(c.line_a, c.line_b, c.a["output"], c.b["output"]) for c in found.fixed] == [(2, 5, "a1", "b1")]
    assert [(c.line_a, c.line_b) for c in found.broken] == [(5, 2)]
    assert (found.mean_a, found.mean_b) == (0.6, 0.4)
    json.dumps(found.to_dict())


def test_ids_match_whatever_their_type_and_twice_is_not_compared(
    repo: Repository, pair: tuple[Version, Version]
) -> None:
    old, new = pair
    long = "x" * 500
    old.add_eval("e", examples=[{"id": i, "correct": 0} for i in (1, 2, 2, "a", "a", long)])
    new.add_eval("e", examples=[{"id": i, "correct": 1} for i in ("1", "2", "a", "3", long)])
    found = repo.diff_evals(old, new, "e")
    assert (found.better, found.only_a, found.only_b) == (2, 0, 1)
    assert (found.twice_a, found.twice_b, found.twice_named) == (2, 0, ("2", "a"))
    # As a data frame writes them once one is missing.
    old.add_eval("floats", examples=[{"id": i, "correct": 0} for i in (7.0, 7.5, -0.0)])
    new.add_eval("floats", examples=[{"id": i, "correct": 1} for i in (7, 7.5, 0)])
    assert repo.diff_evals(old, new, "floats").better == 3


def test_text_that_was_cut_within_a_character_matches_like_any_other(
    repo: Repository, pair: tuple[Version, Version], tmp_path: Path
) -> None:
    path = tmp_path / "out.jsonl"
    for version, right in zip(pair, ("false", "true"), strict=True):
        asked = (r'"abc \ud83d"', r'"abc \ud83c"', r'{"b": 1, "a": "\ude00"}', '"abc"')
        path.write_text("".join(f'{{"input": {each}, "correct": {right}}}\n' for each in asked))
        version.add_eval("e", examples=path)
    found = repo.diff_evals(*pair, "e")
    assert (found.matched_by, found.better, found.only_a, found.twice_a) == ("inputs", 4, 0, 0)


def test_choosing_examples_to_show_takes_no_longer_for_each_than_for_one() -> None:
    class Counted(set[int]):
        looks = 0

        def __iter__(self) -> Iterator[int]:
            self.looks += 1
            return super().__iter__()

    wanted = Counted({1, 3})
    picked = comparing._picked((b'{"n": %d}' % n for n in range(9)), wanted)
    assert (picked, wanted.looks) == ({1: {"n": 0}, 3: {"n": 2}}, 1)


def test_without_ids_the_inputs_match_and_without_them_the_lines(
    repo: Repository, pair: tuple[Version, Version]
) -> None:
    old, new = pair
    asked: list[dict[str, Any]] = [{"prompt": {"q": q}, "context": "c", "score": 0} for q in "abc"]
    old.add_eval("e", examples=asked)
    new.add_eval("e", examples=[{**each, "score": 1} for each in reversed(asked)])
    found = repo.diff_evals(old, new, "e")
    assert (found.matched_by, found.key, found.better) == ("inputs", "context and prompt", 3)
    old.add_eval("l", examples=[{"acc": 0}, {"acc": 1}])
    new.add_eval("l", examples=[{"acc": 1}, {"acc": 1}, {"acc": 1}])
    found = repo.diff_evals(old, new, "l")
    assert (found.matched_by, found.better, found.right, found.only_b) == ("line", 1, 1, 1)


def test_key_and_score_can_be_chosen_also_inside(repo: Repository, pair: tuple[Version, Version]) -> None:
    old, new = pair
    old.add_eval("e", examples=[{"doc": {"key": k}, "r": {"loss": k * 1.0}} for k in (1, 2, 3, 4)])
    new.add_eval("e", examples=[{"doc": {"key": k}, "r": {"loss": 2.0}} for k in (4, 3, 2, 1)])
    found = repo.diff_evals(old, new, "e", key="doc.key", score="r.loss")
    assert (found.direction, found.binary, found.summary) == ("min", False, "2 improved, 1 worsened")
    assert (found.unchanged, found.right, found.wrong) == (1, 0, 0)
    found = repo.diff_evals(old, new, "e", key="line", score="r.loss")
    assert (found.better, found.worse) == (2, 1)
    with pytest.raises(errors.InvalidArgument, match="no field says how good"):
        repo.diff_evals(old, new, "e")
    with pytest.raises(errors.InvalidArgument, match="no example has a number in 'doc'"):
        repo.diff_evals(old, new, "e", key="line", score="doc")
    with pytest.raises(errors.InvalidArgument, match="no example has nosuch on both sides"):
        repo.diff_evals(old, new, "e", key="nosuch", score="r.loss")
    with pytest.raises(errors.InvalidArgument):
        repo.diff_evals(old, new, "e", show=-1)
    with pytest.raises(errors.EvalNotFound, match="those of: e"):
        repo.diff_evals(old, new, "f")


def test_of_errors_that_are_there_or_not_fewer_are_better(
    repo: Repository, pair: tuple[Version, Version]
) -> None:
    for version, errs in zip(pair, ([0, 1, 1, 0, 0], [1, 0, 0, 0, 0]), strict=True):
        version.add_eval("e", examples=[{"id": n, "error": err} for n, err in enumerate(errs)])
    found = repo.diff_evals(*pair, "e", score="error")
    assert (found.binary, found.direction, found.summary) == (True, "min", "2 fixed, 1 broken")
    assert (found.right, found.wrong, [c.a["id"] for c in found.broken]) == (2, 0, [0])


def test_other_data_is_said(repo: Repository, pair: tuple[Version, Version]) -> None:
    old, new = pair
    old.add_eval("e", examples=rows([1]), dataset="v1")
    new.add_eval("e", examples=rows([1]), dataset="v2")
    assert repo.diff_evals(old, new, "e").differing_data == "measured on v1, the other on v2"


_SCORES = st.lists(st.tuples(st.integers(0, 6), st.sampled_from([0, 1, None])), max_size=12)


@settings(max_examples=60, deadline=None)
@given(_SCORES, _SCORES)
def test_the_table_counts_as_a_dictionary_does(
    a: list[tuple[int, int | None]], b: list[tuple[int, int | None]]
) -> None:
    def once(rows: list[tuple[int, int | None]]) -> dict[int, int | None]:
        keys = [key for key, _ in rows]
        return {key: score for key, score in rows if keys.count(key) == 1}

    one, two = once(a), once(b)
    with Index() as index:
        for side, some in (("a", a), ("b", b)):
            for line, (key, score) in enumerate(some, start=1):
                index.add(side, line, bytes([key]), score)
        index.settle()
        counts = index.counts(all="1", better="(a.score < b.score)", none="a.score IS NULL")
        both = one.keys() & two.keys()
        assert counts == {
            "all": len(both),
            "better": sum(1 for k in both if (one[k], two[k]) == (0, 1)),
            "none": sum(1 for k in both if one[k] is None),
        }
        assert index.alone("a") == len(one.keys() - {k for k, _ in b})
        assert index.count_twice("b") == len({k for k, _ in b}) - len(two)


def test_each_way_of_reading_an_answer_is_compared_with_its_own(
    repo: Repository, pair: tuple[Version, Version]
) -> None:
    for version, right in zip(pair, (0.0, 1.0), strict=True):
        examples = [
            {"doc_id": n, "filter": way, "exact_match": right if way == "strict" else 0.5}
            for way in ("strict", "flexible")
            for n in range(150)
        ]
        version.add_eval("gsm8k", examples=examples)
        version.add_eval("twice", examples=[{"doc_id": n % 2, "acc": right} for n in range(4)])
    found = repo.diff_evals(*pair, "gsm8k")
    assert (found.key, found.better, found.unchanged, found.twice_a) == ("doc_id and filter", 150, 150, 0)
    with pytest.raises(errors.InvalidArgument, match="do not differ by doc_id"):
        repo.diff_evals(*pair, "twice")
    # Elsewhere a filter may be an answer, which differs from run to run.
    for version, word in zip(pair, ("ok", "blocked"), strict=True):
        version.add_eval(
            "safe", examples=[{"id": n, "filter": word if n else "ok", "acc": 1} for n in range(9)]
        )
    found = repo.diff_evals(*pair, "safe")
    assert (found.key, found.right, found.only_a) == ("id", 9, 0)


def test_what_no_example_shares_is_told_and_nothing_is_matched_by_what_is_not_there(
    repo: Repository, pair: tuple[Version, Version]
) -> None:
    old, new = pair
    old.add_eval("apart", examples=[{"id": n, "correct": 1} for n in (1, 1, *range(2, 50))])
    new.add_eval("apart", examples=[{"id": n, "correct": 1} for n in range(100, 150)])
    found = repo.diff_evals(old, new, "apart")
    assert (found.better, found.worse, found.only_a, found.only_b, found.twice_a) == (0, 0, 48, 50, 1)
    # Two lines without an id are not one example.
    for version, right in ((old, 1.0), (new, 0.0)):
        lines = [{"doc_id": n, "filter": "none", "acc": 1.0} for n in range(4)]
        version.add_eval("odd", examples=[*lines, {"filter": "none", "acc": right, "text": version.name}])
    found = repo.diff_evals(old, new, "odd")
    assert (found.better, found.worse, found.unkeyed_a, found.unkeyed_b) == (0, 0, 1, 1)
    # One way of reading that each side calls something else is one.
    for version, way in ((old, "none"), (new, "strict-match")):
        version.add_eval("ways", examples=[{"doc_id": n, "filter": way, "acc": 1.0} for n in range(5)])
    found = repo.diff_evals(old, new, "ways")
    assert (found.key, found.right, found.only_a) == ("doc_id", 5, 0)


def test_an_input_that_is_null_is_one_of_the_inputs(repo: Repository, pair: tuple[Version, Version]) -> None:
    for version, right in zip(pair, (0, 1), strict=True):
        asked = [{"question": q, "context": c, "correct": right} for q in "ab" for c in (None, "c")]
        version.add_eval("e", examples=asked)
    found = repo.diff_evals(*pair, "e")
    assert (found.matched_by, found.better, found.unkeyed_a, found.twice_a) == ("inputs", 4, 0, 0)


def test_numbers_of_numpy_are_numbers_and_the_case_of_a_name_does_not_matter(
    repo: Repository, pair: tuple[Version, Version]
) -> None:
    for version, right in zip(pair, (False, True), strict=True):
        example = {"id": np.int64(1), "correct": np.bool_(right), "logits": np.array([0.5, 1.0])}
        version.add_eval("MMLU", examples=[example])
    assert list(pair[0].examples("mmlu")) == [{"id": 1, "correct": False, "logits": [0.5, 1.0]}]
    assert repo.diff_evals(*pair, "Mmlu").better == 1
    # One that is written so comes first.
    pair[1].add_eval("mmlu", examples=[{"id": 7}])
    assert [next(iter(pair[1].examples(name)))["id"] for name in ("MMLU", "mmlu", "Mmlu")] == [1, 7, 7]
