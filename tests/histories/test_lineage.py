"""Which version came from which: the graph, and the tree that is drawn of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemmata.cli.lineage import drawn, legend
from stemmata.errors import ModelNotFound, VersionNotFound
from stemmata.histories import lineage as module
from stemmata.histories.lineage import Edge, Lineage, Node
from stemmata.ids import VersionId
from stemmata.records import Base, Run, decode_record, encode_record
from stemmata.repository import Repository
from stemmata.version import Version

Save = Callable[..., Version]
NOW = datetime(2030, 1, 1, tzinfo=UTC)


def names(found: Lineage) -> list[str]:
    return [node.name for node in found.nodes]


def edges(found: Lineage) -> set[tuple[str, str, str]]:
    return {(found[e.source].name, found[e.target].name, e.kind) for e in found.edges}


def tree(found: Lineage, width: int = 100, *, everything: bool = False) -> list[str]:
    """The drawing's lines without its head, as far as the ids."""
    lines = drawn(found, width, everything=everything, now=NOW).plain.split("\n")[1:]
    return [re.split(r"  +[0-9a-f]{8,12}\b", line)[0] for line in lines]


def line(save: Save, run: str, count: int, *parents: Version, model: str = "m") -> list[Version]:
    made: list[Version] = []
    for k in range(1, count + 1):
        came_from = made[-1:] or list(parents)
        loss = {"eval_loss": 1 / (len(run) + k)}
        made.append(save(f"{run}/epoch-{k}", *came_from, run=run, epoch=k, metrics=loss, model=model))
    return made


def test_a_run_a_fork_and_a_merge_are_edges_of_their_kinds(repo: Repository, save: Save) -> None:
    a1, a2 = line(save, "a", 2)
    (b1,) = line(save, "b", 1, a1)
    save("joined", a2, b1)
    found = repo.lineage("m")
    assert names(found) == ["a/epoch-1", "a/epoch-2", "b/epoch-1", "joined"]
    assert edges(found) == {
        ("a/epoch-1", "a/epoch-2", "line"),
        ("a/epoch-1", "b/epoch-1", "fork"),
        ("a/epoch-2", "joined", "fork"),
        ("b/epoch-1", "joined", "merge"),
    }
    assert found[repo["m@joined"].id.hex].merged == (b1.id.hex,)
    assert [node.name for node in found.roots] == ["a/epoch-1"]


def test_a_run_of_the_same_name_that_was_started_again_is_told(repo: Repository, save: Save) -> None:
    first = save("r/1", run="r")
    repo.save(first.path(), "m", name="r/2", run=Run(id="f" * 32, name="R"), parents=[first], provenance={})
    assert edges(repo.lineage("m")) == {("r/1", "r/2", "resume")}


def test_of_a_version_it_is_what_leads_to_it_and_what_came_from_it(repo: Repository, save: Save) -> None:
    a = line(save, "a", 4)
    line(save, "side", 1, a[0])
    other = line(save, "b", 1, a[2], model="other")
    found = repo.lineage(a[2])
    assert names(found) == ["a/epoch-1", "a/epoch-2", "a/epoch-3", "a/epoch-4", "b/epoch-1"]
    assert (found.of, found.focus) == ("m@a/epoch-3", a[2].id.hex)
    assert repo.lineage("m@a/epoch-3") == found
    # From the other end, across models.
    assert names(repo.lineage(other[0])) == ["a/epoch-1", "a/epoch-2", "a/epoch-3", "b/epoch-1"]
    assert names(repo.lineage("other")) == ["a/epoch-1", "a/epoch-2", "a/epoch-3", "b/epoch-1"]
    assert len(repo.lineage()) == 6


def test_bases_are_nodes_inside_the_repository_and_outside(repo: Repository, save: Save) -> None:
    pretrained = save("pretrained", model="encoder")
    inside = Base("encoder", None, None, [], pretrained.id.hex)
    outside = Base("gpt2", None, "ab" * 32)
    first = save("first", base=inside)
    save("second", first, base=inside)
    save("third", base=outside)
    save("fourth", base=outside)
    found = repo.lineage("m")
    assert edges(found) == {
        ("pretrained", "first", "base"),
        ("first", "second", "line"),
        ("gpt2", "third", "base"),
        ("gpt2", "fourth", "base"),
    }
    assert [(n.name, n.state) for n in found.roots] == [("gpt2", "outside"), ("pretrained", "visible")]
    assert found[first.id.hex].base == pretrained.id.hex
    # What an encoder became is told of the encoder too.
    assert names(repo.lineage("encoder@pretrained")) == ["pretrained", "first", "second"]
    assert tree(repo.lineage())[0] == "all models  5 versions"
    assert tree(found) == [
        "m  4 versions",
        "├─◇ gpt2 base model",
        "│ ├╌● m@third",
        "│ ╰╌● m@fourth",
        "╰─● encoder@pretrained",
        "  ╰╌● m@first",
        "    ● second",
    ]


