"""Deleting, restoring, retaining and redacting, through the facade."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import stemmata
from faults import FaultyStorage
from makers import adapter_folder, contents, model_folder
from stemmata import deleting, errors, redacting, retaining
from stemmata.attaching import attach
from stemmata.catalog import queries
from stemmata.hf.runnames import free_name
from stemmata.ids import Digest, PackName
from stemmata.intake import import_folders
from stemmata.log.ops import ModelConfigure, VersionAnnotate, VersionForget
from stemmata.records import Base, Run
from stemmata.repository import Repository
from stemmata.storage.memory import MemoryStorage
from stemmata.version import Version

RUN = Run("a" * 32, "r")


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    return stemmata.open(tmp_path / "repo", create=True)


@pytest.fixture
def line(repo: Repository, tmp_path: Path) -> list[Version]:
    """Four versions of a run, each the parent of the next; the second is the best."""
    losses = (0.5, 0.1, 0.4, 0.3)
    return [
        repo.save(
            model_folder(tmp_path / f"out{i}", i),
            "m",
            name=f"r/epoch-{i}",
            run=RUN,
            metrics={"eval_loss": loss},
            provenance={"command": b'{"argv": ["--token", "x"]}', "packages": b"[]"},
        )
        for i, loss in enumerate(losses)
    ]


def entries(repo: Repository) -> int:
    return sum(1 for _ in repo.session.storage.list("log/"))


def names(found: object) -> list[str]:
    return [v.name for v in found]  # type: ignore[attr-defined]


# --- hidden everywhere ----------------------------------------------------------------------------


def test_a_deleted_version_is_nowhere_and_comes_back_as_it_was(
    repo: Repository, line: list[Version], tmp_path: Path
) -> None:
    reference = "m@r/epoch-1"
    assert repo.best("m", "eval_loss") == line[1]
    (gone,) = repo.delete(reference, why="diverged")
    assert (gone.version, gone.name, gone.children) == (line[1].id, "r/epoch-1", ("m@r/epoch-2",))
    assert names(repo.versions("m")) == ["r/epoch-3", "r/epoch-2", "r/epoch-0"]
    assert names(repo.search("m", "eval_loss < 0.35")) == ["r/epoch-3"]
    assert repo.best("m", "eval_loss") == line[3]
    assert queries.children(repo.session.catalog.connection, line[0].id) == []
    asks: list[Callable[[], object]] = [
        lambda: repo[reference],
        lambda: repo[line[1].short],
        lambda: repo[line[1].short[:6]],
        lambda: repo["m@r/epoch-2~1"],
        lambda: repo.get(line[1].id),
        lambda: repo.diff(reference, line[0]),
        lambda: repo.alias("m", "production", line[1]),
        lambda: repo.tag("m", "v1", line[1]),
        lambda: repo.annotate(line[1], notes="late"),
    ]
    for ask in asks:
        with pytest.raises(errors.VersionNotFound, match="deleted"):
            ask()
    assert repo["m@r/epoch-2~2"] == line[0]  # past it
    repo.delete("m@r/epoch-3")
    assert repo["m"] == line[2]
    assert repo["m@r/latest"] == line[2]

    back = repo.restore([reference, line[3].short])
    assert back == [line[1], line[3]]
    assert repo["m@r/epoch-2~1"] == line[1]
    assert repo.best("m", "eval_loss") == line[1]
    assert contents(back[0].checkout(tmp_path / "back")) == contents(tmp_path / "out1")


def test_i4_no_byte_of_a_deleted_version_is_handed_out_by_one_in_hand(
    repo: Repository, line: list[Version], tmp_path: Path
) -> None:
    held = line[1]
    folder = held.path()
    assert held.cached() == folder
    # Another process deletes it; the checkout stays in the cache.
    stemmata.open(tmp_path / "repo").delete(held.id)
    asks: list[Callable[[], object]] = [
        held.path,
        held.cached,
        held.load,
        held.state_dict,
        lambda: held.read("config.json"),
        lambda: held.checkout(tmp_path / "there"),
        lambda: held.tensor_file("model.safetensors"),
        lambda: held.provenance("command"),
        lambda: repo.diff(held, line[0]),
    ]
    for ask in asks:
        with pytest.raises(errors.VersionNotFound, match="was deleted"):
            ask()
    assert not (tmp_path / "there").exists()
    assert repo.version_of_path(folder) is None
    assert held.metrics == {"eval_loss": 0.1}  # what it says was read before
    repo.restore(held)
    assert held.path() == folder


def test_a_save_may_follow_a_deleted_parent_and_lean_on_deleted_bytes(
    repo: Repository, line: list[Version], tmp_path: Path
) -> None:
    repo.delete(line)
    child = repo.save(tmp_path / "out3", "m", name="child", parents=[line[3]])
    assert child.parents == [line[3].id.hex]
    again, saved = repo.save_request(
        stemmata.recording.SaveRequest(  # type: ignore[attr-defined]
            source=tmp_path / "out2", model="m", name="again", run=RUN, same_as_existing=True
        )
    )
    assert not saved.existed  # no deleted version gets another name
    assert saved.bytes_new < 4096  # tree and provenance
    assert again.parents == []  # the run's newest version is gone
    with pytest.raises(errors.VersionNotFound, match="deleted"):
        repo.save(tmp_path / "out2", "m", parents=["m@r/epoch-3"])
    with pytest.raises(errors.NameTaken, match="which was deleted"):
        repo.save(tmp_path / "out2", "m", name="r/epoch-0")
    assert contents(again.checkout(tmp_path / "back")) == contents(tmp_path / "out2")
    assert repo.check().sound


def test_runs_and_imports_remember_what_was_deleted(repo: Repository, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "final", 3)
    (made,) = import_folders(repo, [folder], model="m")
    assert made.version is not None
    version = repo.get(made.version)
    repo.delete(version)
    (again,) = import_folders(repo, [folder], model="m")
    assert (again.status, again.version) == ("known", version.id)
    assert "deleted" in again.reason
    assert len(repo.versions("m")) == 0
    assert version.run is not None
    assert free_name(repo, "m", version.run.name) != version.run.name


# --- refused --------------------------------------------------------------------------------------


def test_what_names_point_at_is_refused_and_nothing_else_goes(repo: Repository, line: list[Version]) -> None:
    repo.alias("m", "production", line[1])
    repo.tag("m", "v1", line[2])
    before = entries(repo)
    with pytest.raises(errors.VersionInUse, match="the alias production points at m@r/epoch-1"):
        repo.delete([line[0], line[1]])
    with pytest.raises(errors.VersionInUse, match=r"the tag v1.*a tag is for ever"):
        repo.delete(line[2], force=True)
    assert entries(repo) == before
    assert len(repo.versions("m")) == 4
    repo.unalias("m", "production")
    repo.delete([line[0], line[1], line[0]])
    assert entries(repo) == before + 2


def test_a_base_goes_with_its_adapters_or_by_force(
    repo: Repository, line: list[Version], tmp_path: Path
) -> None:
    base = Base(name_or_path="toy", version=line[0].id.hex)
    adapter = repo.save(adapter_folder(tmp_path / "lora"), "tuned", name="a", base=base)
    with pytest.raises(errors.VersionInUse, match="tuned@a is loaded on m@r/epoch-0"):
        repo.delete(line[0])
    assert repo.retain("m", last=1, dry_run=True).verdicts[-1].kept == ("base of tuned@a",)
    assert repo.delete(line[0], force=True, dry_run=True)[0].loaded_on == ("tuned@a",)
    repo.delete([line[0], adapter])
    repo.restore([line[0], adapter])
    repo.delete(line[0], force=True)
    assert len(repo.versions("m")) == 3


def test_each_wrong_state_has_its_error(repo: Repository, line: list[Version]) -> None:
    repo.delete(line[0], why="a trial")
    for again in (line[0], "m@r/epoch-0", line[0].short):
        with pytest.raises(errors.AlreadyDeleted, match=r"by .*@.* \(a trial\)"):
            repo.delete(again)
    for visible in ("m@r/epoch-1", "m", line[1]):
        with pytest.raises(errors.NotDeleted):
            repo.restore(visible)
    with pytest.raises(errors.VersionNotFound):
        repo.restore("m@nothing")
    repo.session.commit(lambda _: [VersionForget(versions=[line[0].id.hex])])
    for forgotten in (line[0], line[0].short, "m@r/epoch-0"):
        with pytest.raises(errors.UndoOver, match="time to be undone was over"):
            repo.restore(forgotten)
    with pytest.raises(errors.AlreadyDeleted, match="given up"):
        repo.delete(line[0])
    assert repo.deleted("m") == []


def test_what_is_deleted_is_listed_with_who_why_and_until_when(repo: Repository, line: list[Version]) -> None:
    repo.retain("m", undo_window="30d", last=2, why="old")
    repo.delete("m@r/epoch-2", why="diverged")
    found = repo.deleted("m")
    assert [(d.name, d.why) for d in found] == [
        ("r/epoch-2", "diverged"),
        ("r/epoch-1", "old"),
        ("r/epoch-0", "old"),
    ]
    assert found[0].by == repo.session.author
    assert found[1].n == found[2].n != found[0].n
    assert all(d.until > d.at for d in found)
    assert found[0].until[:10] > repo.deleted()[0].at[:10]
    far = 2**53
    repo.session.commit(lambda _: [ModelConfigure(model="m", settings={"undo_window": far})])
    assert repo.deleted("m")[0].until.startswith("9999")


# --- races: the log's order decides ---------------------------------------------------------------


@pytest.fixture
def shared(tmp_path: Path) -> tuple[FaultyStorage, Repository, Repository, Version]:
    """Two writers of one repository; what `before_write` of the first's storage does comes first."""
    inner = MemoryStorage()
    stemmata.repository.create_identity(inner)  # type: ignore[attr-defined]
    storage = FaultyStorage(inner)
    mine, other = Repository(storage), Repository(inner)
    return storage, mine, other, mine.save(model_folder(tmp_path / "out"), "m", name="a")


