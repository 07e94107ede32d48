"""A second fold, made from FORMAT.md section 3.1 alone: it and ours must judge every entry alike."""

from __future__ import annotations

import copy
import json
import unicodedata
from typing import Any

import msgspec
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from campaigns import cases
from ledger import DictState, add_pack, alias, pack
from random_ops import IDS, SETUP, op
from stemmata.errors import NewerFormat
from stemmata.ids import Digest
from stemmata.log import ops as said
from stemmata.log.entries import Entry, Position, advance, read_entry, seal
from stemmata.log.fold import apply

TEXT, LIST, OBJECT, WHOLE, ANY = "text", "list", "object", "whole", "any"
MAYBE_TEXT, MAYBE_OBJECT = "text?", "object?"
WHY = {"why": TEXT}
REF = {"model": TEXT, "kind": TEXT, "name": TEXT}
PLACED = {"tree": LIST, "packs": LIST}
ADDED = dict.fromkeys(("metrics", "labels", "details", "objects"), MAYBE_OBJECT) | {"notes": MAYBE_TEXT}
FIELDS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "format.upgrade": ({"to": WHOLE}, {}),
    "pack.add": ({"pack": TEXT, "size": WHOLE, "digest": TEXT}, {"bases": LIST}),
    "version.add": ({"model": TEXT, "name": TEXT, "record": ANY} | PLACED, {}),
    "version.place": ({"version": TEXT} | PLACED, {}),
    "version.delete": ({"version": TEXT}, WHY),
    "version.restore": ({"version": TEXT}, {}),
    "version.forget": ({"versions": LIST}, WHY),
    "version.annotate": ({"version": TEXT}, ADDED | {"packs": LIST, "event": TEXT} | WHY),
    "version.redact": ({"version": TEXT, "items": LIST}, WHY),
    "ref.set": (REF | {"to": TEXT}, {"expect": MAYBE_TEXT, "evidence": MAYBE_OBJECT} | WHY),
    "ref.delete": (REF | {"expect": TEXT}, WHY),
    "model.configure": ({"model": TEXT, "settings": OBJECT}, {}),
    "pack.retire": ({"packs": LIST}, WHY),
    "pack.drop": ({"packs": LIST}, {}),
}


class Wrong(Exception):
    """The entry is void."""


def need(holds: object) -> None:
    if not holds:
        raise Wrong


def has_type(value: Any, kind: str) -> bool:
    if kind.endswith("?"):
        return value is None or has_type(value, kind[:-1])
    if kind == LIST:
        return type(value) is list and all(type(item) is str for item in value)
    return kind == ANY or type(value) is {TEXT: str, OBJECT: dict, WHOLE: int}[kind]


def need_types(change: Any) -> None:
    need(type(change) is dict and type(change.get("op")) is str)
    required, optional = FIELDS[change["op"]]
    need(required.keys() <= change.keys())
    for key, value in change.items():
        if key == "origin":
            need(type(value) is dict and value.keys() == {"repository", "txn", "at", "by"})
            need(all(type(text) is str for text in value.values()))
        elif key != "op":
            need(key in required or key in optional)
            need(has_type(value, (required | optional)[key]))
    if change["op"] == "version.annotate":
        need(all(type(v) in (int, float, str) for v in (change.get("metrics") or {}).values()))
        need(all(v is None or type(v) is str for v in (change.get("labels") or {}).values()))
        need(all(type(v) is str for v in (change.get("objects") or {}).values()))


def need_hex(digits: int, *texts: str) -> None:
    for text in texts:
        need(len(text) == digits and set(text) <= set("0123456789abcdef"))


def key_of(name: str) -> str:
    need(0 < len(name.encode()) <= 255)
    need(not any(unicodedata.category(c) == "Cc" for c in name))
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


