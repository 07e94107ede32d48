"""What the catalog answers, now and as of then."""

from __future__ import annotations

import math

import pytest

from shelf import Shelf
from stemmata.catalog import queries, selecting
from stemmata.errors import InvalidExpression
from stemmata.ids import Digest, VersionId
from stemmata.records import Record, decode_record


def names(rows: list[queries.VersionRow]) -> list[str]:
    return [row.name for row in rows]


def test_a_version_row_says_what_its_record_and_entry_say(shelf: Shelf) -> None:
    version = shelf.save(
        "Team/M", "r/e-1", run="r", step=3, epoch=0.5, message="hi", event="epoch", size=7, content="ab" * 32
    )
    row = queries.version_by_id(shelf.connection, version)
    assert row is not None
    assert (row.id, row.model, row.name, row.n, row.at) == (
        version,
        "team/m",
        "r/e-1",
        shelf.n,
        shelf.time(shelf.n),
    )
    assert (row.state, row.run, row.run_id, row.step, row.epoch) == ("visible", "r", "id-of-r", 3, 0.5)
    assert (row.event, row.kind, row.author, row.message) == ("epoch", "files", "me", "hi")
    assert (row.bytes, row.files, row.content) == (7, 1, "ab" * 32)
    assert isinstance(decode_record(row.record, version), Record)
    assert len(row.tree) == 1
    assert queries.version_by_id(shelf.connection, VersionId.of(b"none")) is None


def test_models_are_known_by_key_and_shown_as_first_spelt(shelf: Shelf) -> None:
    shelf.save("Zeta", "a")
    shelf.save("zeta", "b")
    shelf.configure("Alpha", primary_metric="acc", direction="max", odd={"x": [1]})
    assert [(m.key, m.name) for m in queries.models(shelf.connection)] == [
        ("alpha", "Alpha"),
        ("zeta", "Zeta"),
    ]
    assert queries.model_name(shelf.connection, "zeta") == "Zeta"
    assert queries.model_name(shelf.connection, "nowhere") == "nowhere"
    found = {"primary_metric": "acc", "direction": "max", "odd": {"x": [1]}}
    assert queries.settings(shelf.connection, "alpha") == found
    shelf.configure("alpha", direction=None)
    assert "direction" not in queries.settings(shelf.connection, "alpha")


def test_versions_are_newest_first_visible_and_of_the_model(shelf: Shelf) -> None:
    shelf.save("m", "a", run="r")
    gone = shelf.save("m", "b", run="r")
    shelf.save("other", "x")
    shelf.save("m", "c", run="s")
    shelf.delete(gone)
    assert names(selecting.versions(shelf.connection, "m")) == ["c", "a"]
    assert names(selecting.versions(shelf.connection)) == ["c", "x", "a"]
    assert names(selecting.versions(shelf.connection, "m", run="r")) == ["a"]
    assert names(selecting.versions(shelf.connection, "m", run=["r", "s"])) == ["c", "a"]
    assert selecting.versions(shelf.connection, "nowhere") == []
    assert selecting.count_versions(shelf.connection, "m") == 2
    assert queries.runs(shelf.connection, "m") == ["r", "s"]


def test_filters_and_pages_combine(shelf: Shelf) -> None:
    for i in range(7):
        shelf.save("m", f"v{i}", metrics={"loss": i / 10}, config={"r": i % 2})
    found = selecting.versions(shelf.connection, "m", expressions=["loss < 0.6", "r == 1"])
    assert names(found) == ["v5", "v3", "v1"]
    assert selecting.count_versions(shelf.connection, "m", expressions=["loss < 0.6", "r == 1"]) == 3
    assert names(selecting.versions(shelf.connection, "m", limit=2, offset=1)) == ["v5", "v4"]
    page = selecting.versions(shelf.connection, "m", limit=3)
    after = selecting.versions(shelf.connection, "m", limit=3, before=page[-1].seq)
    assert names(page + after) == ["v6", "v5", "v4", "v3", "v2", "v1"]
    with pytest.raises(InvalidExpression):
        selecting.versions(shelf.connection, "m", expressions=["loss <"])
    with pytest.raises(InvalidExpression):
        selecting.check_expression("loss <")
    with pytest.raises(InvalidExpression):
        selecting.check_sort("loss desc")
    assert selecting.check_expression("loss < 1 and r == 2") == ("loss", "r")


