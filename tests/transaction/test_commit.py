"""The commit protocol (FORMAT.md, section 3.2): won, lost, unknown, and nothing in between."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from commits import COUNTER, Summary, World, configure, counted, increment
from faults import Damage, Fault, FaultyStorage, contents, damage, replace
from ledger import Ledger, add_pack, add_version, alias, pack, record, version_of
from stemmata import transaction
from stemmata.catalog.catalog import Catalog
from stemmata.errors import (
    CommitContention,
    DamagedLog,
    NameTaken,
    NewerFormat,
    Refused,
    StorageFailed,
)
from stemmata.ids import Digest
from stemmata.log import ops
from stemmata.log.bundles import find_bundles
from stemmata.log.entries import log_key, unseal
from stemmata.storage.base import Buffer, Storage
from stemmata.storage.local import LocalStorage
from stemmata.storage.memory import MemoryStorage
from stemmata.transaction import commit, default_author

# --- won ------------------------------------------------------------------------------------------


def test_a_commit_is_one_entry(world: World) -> None:
    moment = datetime(2026, 5, 1, 12, tzinfo=UTC)
    done = world.commit(configure(1), now=lambda: moment)
    assert world.entries() == [
        {
            "n": 1,
            "format": 1,
            "txn": done.txn,
            "prev": world.ledger.identity.genesis.hash.hex,
            "at": "2026-05-01T12:00:00.000000Z",
            "by": "tester",
            "ops": [{"op": "model.configure", "model": "m", "settings": {COUNTER: 1}}],
        }
    ]
    assert done.position.n == 1
    assert world.catalog.position == done.position
    assert counted(world.catalog) == 1


def test_new_packs_come_first(world: World) -> None:
    summary = Summary()
    version = msgspec.structs.replace(add_version(0), packs=[summary.name.hex])
    world.commit(version, new_packs=[summary])
    first, second = world.entries()[0]["ops"]
    assert first == {
        "op": "pack.add",
        "pack": summary.name.hex,
        "size": 7,
        "digest": Digest.of(b"pack").hex,
    }
    assert second["op"] == "version.add"
    assert world.catalog.pack_is_live(summary.name)


def test_nothing_to_do_writes_nothing(world: World) -> None:
    done = world.commit()
    assert (done.position, done.txn) == (world.ledger.identity.genesis, None)
    assert world.entries() == []


def test_packs_alone_are_worth_an_entry(world: World) -> None:
    world.commit(new_packs=[Summary(), Summary()])
    assert [op["op"] for op in world.entries()[0]["ops"]] == ["pack.add", "pack.add"]


def test_the_plan_sees_the_end_of_the_log(world: World) -> None:
    world.rival(configure(41))
    commit(world.catalog, world.storage, increment, by="tester")
    assert world.value() == 42


def test_what_a_plan_raises_ends_the_commit(world: World) -> None:
    def plan(_: Catalog) -> Sequence[ops.Op]:
        raise NameTaken(model="m", name="n", holder="h")

    with pytest.raises(NameTaken):
        commit(world.catalog, world.storage, plan, by="tester", new_packs=[Summary()])
    assert world.entries() == []


# --- refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        [add_pack(1), add_pack(1)],
        [alias("prod", version_of(record(0)))],
        [ops.ModelConfigure(model="m", settings={})],
        [ops.VersionAnnotate(version="a" * 64, metrics={"loss": float("nan")})],
        [ops.ModelConfigure(model="m", settings={"a": object()})],
        [ops.ModelConfigure(model="m", settings={"a": "\ud800"})],
        [ops.ModelConfigure(model="m" * 256, settings={"a": 1})],
    ],
)
def test_i5_what_would_be_void_is_refused_before_it_is_written(world: World, changes: list[ops.Op]) -> None:
    with pytest.raises(Refused):
        world.commit(*changes)
    assert world.entries() == []
    world.commit(configure(1))


def test_what_is_too_large_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from stemmata.log import entries

    monkeypatch.setattr(entries, "MAX_ENTRY_BYTES", 1000)
    with pytest.raises(Refused, match="may hold 1000 bytes"):
        world.commit(ops.ModelConfigure(model="m", settings={"a": "x" * 1000}))
    assert world.entries() == []


def test_i9_an_upgrade_beyond_this_release_is_not_written(world: World) -> None:
    with pytest.raises(NewerFormat):
        world.commit(ops.FormatUpgrade(to=2))
    assert world.entries() == []


def test_an_entry_that_turned_out_void_is_said_to_be(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.commit(add_pack(1))
    monkeypatch.setattr(world.catalog, "preview", lambda *_: None)
    with pytest.raises(Refused, match="already live"):
        world.commit(add_pack(1))
    assert world.catalog.void_reason(2) is not None


def test_i7_a_pack_that_was_retired_while_its_writer_slept_is_refused(world: World) -> None:
    summary = Summary()
    world.rival(ops.PackRetire(packs=[summary.name.hex]))
    with pytest.raises(Refused, match="already retired"):
        world.commit(new_packs=[summary])


# --- lost -----------------------------------------------------------------------------------------


class Overtaken(MemoryStorage):
    """Lets another writer in just before the next entries are put."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times
        self.act = lambda: None

    def put_new(self, key: str, data: Buffer) -> None:
        if key.startswith("log/") and self.times > 0:
            self.times -= 1
            times, self.times = self.times, 0
            self.act()
            self.times = times
        super().put_new(key, data)


