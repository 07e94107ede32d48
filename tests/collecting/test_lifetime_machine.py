"""Random lives of a repository: two writers and a reader over everything that makes versions, hides them,
brings them back and erases them, with a crash or a failing disk at any write.

A short campaign runs here; `scripts/test-slow` runs a long one (STEMMATA_TEST_LIVES sets how many lives).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from faults import Fault, FaultyStorage, run_into
from lives import Bytes, every_stored_content, next_weights
from stemmata import errors, transaction
from stemmata.catalog import checkpoints
from stemmata.log.identity import create_identity
from stemmata.repository import Repository
from stemmata.storage.local import LocalStorage
from stemmata.version import Version

LIVES = int(os.environ.get("STEMMATA_TEST_LIVES", "8"))
STEPS = 25
ALIASES = ("production", "staging")


@dataclass(slots=True)
class Life:
    """What is known of one version."""

    number: int
    weights: Bytes
    secret: bytes
    """Text in its provenance that is in no other version."""
    redacted: bool = False
    aliases: set[str] = field(default_factory=set)


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint every three entries: who loses the cache begins with one, and a fault may meet one."""
    monkeypatch.setattr(checkpoints, "EVERY", 3)
    monkeypatch.setattr(transaction, "EVERY", 3)


class Machine(RuleBasedStateMachine):
    """What must be visible, hidden and gone is kept in plain dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        create_identity(LocalStorage(self.root / "repo"))
        self.writers = [self.open(), self.open()]
        self.visible: dict[str, Life] = {}
        self.hidden: dict[str, Life] = {}
        self.gone: list[Life] = []
        """Forgotten and collected with no grace."""
        self.lapsed: list[Life] = []
        """Forgotten, perhaps not collected yet."""
        self.held: list[tuple[Version, Life]] = []
        """What a reader has opened and not read yet."""
        self.count = 0

    def open(self) -> Repository:
        return Repository(LocalStorage(self.root / "repo"))

    @staticmethod
    def chosen(among: dict[str, Life], data: st.DataObject) -> str:
        """One of them: by their order, for ids differ from one run of the same life to the next."""
        names = sorted(among, key=lambda name: among[name].number)
        return names[data.draw(st.integers(0, len(names) - 1))]

    # --- versions appear ------------------------------------------------------------------

    @rule(who=st.integers(0, 1), data=st.data(), fresh=st.booleans())
    def save(self, who: int, data: st.DataObject, fresh: bool) -> None:
        parent, life = self.next_life(data, fresh)
        self.visible[self.put(self.writers[who], parent, life).id.hex] = life

    @rule(data=st.data(), fault=st.sampled_from(list(Fault)), at=st.integers(0, 11), lasting=st.booleans())
    def save_and_fail(self, data: st.DataObject, fault: Fault, at: int, lasting: bool) -> None:
        parent, life = self.next_life(data, False)
        self.failing(fault, at, lasting, lambda repo: self.put(repo, parent, life))
        name = f"v{self.count}"
        made = [v.id.hex for v in self.open().versions() if v.name == name]
        self.visible.update(dict.fromkeys(made, life))

    def next_life(self, data: st.DataObject, fresh: bool) -> tuple[str | None, Life]:
        self.count += 1
        parent = self.chosen(self.visible, data) if self.visible and not fresh else None
        before = self.visible[parent].weights if parent else None
        return parent, Life(
            self.count, next_weights(before, self.count), f"only in life {self.count} of many".encode()
        )

    def put(self, repo: Repository, parent: str | None, life: Life) -> Version:
        folder = life.weights.write(self.root / "out")
        parents = [f"id:{parent}"] if parent else []
        notes = {"command": b'{"argv":["' + life.secret + b'"]}'}
        return repo.save(folder, "m", name=f"v{self.count}", parents=parents, provenance=notes)

    # --- they are named -------------------------------------------------------------------

    @precondition(lambda self: self.visible)
    @rule(who=st.integers(0, 1), name=st.sampled_from(ALIASES), data=st.data())
    def alias(self, who: int, name: str, data: st.DataObject) -> None:
        target = self.chosen(self.visible, data)
        self.writers[who].alias("m", name, f"id:{target}")
        for life in self.visible.values():
            life.aliases.discard(name)
        self.visible[target].aliases.add(name)

    # --- they go and come back ------------------------------------------------------------

    @precondition(lambda self: self.visible)
    @rule(who=st.integers(0, 1), data=st.data())
    def delete(self, who: int, data: st.DataObject) -> None:
        target = self.chosen(self.visible, data)
        if self.visible[target].aliases:
            with pytest.raises(errors.StemmataError):
                self.writers[who].delete(f"id:{target}")
        else:
            self.writers[who].delete(f"id:{target}")
            self.hidden[target] = self.visible.pop(target)

    @precondition(lambda self: len(self.visible) > 2)
    @rule(who=st.integers(0, 1), last=st.integers(1, 3))
    def retain(self, who: int, last: int) -> None:
        self.writers[who].retain("m", last=last)
        kept = {v.id.hex for v in self.open().versions("m")}
        assert kept <= set(self.visible)
        assert {name for name, life in self.visible.items() if life.aliases} <= kept
        assert len(kept) >= min(last, len(self.visible))
        for name in set(self.visible) - kept:
            self.hidden[name] = self.visible.pop(name)

    @precondition(lambda self: self.hidden)
    @rule(who=st.integers(0, 1), data=st.data())
    def restore(self, who: int, data: st.DataObject) -> None:
        target = self.chosen(self.hidden, data)
        self.writers[who].restore(f"id:{target}")
        self.visible[target] = self.hidden.pop(target)

    @precondition(lambda self: any(not life.redacted for life in self.visible.values()))
    @rule(who=st.integers(0, 1), data=st.data())
    def redact(self, who: int, data: st.DataObject) -> None:
        target = self.chosen({n: life for n, life in self.visible.items() if not life.redacted}, data)
        self.writers[who].redact(f"id:{target}", ["command"], why="it names a person")
        self.visible[target].redacted = True

    # --- bytes are freed ------------------------------------------------------------------

    @rule(who=st.integers(0, 1))
    def gc(self, who: int) -> None:
        """With the windows that users have: what can be restored stays restorable."""
        self.writers[who].gc()

    @rule(who=st.integers(0, 1))
    def gc_everything(self, who: int) -> None:
        self.writers[who].gc(undo_window=0, grace=0)
        self.lapsed += self.hidden.values()
        self.hidden.clear()
        self.gone += self.lapsed
        self.lapsed.clear()
        self.nothing_of_the_gone_is_left()

    @rule(fault=st.sampled_from(list(Fault)), at=st.integers(0, 24), lasting=st.booleans())
    def gc_and_fail(self, fault: Fault, at: int, lasting: bool) -> None:
        self.failing(fault, at, lasting, lambda repo: repo.gc(undo_window=0, grace=0))
        self.settle_hidden()

    @rule(who=st.integers(0, 1))
    def repack(self, who: int) -> None:
        self.writers[who].repack()

    @rule(fault=st.sampled_from(list(Fault)), at=st.integers(0, 24), lasting=st.booleans())
    def repack_and_fail(self, fault: Fault, at: int, lasting: bool) -> None:
        self.failing(fault, at, lasting, lambda repo: repo.repack())

    def failing(self, fault: Fault, at: int, lasting: bool, action: object) -> None:
        """Something goes wrong at a write; the action happens whole or not at all."""
        storage = FaultyStorage(LocalStorage(self.root / "repo"), at, fault, lasting=lasting)
        repo = Repository(storage)
        run_into(fault, lambda: action(repo))  # type: ignore[operator]

    def settle_hidden(self) -> None:
        """After a collection that was cut off: what it has forgotten cannot come back."""
        forgotten = []
        repo = self.open()
        for name in sorted(self.hidden):
            row = repo.session.catalog.connection.execute(
                "SELECT state FROM versions WHERE id = ?", (bytes.fromhex(name),)
            ).fetchone()
            assert row[0] in ("deleted", "forgotten")
            if row[0] == "forgotten":
                forgotten.append(name)
        self.lapsed += [self.hidden.pop(name) for name in forgotten]
        repo.close()

    # --- a reader that takes its time -----------------------------------------------------

    @precondition(lambda self: self.visible)
    @rule(data=st.data())
    def open_to_read(self, data: st.DataObject) -> None:
        target = self.chosen(self.visible, data)
        self.held.append((self.open().get(f"id:{target}"), self.visible[target]))

    @precondition(lambda self: self.held)
    @rule()
    def read(self) -> None:
        """The right bytes, or a named error where the version was deleted meanwhile."""
        version, life = self.held.pop(0)
        try:
            found = version.read("model.safetensors")
        except errors.StemmataError:
            assert version.id.hex not in self.visible
            return
        assert found == life.weights.content

    # --- the rest -------------------------------------------------------------------------

    @rule(who=st.integers(0, 1))
    def reopen(self, who: int) -> None:
        self.writers[who].close()
        self.writers[who] = self.open()

    @rule(who=st.integers(0, 1))
    def lose_the_cache(self, who: int) -> None:
        """I8: caches may vanish at any time."""
        self.writers[who].close()
        shutil.rmtree(self.root / "repo" / "cache", ignore_errors=True)
        self.writers[who] = self.open()

    @invariant()
    def both_writers_see_the_truth(self) -> None:
        for repo in self.writers:
            assert {v.id.hex for v in repo.versions()} == set(self.visible)

    def nothing_of_the_gone_is_left(self) -> None:
        """Every object that can be read, from every pack there is, and every byte as it lies there."""
        repo = self.open()
        found = every_stored_content(repo)
        repo.close()
        kept = {tensor for life in self.visible.values() for tensor in life.weights.tensors}
        for life in self.gone:
            assert not any(life.secret in content for content in found)
            for tensor in life.weights.tensors - kept:
                assert tensor not in found, "a collected tensor can still be read"
        for life in self.visible.values():
            if life.redacted:
                assert not any(life.secret in content for content in found)

    def teardown(self) -> None:
        repo = self.open()
        assert repo.check().problems == []
        for name, life in self.visible.items():
            assert repo.get(f"id:{name}").read("model.safetensors") == life.weights.content
        for name, life in self.hidden.items():
            assert repo.restore(f"id:{name}")
            assert repo.get(f"id:{name}").read("model.safetensors") == life.weights.content
        for other in [*self.writers, repo]:
            other.close()
        shutil.rmtree(self.root)


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=LIVES,
    stateful_step_count=STEPS,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
