"""Random operations against a dictionary: save, tag, alias, roll back, reopen, second writer, crash."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from campaigns import cases
from faults import Fault, FaultyStorage, run_into
from makers import model_folder
from stemmata import errors
from stemmata.log.identity import create_identity
from stemmata.repository import Repository
from stemmata.storage.local import LocalStorage

NAMES = st.sampled_from(["one", "Two", "drei", "四"])
ALIASES = st.sampled_from(["production", "staging"])


class Machine(RuleBasedStateMachine):
    """Two writers on one folder; what they may see is kept in plain dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        create_identity(LocalStorage(self.root / "repo"))
        self.writers = [self.open(), self.open()]
        self.saved: dict[str, bytes] = {}
        self.order: list[str] = []
        self.names: dict[str, str] = {}
        self.aliases: dict[str, list[str]] = {}
        self.undone: set[tuple[str, int]] = set()
        self.count = 0

    def open(self) -> Repository:
        return Repository(LocalStorage(self.root / "repo"))

    def folder(self) -> Path:
        self.count += 1
        return model_folder(self.root / "out", self.count, layers=1, width=8)

    @rule(who=st.integers(0, 1))
    def save(self, who: int) -> None:
        folder = self.folder()
        version = self.writers[who].save(folder, "m", name=f"v{self.count}", provenance={})
        self.remember(version.id.hex, folder)

    def remember(self, identity: str, folder: Path) -> None:
        self.saved[identity] = (folder / "model.safetensors").read_bytes()
        self.order.append(identity)
        self.names[f"v{self.count}"] = identity

    @rule(fault=st.sampled_from(list(Fault)), at=st.integers(0, 11), lasting=st.booleans())
    def save_and_fail(self, fault: Fault, at: int, lasting: bool) -> None:
        """A write goes wrong in one of all ways; the save either happened whole or not at all."""
        folder = self.folder()
        name = f"v{self.count}"
        repo = self.open()
        repo.close()
        storage = FaultyStorage(LocalStorage(self.root / "repo"), at, fault, lasting=lasting)
        told: list[str] = []

        def save() -> None:
            told.append(Repository(storage).save(folder, "m", name=name, provenance={}).id.hex)

        run_into(fault, save)
        made = [v.id.hex for v in self.open().versions() if v.name == name]
        assert len(made) <= 1
        assert set(told) <= set(made)
        for identity in made:
            self.remember(identity, folder)

    @precondition(lambda self: self.order)
    @rule(who=st.integers(0, 1), name=NAMES, data=st.data())
    def tag(self, who: int, name: str, data: st.DataObject) -> None:
        target = data.draw(st.sampled_from(self.order))
        repo = self.writers[who]
        if self.names.get(name.casefold(), target) != target:
            with pytest.raises(errors.NameTaken):
                repo.tag("m", name, f"id:{target}")
        else:
            repo.tag("m", name, f"id:{target}")
            self.names[name.casefold()] = target

    @precondition(lambda self: self.order)
    @rule(who=st.integers(0, 1), name=ALIASES, data=st.data())
    def alias(self, who: int, name: str, data: st.DataObject) -> None:
        target = data.draw(st.sampled_from(self.order))
        self.writers[who].alias("m", name, f"id:{target}")
        self.aliases.setdefault(name, []).append(target)

    @precondition(lambda self: self.aliases)
    @rule(who=st.integers(0, 1), data=st.data())
    def rollback_to(self, who: int, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.aliases)))
        target = data.draw(st.sampled_from(self.order))
        self.writers[who].rollback("m", name, to=f"id:{target}")
        self.aliases[name].append(target)
        self.undone.add((name, len(self.aliases[name]) - 1))

    @precondition(lambda self: self.aliases)
    @rule(who=st.integers(0, 1), data=st.data())
    def rollback(self, who: int, data: st.DataObject) -> None:
        """To the value before the current one; where an alias has had no other, it is refused."""
        name = data.draw(st.sampled_from(sorted(self.aliases)))
        before = self.before(name)
        if before is None:
            with pytest.raises(errors.NothingToRollBack):
                self.writers[who].rollback("m", name)
        else:
            self.writers[who].rollback("m", name)
            self.aliases[name].append(before)
            self.undone.add((name, len(self.aliases[name]) - 1))

    def before(self, name: str) -> str | None:
        """What a rollback goes back to: rollbacks undo moves, they are none to be undone."""
        line: list[str] = []
        for place, target in enumerate(self.aliases[name]):
            if (name, place) in self.undone and target in line:
                while line[-1] != target:
                    line.pop()
            else:
                line.append(target)
        return next((t for t in reversed(line) if t != line[-1]), None)

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
            versions = list(repo.versions())
            assert [v.id.hex for v in versions] == self.order[::-1]
            for name, target in self.names.items():
                assert repo.get(f"m@{name}").id.hex == target
            for name, past in self.aliases.items():
                assert repo.get(f"m@{name}").id.hex == past[-1]
                assert [m.after.hex for m in repo.history("m", name) if m.after] == past

    def teardown(self) -> None:
        repo = self.open()
        assert repo.check().problems == []
        for identity, expected in self.saved.items():
            assert repo.get(f"id:{identity}").read("model.safetensors") == expected
        for writer in [*self.writers, repo]:
            writer.close()
        shutil.rmtree(self.root)


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=cases(8, 15),
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