def first(storage: FaultyStorage, act: Callable[[], object]) -> None:
    def once(name: str) -> None:
        if name.startswith("put_new log/"):
            storage.before_write = None
            act()

    storage.before_write = once


def test_i6_of_two_who_delete_one_is_told_that_it_is_deleted(
    shared: tuple[FaultyStorage, Repository, Repository, Version],
) -> None:
    storage, mine, other, version = shared
    first(storage, lambda: other.delete(version.id))
    with pytest.raises(errors.AlreadyDeleted):
        mine.delete(version)
    first(storage, lambda: other.restore(version.id))
    with pytest.raises(errors.NotDeleted):
        mine.restore(version.id)
    assert len(mine.versions("m")) == 1


def test_i6_an_alias_that_came_first_keeps_the_version_and_one_that_came_late_finds_none(
    shared: tuple[FaultyStorage, Repository, Repository, Version],
) -> None:
    storage, mine, other, version = shared
    first(storage, lambda: other.alias("m", "production", version.id))
    with pytest.raises(errors.VersionInUse, match="production"):
        mine.delete(version)
    other.unalias("m", "production")
    first(storage, lambda: other.delete(version.id))
    with pytest.raises(errors.VersionNotFound, match="deleted"):
        mine.alias("m", "production", version)
    assert mine.aliases("m") == {}