def test_sorting_puts_what_has_no_number_last_either_way(shelf: Shelf) -> None:
    values = {"a": 0.5, "b": math.nan, "c": -math.inf, "d": 0.5, "e": None, "f": math.inf, "g": 0.1}
    for name, value in values.items():
        shelf.save(
            "m", name, metrics={} if value is None else {"loss": value}, config={"optim": name.upper()}
        )
    rising = names(selecting.versions(shelf.connection, "m", sort="loss"))
    falling = names(selecting.versions(shelf.connection, "m", sort="loss", descending=True))
    assert rising == ["c", "g", "d", "a", "f", "e", "b"]
    assert falling == ["f", "d", "a", "g", "c", "e", "b"]
    assert names(selecting.versions(shelf.connection, "m", sort="config.optim", limit=2)) == ["a", "b"]
    assert names(selecting.versions(shelf.connection, "m", sort="name", descending=True, limit=2)) == [
        "g",
        "f",
    ]
    assert names(selecting.versions(shelf.connection, "m", sort="created_at", limit=2)) == ["a", "b"]


def test_as_of_then_a_list_holds_what_was_visible_with_the_metrics_of_then(shelf: Shelf) -> None:
    first = shelf.save("m", "a", metrics={"loss": 0.5})
    second = shelf.save("m", "b", metrics={"loss": 0.4})
    then = shelf.time(shelf.n)
    shelf.annotate(first, loss=0.1)
    shelf.delete(second)
    deleted = shelf.time(shelf.n)
    shelf.restore(second)
    connection = shelf.connection
    assert names(selecting.versions(connection, "m", sort="loss", at=then)) == ["b", "a"]
    assert names(selecting.versions(connection, "m", sort="loss")) == ["a", "b"]
    assert names(selecting.versions(connection, "m", at=deleted)) == ["a"]
    assert names(selecting.versions(connection, "m", expressions=["loss > 0.2"], at=then)) == ["b", "a"]
    assert selecting.versions(connection, "m", at="2000-01-01") == []
    row = queries.version_by_id(connection, second)
    assert row is not None
    states = [
        queries.state_at(connection, row.seq, at) for at in ("2000", then, deleted, shelf.time(shelf.n))
    ]
    assert states == [None, "visible", "deleted", "visible"]


def test_latest_is_the_last_committed_whatever_its_own_clock_says(shelf: Shelf) -> None:
    shelf.save("m", "a", run="r", created_at="2030-01-01T00:00:00.000000Z")
    then = shelf.time(shelf.n)
    shelf.save("m", "b", run="s", created_at="2020-01-01T00:00:00.000000Z")
    latest = selecting.latest(shelf.connection, "m")
    assert latest is not None
    assert latest.name == "b"
    in_run = selecting.latest(shelf.connection, "m", run="r")
    assert in_run is not None
    assert in_run.name == "a"
    earlier = selecting.latest(shelf.connection, "m", at=then)
    assert earlier is not None
    assert earlier.name == "a"
    assert selecting.latest(shelf.connection, "m", run="t") is None


def test_best_passes_over_nan_and_reports_ties_earliest_first(shelf: Shelf) -> None:
    for name, value in {"a": math.nan, "b": 0.3, "c": 0.3, "d": 0.9, "e": 0.3}.items():
        shelf.save("m", name, metrics={"x": value}, run="r" if name in "ac" else "s")
    shelf.save("other", "f", metrics={"x": -1.0})
    least = selecting.best(shelf.connection, "m", "x", "min")
    assert least is not None
    ties = [queries.version_by_id(shelf.connection, each) for each in least.ties]
    assert (least.row.name, least.value, [row.name for row in ties if row]) == ("b", 0.3, ["c", "e"])
    most = selecting.best(shelf.connection, "m", "x", "max")
    assert most is not None
    assert (most.row.name, most.ties) == ("d", ())
    in_run = selecting.best(shelf.connection, "m", "x", "max", run="r")
    assert in_run is not None
    assert in_run.row.name == "c"
    assert selecting.best(shelf.connection, "m", "y", "min") is None


def test_best_knows_every_tie_however_many_there_are(shelf: Shelf) -> None:
    saved = [shelf.save("m", f"v{i}", metrics={"x": 1.0}) for i in range(130)]
    found = selecting.best(shelf.connection, "m", "x", "max")
    assert found is not None
    assert [found.row.id, *found.ties] == saved


