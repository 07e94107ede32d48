"""What descends from a version, was trained on some data, or is loaded on a base, in any model."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from makers import adapter_folder, model_folder
from shelf import Shelf
from stemmata.catalog import selecting
from stemmata.errors import InvalidExpression, VersionNotFound
from stemmata.records import Base
from stemmata.repository import Repository
from stemmata.repository import open as open_repository
from stemmata.version import Version


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    with open_repository(tmp_path / "models", create=True) as opened:
        yield opened


def saved(repo: Repository, tmp_path: Path, model: str, name: str, **more: Any) -> Version:
    made = adapter_folder if "base" in more else model_folder
    seed = len(list(tmp_path.iterdir()))
    parents = more.pop("parents", [])
    return repo.save(made(tmp_path / f"f{seed}", seed), model, name=name, parents=parents, **more)


@pytest.fixture
def family(repo: Repository, tmp_path: Path) -> dict[str, Version]:
    """base - a - b - c; x of another model; merge of b and x; an adapter on c; a child of the adapter."""
    found: dict[str, Version] = {}

    def add(key: str, model: str, *parents: str, **more: Any) -> None:
        ids = [found[p].id for p in parents]
        found[key] = saved(repo, tmp_path, model, key, parents=ids, **more)

    add("base", "tiny")
    add(
        "a",
        "m",
        "base",
        data={"train.dataset": "org/data", "train.fingerprint": "f1", "eval.dataset": "org/test"},
    )
    add("b", "m", "a", config={"dataset_name": 'odd "name" \\ here'})
    add("c", "m", "b")
    add("x", "other", data={"train.rows": 3})
    add("merge", "other", "x", "b")
    on_c = Base(name_or_path="/models/org/c-folder", version=found["c"].id.hex)
    add("adapter", "lora", base=on_c)
    add("child", "lora", "adapter", base=Base(name_or_path="org/hub-model"))
    return found


def names(versions: Any) -> set[str]:
    return {v.name for v in versions}


def test_descendants_are_found_over_merges_bases_and_models(
    repo: Repository, family: dict[str, Version]
) -> None:
    everything = repo.versions()
    assert names(everything.descends_from("tiny@base")) == {"a", "b", "c", "merge", "adapter", "child"}
    assert names(everything.descends_from(family["b"])) == {"c", "merge", "adapter", "child"}
    assert names(everything.descends_from(family["x"].id)) == {"merge"}
    assert names(everything.descends_from(family["c"].short)) == {"adapter", "child"}
    assert names(everything.descends_from("lora@child")) == set()
    assert names(repo.versions("lora").descends_from("tiny@base").where("not name == 'child'")) == {"adapter"}
    repo.alias("m", "production", family["a"])
    assert names(repo.search(None, "descends_from == 'm@production'")) == {
        "b",
        "c",
        "merge",
        "adapter",
        "child",
    }
    assert names(repo.search(None, "descends_from in ['m@c', 'other@x']")) == {"merge", "adapter", "child"}
    assert names(repo.search(None, "descends_from != 'm@a'")) == {"base", "a", "x"}
    with pytest.raises(VersionNotFound):
        everything.descends_from("m@nosuch")


def test_what_was_deleted_is_walked_through_and_not_listed(
    repo: Repository, family: dict[str, Version]
) -> None:
    repo.delete([family["b"]])
    assert names(repo.versions().descends_from("m@a")) == {"c", "merge", "adapter", "child"}
    gone = family["b"].id.hex
    assert names(repo.search(None, f"descends_from == '{gone}'")) == {"c", "merge", "adapter", "child"}


def test_a_parent_that_is_not_here_has_descendants(repo: Repository, tmp_path: Path) -> None:
    shelf = Shelf()
    try:
        shelf.save("m", "a")
        assert selecting.numbers(shelf.connection, "m", expressions=[f"descends_from == '{'ab' * 32}'"]) == []
    finally:
        shelf.close()


def test_data_is_found_by_name_and_fingerprint_but_not_what_was_evaluated_on(
    repo: Repository, family: dict[str, Version]
) -> None:
    for said in ("org/data", "f1"):
        assert names(repo.versions().trained_on(said)) == {"a"}
    assert names(repo.versions().trained_on('odd "name" \\ here')) == {"b"}
    assert names(repo.versions().trained_on("org/test")) == set()
    assert names(repo.versions().trained_on("3")) == set()  # a number of rows is no name
    assert names(repo.search(None, "trained_on ~ 'DATA'")) == {"a"}
    assert names(repo.search("m", "trained_on != 'f1'")) == {"b", "c"}


def test_bases_are_found_by_name_folder_and_version(repo: Repository, family: dict[str, Version]) -> None:
    assert names(repo.versions().from_base("org/hub-model")) == {"child"}
    assert names(repo.versions().from_base("hub-model")) == {"child"}
    assert names(repo.versions().from_base("c-folder")) == {"adapter"}
    assert names(repo.versions().from_base("m@c")) == {"adapter"}
    assert names(repo.versions().from_base(family["c"].short)) == {"adapter"}
    assert names(repo.versions().from_base("folder")) == set()
    assert names(repo.search(None, "from_base ~ 'FOLDER' or from_base == 'hub-model'")) == {
        "adapter",
        "child",
    }


def test_it_is_the_same_from_a_log_that_is_read_anew(
    repo: Repository, family: dict[str, Version], tmp_path: Path
) -> None:
    asked = ("descends_from == 'm@a'", "trained_on == 'f1'", "from_base == 'm@c'")
    before = [names(repo.search(None, each)) for each in asked]
    repo.close()
    for file in (tmp_path / "models" / "cache").glob("catalog*"):
        file.unlink()
    with open_repository(tmp_path / "models") as again:
        assert [names(again.search(None, each)) for each in asked] == before


@pytest.mark.parametrize(
    "text",
    [
        "descends_from < 'm@a'",
        "descends_from ~ 'm@a'",
        "descends_from == 'just words'",
        "descends_from is none",
        "trained_on == none",
        "trained_on > 3",
        "from_base is nan",
        "descends_from in ['m@a', 'x']",
    ],
)
def test_what_means_nothing_is_refused_with_its_place(repo: Repository, text: str) -> None:
    with pytest.raises(InvalidExpression) as told:
        repo.search(None, text)
    assert int(told.value.data["position"]) > 1
    with pytest.raises(InvalidExpression):
        list(repo.versions().sort("descends_from"))


def test_the_walk_goes_along_indexes() -> None:
    """Work grows with what descends, not with what is there."""
    from stemmata.catalog.expression import compile_filter

    shelf = Shelf()
    try:
        shelf.save("m", "a")
        for text in (
            "descends_from == 'm@a'",
            f"descends_from == '{'ab' * 32}'",
            "descends_from == 'abcd12'",
        ):
            made = compile_filter(text)
            sql = f"EXPLAIN QUERY PLAN SELECT v.seq FROM versions v WHERE v.state = 'visible' AND {made.sql}"
            plan = [row[3] for row in shelf.connection.execute(sql, made.parameters)]
            walked = " ".join(plan)
            for index in ("versions_by_parent", "versions_by_base", "more_parents_by_parent"):
                assert walked.count(index) >= 2
            # Neither a child nor a parent is looked for in the whole table.
            assert [step for step in plan if step.startswith(("SCAN c", "SCAN p", "SCAN versions"))] == []
    finally:
        shelf.close()


@given(st.lists(st.lists(st.integers(0, 20), max_size=3), min_size=1, max_size=14), st.integers(0, 20))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_descendants_are_those_of_the_graph(links: list[list[int]], asked: int) -> None:
    shelf = Shelf()
    try:
        made: list[Any] = []
        up: dict[int, set[int]] = {}
        for place, wanted in enumerate(links):
            chosen = sorted({w for w in wanted if w < place})
            made.append(shelf.save(f"m{place % 3}", f"v{place}", parents=[made[w] for w in chosen]))
            up[place] = set(chosen).union(*(up[w] for w in chosen))
        start = asked % len(links)
        text = f"descends_from == '{made[start].hex}'"
        found = {row.name for row in selecting.versions(shelf.connection, expressions=[text])}
        assert found == {f"v{place}" for place, above in up.items() if start in above}
    finally:
        shelf.close()


def test_what_descends_from_a_name_is_asked_of_the_names_of_then(
    repo: Repository, family: dict[str, Version]
) -> None:
    repo.alias("m", "prod", family["a"])
    then = datetime.now(UTC)
    repo.alias("m", "prod", family["b"])
    asked = "descends_from == 'm@prod'"
    assert names(repo.versions("m").where(asked)) == {"c"}
    assert names(repo.versions("m", at=then).where(asked)) == {"b", "c"}
    assert names(repo.versions("m", at=then).where("descends_from in ['m@prod', 'm@b']")) == {"b", "c"}
    assert names(repo.versions("m", at=then).where("descends_from == 'm@a'")) == {"b", "c"}
    repo.unalias("m", "prod")
    gone = datetime.now(UTC)
    assert names(repo.versions("m", at=gone).where(asked)) == set()
    assert names(repo.versions("m", at=then).where(asked)) == {"b", "c"}


@pytest.mark.parametrize("sought", ["m@latest", "m@best", "m@run/latest", "m@prod~1"])
def test_what_is_sought_is_refused_where_a_name_belongs(repo: Repository, sought: str) -> None:
    with pytest.raises(InvalidExpression, match="no latest, best or ~"):
        repo.search(None, f"descends_from == '{sought}'")


def test_a_chain_of_very_many_comparisons_is_refused(repo: Repository, family: dict[str, Version]) -> None:
    with pytest.raises(InvalidExpression, match="more than 256 comparisons"):
        repo.search("m", "1" + "<a<1" * 490)
    assert names(repo.search("m", "1" + "<a<1" * 128)) == set()