def test_i6_a_policy_lets_go_only_what_it_still_lets_go_and_what_was_shown(
    shared: tuple[FaultyStorage, Repository, Repository, Version], tmp_path: Path
) -> None:
    storage, mine, other, version = shared
    for i in (1, 2):
        mine.save(model_folder(tmp_path / "out", i), "m", name=f"v{i}")
    shown = mine.retain("m", last=1, dry_run=True)
    assert len(shown.gone) == 2

    def meanwhile() -> None:
        other.tag("m", "keep", version.id)
        other.save(model_folder(tmp_path / "out", 9), "m", name="new")

    first(storage, meanwhile)
    done = retaining.retain(mine.session, "m", shown.policy, only=shown.gone)
    # v2 would go by now, but nobody was shown that.
    assert names(mine.versions("m")) == ["new", "v2", "a"]
    assert [mine.deleted()[0].version] == done.gone


# --- policies -------------------------------------------------------------------------------------


def test_a_policy_is_stored_and_applied_in_one_entry_and_again(
    repo: Repository, line: list[Version], tmp_path: Path
) -> None:
    before = entries(repo)
    done = repo.retain("m", last=1, best="1:eval_loss")
    assert entries(repo) == before + 1
    assert set(done.gone) == {line[0].id, line[2].id}
    assert names(repo.versions("m")) == ["r/epoch-3", "r/epoch-1"]
    assert str(repo.retention("m")) == "last 1, best 1:eval_loss"
    assert repo.retain("m").entry is None
    assert entries(repo) == before + 1
    repo.save(model_folder(tmp_path / "out9", 9), "m", name="new", metrics={"eval_loss": 0.2})
    assert repo.retain("m", dry_run=True).gone == [line[3].id]
    assert repo.retain("m").gone == [line[3].id]
    assert retaining.clear(repo.session, "m")
    assert not retaining.clear(repo.session, "m")
    with pytest.raises(errors.InvalidArgument, match="has no policy"):
        repo.retain("m")


def test_a_policy_by_which_nothing_stays_is_neither_set_nor_applied(
    repo: Repository, line: list[Version]
) -> None:
    repo.alias("m", "production", line[0])
    before = entries(repo)
    with pytest.raises(errors.NothingKept, match="no version has the metric 'f1'"):
        repo.retain("m", best="2:f1")
    for version in line:
        repo.annotate(version, metrics={"eval_loss": float("nan")})
    with pytest.raises(errors.NothingKept, match="every eval_loss is NaN"):
        repo.retain("m", best="2:eval_loss")
    with pytest.raises(errors.InvalidArgument, match="write N:metric"):
        repo.retain("m", best=2)
    assert entries(repo) == before + 4
    assert repo.retention("m") is None
    assert len(repo.versions("m")) == 4