def test_what_was_deleted_stays_where_something_came_from_it(repo: Repository, save: Save) -> None:
    a = line(save, "a", 4)
    repo.delete([a[1], a[3]])
    found = repo.lineage("m")
    assert [(n.name, n.state) for n in found.nodes] == [
        ("a/epoch-1", "visible"),
        ("a/epoch-2", "deleted"),
        ("a/epoch-3", "visible"),
    ]
    repo.gc(undo_window=0, grace=0)
    assert repo.lineage("m")[a[1].id.hex].state == "forgotten"
    assert tree(repo.lineage("m"))[1].startswith("○ a/epoch-2 deleted")
    with pytest.raises(VersionNotFound, match="was deleted"):
        repo.lineage(a[3].id)


def test_what_came_from_a_version_is_told_beyond_what_was_deleted(repo: Repository, save: Save) -> None:
    pretrained = save("pretrained", model="encoder")
    first = save("first", pretrained)
    second = save("second", base=Base("encoder", None, None, [], first.id.hex))
    last = save("last", second)
    gone = save("gone", first)
    repo.delete([first, second, gone], force=True)
    for _ in range(2):
        found = repo.lineage(pretrained)
        assert names(found) == ["pretrained", "first", "second", "last"]
        assert found.edges == repo.lineage(last).edges
        repo.gc(undo_window=0, grace=0)


def test_a_parent_that_is_not_here_is_a_node_by_its_id(repo: Repository, save: Save) -> None:
    """As in a repository into which a part of another one was copied."""
    with Repository.in_memory() as other:
        foreign = other.save(save("x").path(), "m", name="elsewhere", provenance={})
    row = save("y")._row
    record = decode_record(row.record)
    data = encode_record(msgspec.structs.replace(record, parents=[foreign.id.hex, "no id at all"]))
    graph = module._Gathered(repo.session)
    graph.take([msgspec.structs.replace(row, record=data, id=VersionId.of(data))])
    found = graph.lineage("m", None)
    assert [(n.name, n.state) for n in found.nodes] == [(foreign.short, "absent"), ("y", "visible")]
    assert tree(found) == [f"○ {foreign.short} not in this repository", "● y"]


def test_the_best_is_marked_and_so_is_all_that_is_just_as_good(repo: Repository, save: Save) -> None:
    first = save("a", metrics={"f1": 0.5})
    second = save("b", first, metrics={"f1": 0.9})
    third = save("c", second, metrics={"f1": 0.9})
    repo.annotate(third, metrics={"f1": 0.7})
    fourth = save("d", third, metrics={"f1": 0.9})
    found = repo.lineage("m")
    assert [n.name for n in found.nodes if n.best] == ["b", "d"]
    assert (found.primary["m"].metric, found.primary["m"].direction) == ("f1", "max")
    assert found[third.id.hex].metrics == {"f1": 0.7}
    assert [line[0] for line in tree(found)] == ["●", "★", "●", "★"]
    assert fourth.id.hex in found.by_id


def test_a_long_run_is_folded_but_for_what_has_a_name(repo: Repository, save: Save) -> None:
    a = line(save, "a", 12)
    line(save, "b", 2, a[5])
    repo.alias("m", "production", a[9])
    found = repo.lineage("m")
    assert tree(found) == [
        "● a/epoch-1",
        "┊ 4 more, to epoch-5",
        "● a/epoch-6",
        "├─● b/epoch-1",
        "│ ● b/epoch-2",
        "┊ 3 more, to epoch-9",
        "● a/epoch-10 [production]",
        "● a/epoch-11",
        "★ a/epoch-12",
    ]
    assert "┊ folded, --all shows them" in legend(found, 100, everything=False)[0]
    whole = tree(found, everything=True)
    assert len(whole) == 14
    assert [line for line in whole if "┊" in line] == []