def test_best_as_of_then_uses_the_metrics_known_then(shelf: Shelf) -> None:
    first = shelf.save("m", "a", metrics={"x": 0.5})
    shelf.save("m", "b", metrics={"x": 0.4})
    then = shelf.time(shelf.n)
    shelf.annotate(first, x=0.9)
    shelf.annotate(first, x=0.1)
    before = selecting.best(shelf.connection, "m", "x", "min", at=then)
    after = selecting.best(shelf.connection, "m", "x", "min", at=shelf.time(shelf.n))
    between = selecting.best(shelf.connection, "m", "x", "max", at=shelf.time(shelf.n - 1))
    assert before is not None
    assert after is not None
    assert between is not None
    assert [(b.row.name, b.value) for b in (before, after, between)] == [("b", 0.4), ("a", 0.1), ("a", 0.9)]
    assert selecting.metric_names(shelf.connection, "m", at="2000") == []
    assert selecting.metric_names(shelf.connection, "m", at=then) == ["x"]
    assert selecting.metric_names(shelf.connection, "m") == ["x"]


def test_ids_are_found_by_prefix_of_even_and_odd_length(shelf: Shelf) -> None:
    made = [shelf.save("m", f"v{i}", nonce=i) for i in range(40)]
    for length in (1, 2, 3, 5, 64):
        prefix = made[7].hex[:length]
        found = [row.id for row in queries.ids_by_prefix(shelf.connection, prefix, limit=100)]
        assert found == [version for version in made if version.hex.startswith(prefix)]
    assert queries.ids_by_prefix(shelf.connection, made[7].hex[:8], model="other") == []


def test_parents_and_children(shelf: Shelf) -> None:
    elsewhere = VersionId.of(b"elsewhere")
    first = shelf.save("m", "a")
    second = shelf.save("m", "b", parents=(first, elsewhere))
    row = queries.version_by_id(shelf.connection, second)
    assert row is not None
    assert queries.parents(shelf.connection, row.seq) == [first, elsewhere]
    assert names(queries.children(shelf.connection, first)) == ["b"]
    assert names(queries.children(shelf.connection, elsewhere)) == ["b"]
    assert queries.children(shelf.connection, second) == []


def test_a_version_with_the_same_content_is_found_newest_of_the_run_first(shelf: Shelf) -> None:
    content = Digest.of(b"x").hex
    shelf.save("m", "a", content=content, run="r")
    shelf.save("m", "b", content=content)
    shelf.save("other", "c", content=content)
    found = queries.version_with_content(shelf.connection, "m", content)
    assert found is not None
    assert found.name == "b"
    of_run = queries.version_with_content(shelf.connection, "m", content, run_id="id-of-r")
    assert of_run is not None
    assert of_run.name == "a"
    assert queries.version_with_content(shelf.connection, "m", "0" * 63 + "1") is None


def test_names_and_their_history(shelf: Shelf) -> None:
    first = shelf.save("m", "a")
    second = shelf.save("m", "b")
    shelf.ref("m", "alias", "Production", first)
    moved = shelf.ref("m", "alias", "production", second)
    shelf.ref("m", "tag", "v1", second)
    shelf.ref("m", "alias", "production", None)
    connection = shelf.connection
    assert queries.ref(connection, "m", "production") is None
    tag = queries.ref(connection, "m", "v1")
    assert tag is not None
    assert (tag.kind, tag.name, tag.target) == ("tag", "v1", second)
    assert [(r.kind, r.name) for r in queries.names_of(connection, second)] == [("name", "b"), ("tag", "v1")]
    assert [r.key for r in queries.refs(connection, "m")] == ["a", "b", "v1"]
    assert [r.key for r in queries.refs(connection, "m", kind="tag")] == ["v1"]
    moves = queries.ref_moves(connection, "m", "production")
    assert [m.target for m in moves] == [first, second, None]
    assert [(m.by, m.why, m.evidence) for m in moves[:2]] == [("tester", "because", {})] * 2
    assert [m.target for m in queries.ref_moves(connection, "m", "production", at=moved)] == [first, second]
    then = queries.ref_at(connection, "m", "production", moved)
    assert then is not None
    assert then.target == second
    assert queries.ref_at(connection, "m", "production", "2000") is None