def test_the_primary_metric_and_its_declared_direction_decide(repo: Repository, line: list[Version]) -> None:
    repo.configure("m", metric="eval_loss", direction="max")
    assert repo.retain("m", best=1, dry_run=True).verdicts[3].kept == ("best 1 by highest eval_loss: 0.5",)


def test_a_strangers_policy_deletes_nothing(repo: Repository, line: list[Version]) -> None:
    repo.session.commit(lambda _: [ModelConfigure(model="m", settings={"retain": {"newest": 1}})])
    with pytest.raises(errors.InvalidArgument, match="cannot be read"):
        repo.retain("m")
    assert len(repo.versions("m")) == 4


def test_marked_versions_go_as_far_as_nothing_needs_them(repo: Repository, line: list[Version]) -> None:
    for version in line:
        repo.annotate(version, labels={"deletable": "keep=1"})
    repo.annotate(line[2], labels={"deletable": "by hand"})
    repo.tag("m", "v1", line[0])
    connection = repo.session.catalog.connection
    assert deleting.marked(connection, "m") == []  # tagged, best, somebody's own word, newest
    repo.annotate(line[2], labels={"deletable": "keep=1"})
    assert deleting.marked(connection, "m") == [line[2].id]


# --- redacting ------------------------------------------------------------------------------------


def test_a_redacted_object_leaves_a_tombstone_and_no_byte(repo: Repository, line: list[Version]) -> None:
    repo.delete(line[3])
    one = repo.redact("m@r/epoch-0", "command", why="a token")
    assert [(e.version, e.kinds) for e in one] == [(line[0].id, ("command",))]
    with pytest.raises(errors.Redacted, match=r"was redacted on .* by .* \(a token\)"):
        line[0].provenance("command")
    assert line[0].provenance("packages") == b"[]"
    assert line[1].provenance("command")
    with pytest.raises(errors.Redacted):
        repo.redact(line[0], ["command"])
    with pytest.raises(errors.NotFound, match="it has: command, packages"):
        repo.redact(line[0], ["environment"])
    assert len(repo.redact(line[1], ["command"], everywhere=True, dry_run=True)) == 3
    assert line[1].redactions == []
    everywhere = repo.redact(line[1], ["command"], everywhere=True)
    assert {e.version for e in everywhere} == {line[1].id, line[2].id, line[3].id}
    repo.restore(line[3])
    with pytest.raises(errors.Redacted):
        line[3].provenance("command")
    told = repo.diff(line[0], line[1]).to_dict()["provenance"]
    assert line[0].record.provenance["command"] not in str(told)
    assert repo.check().sound


def test_what_was_attached_since_is_redacted_everywhere_too(repo: Repository, line: list[Version]) -> None:
    for version in line[:3]:
        attached(repo, version, "eval:x#1", b"a secret row")
    attached(repo, line[3], "eval:y#1", b"a secret row")
    found, others = redacting.redact(repo.session, line[0].id, ["eval:x#1"])
    assert [(e.version, e.kinds) for e in found] == [(line[0].id, ("eval:x#1",))]
    assert others == 3
    erased = repo.redact(line[1], ["eval:x#1"], everywhere=True)
    assert {(e.version, e.kinds) for e in erased} == {
        (line[1].id, ("eval:x#1",)),
        (line[2].id, ("eval:x#1",)),
        (line[3].id, ("eval:y#1",)),
    }
    digest = Digest.of(b"a secret row")
    repo.gc(grace=0)
    packs = [PackName.in_key(key.key) for key in repo.session.storage.list("packs/")]
    assert all(repo.session.reader.find(digest, [pack]) is None for pack in packs if pack is not None)
    assert repo.check().sound


def test_two_kinds_of_the_same_bytes_are_redacted_everywhere(repo: Repository, tmp_path: Path) -> None:
    twice = {"k1": b"the same", "k2": b"the same"}
    one, two = (
        repo.save(model_folder(tmp_path / f"out{i}", i), "n", name=f"v{i}", provenance=twice)
        for i in range(2)
    )
    erased = repo.redact(one, ["k1"], everywhere=True)
    assert {(e.version, e.kinds) for e in erased} == {(one.id, ("k1", "k2")), (two.id, ("k1", "k2"))}
    three = repo.save(model_folder(tmp_path / "out2", 2), "n", name="v2", provenance=twice)
    four = repo.save(model_folder(tmp_path / "out3", 3), "n", name="v3", provenance=twice)
    assert len(repo.redact(three, ["k1", "k2"], everywhere=True)) == 2
    assert four.redactions


def attached(repo: Repository, version: Version, kind: str, data: bytes) -> None:
    attach(
        repo.session,
        lambda writer: writer.put(data).hex,
        lambda _, digest, packs: [
            VersionAnnotate(version=version.id.hex, objects={kind: digest}, packs=packs)
        ],
    )