def test_what_is_said_of_a_line_is_what_json_has(repo: Repository, save: Save) -> None:
    a = line(save, "a", 2)
    document = json.loads(json.dumps(repo.lineage("m").to_dict()))
    assert [n["id"] for n in document["nodes"]] == [v.id.hex for v in a]
    assert document["edges"] == [{"from": a[0].id.hex, "to": a[1].id.hex, "kind": "line"}]
    assert document["nodes"][1]["parents"] == [a[0].id.hex]
    assert document["primary"] == {"m": {"metric": "eval_loss", "direction": "min"}}


def test_what_is_not_there_is_an_error_that_says_what_is(repo: Repository, save: Save) -> None:
    save("a")
    with pytest.raises(ModelNotFound, match=r"models here: m"):
        repo.lineage("nosuch")
    with pytest.raises(VersionNotFound):
        repo.lineage("m@nosuch")


def test_an_empty_repository_has_an_empty_lineage(repo: Repository) -> None:
    assert len(repo.lineage()) == 0


# --- the drawing, of any graph --------------------------------------------------------------------


@st.composite
def graphs(draw: st.DrawFn) -> Lineage:
    """Some versions, each after nothing or after some that were there."""
    count = draw(st.integers(1, 25))
    nodes: list[Node] = []
    edges: list[Edge] = []
    for k in range(count):
        parents = draw(st.lists(st.integers(0, k - 1), max_size=2, unique=True)) if k else []
        run = draw(st.sampled_from("pqr"))
        node = Node(
            f"{k:064x}",
            draw(st.sampled_from(["m", "n"])),
            f"{run}/v{k}v",
            draw(st.sampled_from(["visible", "visible", "deleted"])),
            order=k,
            run=run,
            run_id=run,
            parents=tuple(nodes[p].id for p in parents),
            best=draw(st.booleans()),
        )
        for place, parent in enumerate(parents):
            kind = "merge" if place else "line" if nodes[parent].run == run else "fork"
            edges.append(Edge(nodes[parent].id, node.id, kind))
        nodes.append(node)
    return Lineage("m", None, tuple(nodes), tuple(edges), {})


@given(graphs(), st.integers(40, 130))
def test_every_version_is_drawn_once_below_what_it_came_from(found: Lineage, width: int) -> None:
    lines = drawn(found, 10_000, everything=True, now=NOW).plain.split("\n")[1:]
    if len(found.roots) > 1:
        lines = lines[1:]
    places = {}
    for node in found.nodes:
        # In a merge the name of another is said too, after the arrow.
        at = [k for k, text in enumerate(lines) if f"{node.name} " in text.split("⇠")[0] + " "]
        assert len(at) == 1, (node.name, lines)
        places[node.id] = at[0]
    assert len(lines) == len(found.nodes)
    for node, edge in found.upward.items():
        assert places[edge.source] < places[node]
    for text in drawn(found, width, everything=True, now=NOW).plain.split("\n"):
        assert len(text) <= width


@given(graphs())
def test_what_is_folded_is_counted(found: Lineage) -> None:
    lines = tree(found, 10_000)
    folded = sum(int(m[1]) for text in lines if (m := re.search(r"┊ (\d+) more", text)))
    head = len(found.roots) > 1
    folds = sum("┊" in text for text in lines)
    assert len(lines) - head - folds + folded == len(found.nodes)


def test_a_tree_may_be_deeper_than_the_interpreters_stack() -> None:
    nodes = [Node(f"{k:064x}", "m", f"v{k}", "visible", order=k, run_id=f"{k}") for k in range(2999)]
    edges = []
    for k in range(1, 1500):
        # Each goes on twice, so that each hangs further to the right than the one before.
        edges += [Edge(nodes[k - 1].id, nodes[later].id, "fork") for later in (k, 1499 + k)]
    found = Lineage("m", None, tuple(nodes), tuple(edges), {})
    assert len(tree(found, 80, everything=True)) == 2999


def test_bases_of_which_nothing_is_known_are_not_one(repo: Repository, save: Save) -> None:
    for name in ("one", "two"):
        save(name, base=Base("", None))
    found = repo.lineage("m")
    assert [node.name for node in found.nodes] == ["one", "two"]
    assert found.edges == ()
    assert not repo.diff("m@one", "m@two").about.removed