@pytest.mark.parametrize("times", [1, 5])
def test_i6_a_lost_race_is_planned_anew(times: int) -> None:
    storage = Overtaken(times)
    world = World(storage)

    def rival() -> None:
        with closing(Catalog(storage, world.ledger.identity, [])) as catalog:
            commit(catalog, storage, increment, by="rival")

    storage.act = rival
    done = commit(world.catalog, storage, increment, by="tester")
    assert done.position.n == times + 1
    assert world.value() == times + 1
    assert [e["by"] for e in world.entries()] == ["rival"] * times + ["tester"]
    world.catalog.close()


def test_a_lost_race_may_leave_nothing_to_do() -> None:
    storage = Overtaken(1)
    world = World(storage)
    storage.act = lambda: world.rival(configure(5))
    done = commit(world.catalog, storage, lambda c: [] if counted(c) == 5 else [configure(5)], by="tester")
    assert done.txn is None
    assert len(world.entries()) == 1
    world.catalog.close()


def test_losing_for_ever_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transaction, "ATTEMPTS", 4)
    monkeypatch.setattr(transaction, "PATIENCE", 0.0)
    storage = Overtaken(100)
    world = World(storage)
    storage.act = lambda: world.rival(configure(0))
    with pytest.raises(CommitContention):
        world.commit(configure(1))
    assert [e["by"] for e in world.entries()] == ["rival"] * 4
    world.catalog.close()


