"""The catalog's tables. Owns their shape; a file of any other shape is thrown away and built again.

Conventions: `model` is always the model's key (`names.name_key`), `models.name` its spelling. `id`,
`parent`, `target` and `pack` are raw bytes; digests of content and packs' files are hex. `n` is a log
entry's number and `at` the entry's effective time. `version` is `versions.seq`, which grows with the log.
"""

from __future__ import annotations

import re
import sqlite3

VERSION = 3
"""Raised whenever a table changes. Part of the file's name, so that releases do not fight over it."""

# A fact is a value by which versions are found. A number is `num` (a bool also has text 'true' or 'false',
# an integer beyond 63 bits its digits as text); NaN is num NULL, text 'nan'; a string or a list (as JSON) is
# text alone; None is NULL in both. Metrics and labels are facts of one version. Config and data never change,
# and all versions of a run have the same: each such object is kept once, as `shared`.
# fact_moves: values that `facts` no longer has; num and text NULL with `removed` set is a label taken away.
# measured_on: by metric, the dataset that an annotation named for the value that stands.
# `at` is NULL in both where it is that of the version.
# ref_moves: target NULL is a deletion.
SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE packs (
    name BLOB PRIMARY KEY, state TEXT NOT NULL,  -- live, retired, dropped
    size INTEGER, digest TEXT, n INTEGER NOT NULL,
    remembered INTEGER NOT NULL DEFAULT 0  -- are its objects in `objects`?
) WITHOUT ROWID;
CREATE TABLE pack_bases (pack BLOB NOT NULL, base BLOB NOT NULL, PRIMARY KEY (pack, base)) WITHOUT ROWID;
CREATE INDEX pack_bases_by_base ON pack_bases (base);