def test_annotations_packs_and_redactions(shelf: Shelf) -> None:
    version = shelf.save("m", "a", metrics={"x": 1.0}, labels={"stage": "raw"})
    then = shelf.annotate(version, x=math.nan, y=2.0)
    shelf.label(version, stage=None)
    row = queries.version_by_id(shelf.connection, version)
    assert row is not None
    found = queries.annotations_of(shelf.connection, row.seq)
    assert [a.metrics for a in found] == [{}, {"x": "~nan", "y": 2.0}, {}]
    assert [a.labels for a in found] == [{"stage": "raw"}, {}, {"stage": None}]
    assert len(queries.annotations_of(shelf.connection, row.seq, at=then)) == 2
    assert len(queries.packs_of(shelf.connection, row.seq)) == 1
    assert queries.redacted_items(shelf.connection, row.seq) == set()
    shelf.delete(version)
    shelf.forget(version)
    assert queries.packs_of(shelf.connection, row.seq) == []


@pytest.mark.parametrize(
    ("sql", "index"),
    [
        (
            "versions v WHERE v.model = 'm' AND v.state = 'visible' ORDER BY v.seq DESC LIMIT 5",
            "versions_by_model",
        ),
        ("versions v WHERE v.id BETWEEN x'00' AND x'01'", "versions_by_id"),
        ("refs WHERE target = x'00'", "pointers_by_target"),
        ("refs WHERE target = x'00'", "versions_by_id"),
        ("refs WHERE model = 'm' AND key = 'k'", "versions_by_name"),
        ("parents WHERE parent = x'00'", "versions_by_parent"),
        ("ref_moves WHERE model = 'm' AND key = 'k' ORDER BY n, id", "moves_by_name"),
        ("facts f WHERE f.key = 1 AND f.num IS NOT NULL ORDER BY f.num LIMIT 5", "facts_by_number"),
        ("versions v WHERE v.model = 'm' AND v.run IN ('r') AND +v.state = 'visible'", "versions_by_run"),
    ],
)
def test_the_queries_of_large_repositories_use_their_indexes(shelf: Shelf, sql: str, index: str) -> None:
    plan = shelf.connection.execute(f"EXPLAIN QUERY PLAN SELECT * FROM {sql}").fetchall()
    assert any(index in row[3] for row in plan)
    asked = [row[3] for row in plan if not row[3].startswith(("SCAN refs", "SCAN parents", "SCAN ref_moves"))]
    # Of a view only as many rows are looked at, or put in order, as its tables' indexes give.
    is_view = len(asked) < len(plan)
    assert not any(step.startswith("SCAN") or ("TEMP B-TREE" in step and not is_view) for step in asked)


def test_packs_that_are_remembered_already_are_not_looked_at(shelf: Shelf) -> None:
    sql = "EXPLAIN QUERY PLAN SELECT name FROM packs WHERE state = 'live' AND remembered = 0 ORDER BY n"
    (step,) = shelf.connection.execute(sql).fetchall()
    assert step[3].endswith("USING INDEX packs_unremembered")


def test_pages_by_a_metric_are_the_same_however_they_are_found(shelf: Shelf) -> None:
    """Along the index of numbers, by what one space has, and by each version's value."""
    for i in range(12):
        metrics = {"loss": [0.5, 0.25, math.nan, -1.0][i % 4]} if i % 5 else {}
        saved = shelf.save("m" if i % 3 else "other", f"v{i}", metrics=metrics, config={"alone": i % 3})
    shelf.annotate(saved, loss=0.25)

    def pages(count: int, **how: object) -> list[str]:
        found: list[str] = []
        for offset in range(0, 12, count):
            rows = selecting.versions(shelf.connection, limit=count, offset=offset, **how)  # type: ignore[arg-type]
            found += names(rows)
        return found

    later = shelf.time(shelf.n)
    for model in ("m", "other", None):
        for descending in (False, True):
            how = {"model": model, "sort": "loss", "descending": descending}
            whole = names(selecting.versions(shelf.connection, **how))  # type: ignore[arg-type]
            assert pages(1, **how) == pages(5, **how) == pages(12, **how) == whole
            assert names(selecting.versions(shelf.connection, at=later, **how)) == whole  # type: ignore[arg-type]
    # A config key of that name: now each version is asked for what it has first.
    before = {key: pages(5, sort=key) for key in ("metrics.loss", "alone")}
    shelf.save("m", "last", config={"loss": 7})
    assert pages(5, sort="loss")[:3] == before["metrics.loss"][:3]
    assert [name for name in pages(13, sort="metrics.loss") if name != "last"] == before["metrics.loss"]
    assert [name for name in pages(13, sort="alone") if name != "last"] == before["alone"]