class Told:
    """The table of section 3.1, row by row."""

    def __init__(self) -> None:
        self.packs: dict[str, str] = {}
        self.bases: dict[str, set[str]] = {}
        self.versions: dict[str, dict[str, Any]] = {}
        self.refs: dict[tuple[str, str], tuple[str, str]] = {}
        self.format = 1

    def entry(self, ops: list[Any]) -> str:
        if any(type(o) is dict and type(o.get("op")) is str and o["op"] not in FIELDS for o in ops):
            return "newer"
        before = copy.deepcopy(self.__dict__)
        try:
            for change in ops:
                need_types(change)
            for change in ops:
                getattr(self, change["op"].replace(".", "_"))(change)
        except Wrong:
            self.__dict__.update(before)
            return "void"
        return "newer" if self.format > 1 else "sound"

    def live(self, names: list[str]) -> None:
        need_hex(32, *names)
        need(all(self.packs.get(name) == "live" for name in names))

    def version(self, name: str, *states: str) -> dict[str, Any]:
        need_hex(64, name)
        need(name in self.versions and self.versions[name]["state"] in states)
        return self.versions[name]

    def needed(self, pack: str) -> bool:
        named = any(pack in v["packs"] for v in self.versions.values() if v["state"] != "forgotten")
        return named or any(self.needed(upon) for upon, bases in self.bases.items() if pack in bases)

    def placed(self, o: Any) -> set[str]:
        need(o["packs"] and o["tree"])
        self.live(o["packs"])
        need_hex(64, *o["tree"])
        return set(o["packs"])

    def format_upgrade(self, o: Any) -> None:
        need(self.format < o["to"] < 2**63)
        self.format = o["to"]

    def pack_add(self, o: Any) -> None:
        need_hex(32, o["pack"])
        need_hex(64, o["digest"])
        need(0 <= o["size"] < 2**63 and o["pack"] not in self.packs)
        self.live(o.get("bases", []))
        self.packs[o["pack"]], self.bases[o["pack"]] = "live", set(o.get("bases", []))

    def version_add(self, o: Any) -> None:
        name = blake3(msgspec.json.encode(o["record"])).hexdigest()
        at = key_of(o["model"]), key_of(o["name"])
        need(name not in self.versions and at not in self.refs)
        kinds = set(o["record"].get("provenance", {}))
        self.versions[name] = {"state": "visible", "model": at[0], "packs": self.placed(o), "kinds": kinds}
        self.versions[name]["redacted"] = set()
        self.refs[at] = ("name", name)

    def version_place(self, o: Any) -> None:
        self.version(o["version"], "visible", "deleted")["packs"] = self.placed(o)

    def version_delete(self, o: Any) -> None:
        version = self.version(o["version"], "visible")
        need(not any(to == o["version"] and kind != "name" for kind, to in self.refs.values()))
        version["state"] = "deleted"

    def version_restore(self, o: Any) -> None:
        self.version(o["version"], "deleted")["state"] = "visible"

    def version_forget(self, o: Any) -> None:
        for name in o["versions"]:
            self.version(name, "deleted")["state"] = "forgotten"

    def version_annotate(self, o: Any) -> None:
        version = self.version(o["version"], "visible")
        need(any(o.get(key) for key in ADDED))
        texts = [v for v in (o.get("metrics") or {}).values() if type(v) is str]
        need(set(texts) <= {"~nan", "~inf", "~-inf"})
        objects, packs = o.get("objects") or {}, o.get("packs", [])
        need(bool(objects) == bool(packs) and not version["kinds"] & objects.keys())
        need_hex(64, *objects.values())
        self.live(packs)
        version["kinds"] |= objects.keys()
        version["packs"] |= set(packs)

    def version_redact(self, o: Any) -> None:
        version = self.version(o["version"], "visible", "deleted")
        for item in o["items"]:
            need(item in version["kinds"] - version["redacted"])
            version["redacted"].add(item)

    def ref_set(self, o: Any) -> None:
        at, expect = (key_of(o["model"]), key_of(o["name"])), o.get("expect")
        need(self.version(o["to"], "visible")["model"] == at[0])
        need(o["kind"] in ("alias", "tag", "name"))
        if expect is not None:
            need_hex(64, expect)
        found = self.refs.get(at)
        if o["kind"] == "alias":
            need(found == (("alias", expect) if expect is not None else None))
        else:
            need(found is None and expect is None)
        self.refs[at] = (o["kind"], o["to"])

    def ref_delete(self, o: Any) -> None:
        need_hex(64, o["expect"])
        at = key_of(o["model"]), key_of(o["name"])
        need(o["kind"] in ("alias", "tag") and self.refs.get(at) == (o["kind"], o["expect"]))
        del self.refs[at]

    def model_configure(self, o: Any) -> None:
        key_of(o["model"])
        need(o["settings"])

    def pack_retire(self, o: Any) -> None:
        need_hex(32, *o["packs"])
        for name in o["packs"]:
            need(self.packs.get(name) in (None, "live") and not self.needed(name))
            self.packs[name] = "retired"

    def pack_drop(self, o: Any) -> None:
        need_hex(32, *o["packs"])
        for name in o["packs"]:
            need(self.packs.get(name) == "retired")
            self.packs[name] = "dropped"