def test_who_loses_often_wins_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a hundred that commit at once the last one loses ninety-nine times: its bytes are stored by then."""
    monkeypatch.setattr(transaction, "_pause", lambda _attempt: None)
    storage = Overtaken(transaction.ATTEMPTS + 10)
    world = World(storage)
    storage.act = lambda: world.rival(configure(0))
    world.commit(configure(1))
    assert [e["by"] for e in world.entries()] == ["rival"] * (transaction.ATTEMPTS + 10) + ["tester"]
    world.catalog.close()


def test_a_user_whose_name_is_no_text_can_write(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    monkeypatch.setattr(transaction.getpass, "getuser", lambda: "r\udce9n\udce9")
    commit(world.catalog, world.storage, lambda _: [configure(1)], by=default_author())
    assert world.entries()[0]["by"].startswith("r?n?@")


# --- holes, damage, follow-up ---------------------------------------------------------------------


def test_i6_nothing_is_written_into_a_hole(world: World) -> None:
    for value in range(4):
        world.commit(configure(value))
    data = world.storage.get(log_key(3))
    replace(world.storage, log_key(3), None)
    # A catalog at entry 2, as one has that was last used then.
    behind = Catalog(world.storage, world.ledger.identity, [])
    four = world.storage.get(log_key(4))
    replace(world.storage, log_key(4), None)
    assert behind.refresh().n == 2
    world.storage.put_new(log_key(4), four)
    with pytest.raises(DamagedLog, match="missing"):
        commit(behind, world.storage, increment, by="tester")
    assert log_key(3) not in contents(world.storage)
    world.storage.put_new(log_key(3), data)
    commit(behind, world.storage, increment, by="tester")
    assert world.value() == 4
    behind.close()


def test_i4_nothing_is_written_after_damage(world: World) -> None:
    world.commit(configure(1))
    world.commit(configure(2))
    damage(world.storage, log_key(2), Damage.FLIP, 60)
    with pytest.raises(DamagedLog):
        world.commit(configure(3))
    assert len(contents(world.storage, "log/")) == 2


def test_a_commit_stands_even_if_nothing_can_be_read_after_it(world: World) -> None:
    class Deaf(FaultyStorage):
        def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
            if self.writes:
                raise StorageFailed(where=self.where, reason="gone")
            return super().get(key, start, length)

        def size(self, key: str) -> int:
            if self.writes:
                raise StorageFailed(where=self.where, reason="gone")
            return super().size(key)

    deaf = Deaf(world.storage)
    with closing(Catalog(deaf, world.ledger.identity, [])) as catalog:
        done = commit(catalog, deaf, increment, by="tester")
    assert [e["txn"] for e in world.entries()] == [done.txn]


def test_bundles_follow_when_they_are_due(world: World) -> None:
    for value in range(257):
        world.commit(configure(value))
        assert len(find_bundles(world.storage)) == (value >= 255)


def test_i5_failing_to_write_a_bundle_fails_no_commit(world: World) -> None:
    for value in range(255):
        world.ledger.append(configure(value))
    storage = FaultyStorage(world.storage, 1, Fault.ENOSPC)
    done = world.commit(configure(1), storage=storage)
    assert storage.fired == 1
    assert done.position.n == 256
    assert find_bundles(world.storage) == []


def test_time_may_run_backwards_on_a_writers_clock(world: World) -> None:
    late, early = datetime(2030, 1, 1, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC)
    world.commit(configure(1), now=lambda: late)
    done = world.commit(configure(2), now=lambda: early)
    assert done.position.effective == "2030-01-01T00:00:00.000000Z"
    assert world.catalog.position == done.position


def test_the_author_is_a_user_at_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transaction.getpass, "getuser", lambda: "ada")
    monkeypatch.setattr(transaction.platform, "node", lambda: "engine")
    assert default_author() == "ada@engine"


def test_a_user_without_a_name_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("uid")

    monkeypatch.setattr(transaction.getpass, "getuser", nobody)
    monkeypatch.setattr(transaction.platform, "node", lambda: "")
    assert default_author() == "unknown@unknown"


# --- many writers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [True, False], ids=["one catalog", "a catalog each"])
@pytest.mark.parametrize("place", ["memory", "local"])
def test_i6_threads_lose_nothing_and_double_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, shared: bool
) -> None:
    monkeypatch.setenv("STEMMATA_CACHE", str(tmp_path / "user"))
    storage: Storage = MemoryStorage() if place == "memory" else LocalStorage(tmp_path / "repo")
    ledger = Ledger(storage)
    one = Catalog.open(storage, ledger.identity)
    start = threading.Barrier(8)

    def write(writer: int) -> list[str | None]:
        catalog = one if shared else Catalog.open(storage, ledger.identity)
        start.wait()
        done = [
            commit(catalog, storage, increment, by=f"writer {writer}", new_packs=[Summary()]).txn
            for _ in range(8)
        ]
        if not shared:
            catalog.close()
        return done

    with ThreadPoolExecutor(8) as pool:
        told = [txn for txns in pool.map(write, range(8)) for txn in txns]
    entries = [msgspec.json.decode(unseal(data)) for data in contents(storage, "log/").values()]
    assert sorted(e["txn"] for e in entries) == sorted(str(txn) for txn in told)
    assert Counter(e["by"] for e in entries) == {f"writer {w}": 8 for w in range(8)}
    one.refresh()
    assert counted(one) == 64
    assert one.connection.execute("SELECT COUNT(*) FROM voids").fetchone() == (0,)
    assert one.connection.execute("SELECT COUNT(*) FROM packs").fetchone() == (64,)
    one.close()


def test_names_of_packs_in_the_log_are_hex(world: World) -> None:
    world.commit(add_pack(1))
    assert world.entries()[0]["ops"][0]["pack"] == pack(1)