CREATE TABLE models (key TEXT PRIMARY KEY, name TEXT NOT NULL, n INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE settings (
    model TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL,  -- value: JSON
    PRIMARY KEY (model, key)
) WITHOUT ROWID;
CREATE TABLE setting_moves (  -- every change; value NULL: taken away
    model TEXT NOT NULL, key TEXT NOT NULL, value TEXT, n INTEGER NOT NULL, at TEXT NOT NULL, by TEXT NOT NULL
);

CREATE TABLE versions (
    seq INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, model TEXT NOT NULL,
    name TEXT NOT NULL,  -- its first name
    n INTEGER NOT NULL, at TEXT NOT NULL,
    state TEXT NOT NULL,  -- visible, deleted, forgotten
    state_n INTEGER NOT NULL,
    tree TEXT NOT NULL,  -- JSON list of object digests
    created_at TEXT NOT NULL, run TEXT, run_id TEXT, step INTEGER, epoch REAL, event TEXT NOT NULL,
    kind TEXT NOT NULL, author TEXT NOT NULL, message TEXT NOT NULL,
    bytes INTEGER NOT NULL, files INTEGER NOT NULL, content TEXT NOT NULL,
    config INTEGER NOT NULL, data INTEGER NOT NULL  -- shared.id; 0 is an empty object
);
CREATE TABLE records (version INTEGER PRIMARY KEY, record BLOB NOT NULL);  -- apart: large, seldom read

CREATE TABLE version_packs (
    version INTEGER NOT NULL, pack BLOB NOT NULL, PRIMARY KEY (version, pack)
) WITHOUT ROWID;
CREATE INDEX version_packs_by_pack ON version_packs (pack);
CREATE TABLE parents (
    version INTEGER NOT NULL, parent BLOB NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (version, position)
) WITHOUT ROWID;
CREATE TABLE version_states (  -- what became of a version; at first it is visible
    version INTEGER NOT NULL, n INTEGER NOT NULL, at TEXT NOT NULL, state TEXT NOT NULL
);

CREATE TABLE keys (
    id INTEGER PRIMARY KEY, space TEXT NOT NULL,  -- metric, config, label, data, measured_on
    key TEXT NOT NULL, model TEXT NOT NULL,  -- model: '' in config and data
    UNIQUE (space, key, model)
);
CREATE TABLE facts (
    key INTEGER NOT NULL, version INTEGER NOT NULL, num REAL, text TEXT, n INTEGER NOT NULL, at TEXT,
    PRIMARY KEY (key, version)
) WITHOUT ROWID;
CREATE TABLE fact_moves (
    id INTEGER PRIMARY KEY, key INTEGER NOT NULL, version INTEGER NOT NULL, num REAL, text TEXT,
    removed INTEGER NOT NULL, n INTEGER NOT NULL, at TEXT
);
CREATE TABLE shared (
    id INTEGER PRIMARY KEY, space TEXT NOT NULL, digest BLOB NOT NULL,  -- digest: BLAKE3 of its JSON
    UNIQUE (digest, space)
);
CREATE TABLE shared_facts (
    key INTEGER NOT NULL, shared INTEGER NOT NULL, num REAL, text TEXT, PRIMARY KEY (key, shared)
) WITHOUT ROWID;

CREATE TABLE annotations (
    version INTEGER NOT NULL, n INTEGER NOT NULL, at TEXT NOT NULL, by TEXT NOT NULL,
    metrics TEXT NOT NULL, labels TEXT NOT NULL,  -- JSON objects, as in the op
    notes TEXT NOT NULL, details TEXT NOT NULL, objects TEXT NOT NULL,  -- the last two JSON objects
    event TEXT NOT NULL, why TEXT NOT NULL
);
CREATE INDEX annotations_by_version ON annotations (version, n);
CREATE TABLE redactions (
    version INTEGER NOT NULL, item TEXT NOT NULL, n INTEGER NOT NULL, at TEXT NOT NULL, by TEXT NOT NULL,
    why TEXT NOT NULL, PRIMARY KEY (version, item)
) WITHOUT ROWID;

CREATE TABLE refs (
    model TEXT NOT NULL, key TEXT NOT NULL, kind TEXT NOT NULL,  -- alias, tag, name
    name TEXT NOT NULL, target BLOB NOT NULL, n INTEGER NOT NULL,
    PRIMARY KEY (model, key)
) WITHOUT ROWID;
CREATE INDEX refs_by_target ON refs (target);
CREATE TABLE ref_moves (
    model TEXT NOT NULL, key TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, n INTEGER NOT NULL,
    at TEXT NOT NULL, by TEXT NOT NULL, target BLOB, why TEXT NOT NULL,
    evidence TEXT NOT NULL,  -- a JSON object
    txn TEXT NOT NULL
);

-- Where objects are known to be; filled as packs are read or written, not by the log.
CREATE TABLE objects (digest BLOB NOT NULL, pack BLOB NOT NULL, PRIMARY KEY (digest, pack)) WITHOUT ROWID;

-- What packs and versions hold, for whoever asks how much: filled when asked, not by the log.
CREATE TABLE pack_contents (pack BLOB PRIMARY KEY, objects BLOB NOT NULL);
CREATE TABLE version_contents (
    version INTEGER PRIMARY KEY, tree TEXT NOT NULL, files BLOB NOT NULL, beside BLOB NOT NULL
);

CREATE TABLE voids (n INTEGER PRIMARY KEY, reason TEXT NOT NULL);
"""

INDEXES = """
CREATE INDEX packs_unremembered ON packs (n) WHERE remembered = 0;
CREATE INDEX versions_by_model ON versions (model, state, seq);
CREATE INDEX versions_by_run ON versions (model, run, seq) WHERE run IS NOT NULL;
CREATE INDEX versions_by_content ON versions (content);
CREATE INDEX parents_by_parent ON parents (parent);
CREATE INDEX version_states_by_version ON version_states (version, n);
CREATE INDEX facts_by_number ON facts (key, num);
CREATE INDEX fact_moves_by_key ON fact_moves (key, version, id);
CREATE INDEX versions_by_config ON versions (config);
CREATE INDEX versions_by_data ON versions (data);
CREATE INDEX setting_moves_by_key ON setting_moves (model, key, n);
CREATE INDEX ref_moves_by_name ON ref_moves (model, key, n);
"""
"""What the fold itself does not look at: of a long log these are made when it has been folded."""


def statements(script: str) -> list[str]:
    """The statements of a script. `executescript` would commit the caller's transaction first."""
    found: list[str] = []
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            found.append(pending)
            pending = ""
    return found


INDEX_NAMES = re.findall(r"CREATE INDEX (\w+)", INDEXES)
TABLE_NAMES = set(re.findall(r"CREATE TABLE (\w+)", SCHEMA))