ODD = st.one_of(
    st.sampled_from([None, 1, 1.0, -1, 2**63, True, "", "a\x01", "a" * 300]),
    st.sampled_from(["ab" * 16, "ab" * 32, "AB" * 32, [], ["x"], ["ab" * 16], ["ab" * 32]]),
    st.sampled_from([{}, {"a": 1}, {"a": "~nan"}, {"a": "x"}, {"a": None}, {"a": "ab" * 32}]),
    st.just(dict.fromkeys(("repository", "txn", "at", "by"), "x")),
)
KEYS = st.sampled_from(
    ["why", "origin", "x", "op", "evidence", "objects", "packs", "notes", "expect", "event"]
)


FIRST = IDS[0]
# What has a fair chance against the version, the alias and the pack that there are from the beginning.
APT = st.sampled_from(
    [
        *(said.VersionDelete(version=FIRST), said.VersionRestore(version=FIRST)),
        *(said.VersionForget(versions=[FIRST]), said.VersionRedact(version=FIRST, items=["env"])),
        said.VersionAnnotate(version=FIRST, objects={"out": "cd" * 32}, packs=[pack(1)]),
        said.VersionAnnotate(version=FIRST, objects={"env": "cd" * 32}, packs=[pack(1)]),
        said.VersionAnnotate(version=FIRST, objects={"more": "cd" * 32}),
        said.VersionAnnotate(version=FIRST, notes="x", packs=[pack(2)]),
        *(alias("prod", FIRST, FIRST), alias("prod", FIRST), alias("prod", FIRST, model="other")),
        *(said.RefSet(model="m", kind=kind, name="one", to=FIRST) for kind in ("tag", "name")),
        *(said.RefDelete(model="m", kind=k, name="prod", expect=FIRST) for k in ("alias", "tag")),
        *(said.RefDelete(model="m", kind=k, name="v0", expect=FIRST) for k in ("name", "alias")),
        *(add_pack(2, [1]), said.VersionPlace(version=FIRST, tree=["cd" * 32], packs=[pack(2)])),
        *(said.PackRetire(packs=[pack(n)]) for n in (1, 2)),
        *(said.PackDrop(packs=[pack(n)]) for n in (1, 2)),
    ]
)


@st.composite
def changes(draw: st.DrawFn) -> dict[str, Any]:
    """An op as JSON; now and then with a field taken away, added or made something else."""
    found: dict[str, Any] = json.loads(msgspec.json.encode(draw(st.one_of(op, APT, APT))))
    what = draw(st.sampled_from([*["keep"] * 12, "take", "change", "add"]))
    inner = sorted(found.keys() - {"op", "record"})
    if what == "take":
        del found[draw(st.sampled_from(inner))]
    elif what != "keep":
        found[draw(KEYS if what == "add" else st.sampled_from(inner))] = draw(ODD)
    return found


def judge(state: DictState, here: Position, ops: list[Any]) -> tuple[str, Position]:
    body = {"n": here.n + 1, "format": 1, "txn": "0" * 32, "prev": here.hash.hex, "by": "x", "ops": ops}
    data = seal(msgspec.json.encode({**body, "at": "2026-03-01T00:00:00.000000Z"}))
    try:
        found = read_entry(here.n + 1, data, here)
        position = advance(here, data, found)
        sound = isinstance(found, Entry) and apply(state, position, found) is None
    except NewerFormat:
        return "newer", here
    return "sound" if sound else "void", position


@settings(max_examples=cases(100, 400))
@given(st.lists(st.lists(changes(), min_size=1, max_size=2), min_size=12, max_size=30))
def test_both_folds_judge_every_entry_alike(log: list[list[Any]]) -> None:
    told, ours = Told(), DictState()
    here = Position(0, Digest.of(b"genesis"), "")
    for ops in [*json.loads(msgspec.json.encode([*SETUP, [alias("prod", FIRST)]])), *log]:
        verdict, here = judge(ours, here, ops)
        assert told.entry(ops) == verdict, ops
        if verdict == "newer":
            return
        assert told.packs == {name.hex(): state for name, state in ours.of["packs"].items()}
        assert told.refs == {at: (p.kind, p.target.hex) for at, p in ours.of["refs"].items()}
        states = {name.hex(): version["state"] for name, version in ours.of["versions"].items()}
        assert {name: version["state"] for name, version in told.versions.items()} == states
