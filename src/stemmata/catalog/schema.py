"""The catalog's tables. Owns their shape; a file of any other shape is thrown away and built again.

Conventions: `model` is always the model's key (`names.name_key`), `models.name` its spelling. `id`,
`parent`, `target` and `pack` are raw bytes; digests of content and packs' files are hex. `n` is a log
entry's number and `at` the entry's effective time. `version` is `versions.seq`, which grows with the log.
"""

from __future__ import annotations

import re
import sqlite3

VERSION = 7
"""Raised whenever a table changes, or what the fold puts into one: what earlier releases have folded, into
catalogs and checkpoints, is not read then. Part of their names, so that releases do not fight over them."""

# A fact is a value by which versions are found. A number is `num`: a float, or the integer itself where that
# is beyond 53 bits (a bool also has text 'true' or 'false', an integer beyond 63 bits is a float that has its
# digits as text); NaN is num NULL, text x'6e616e'; a string or a list (as JSON) is text alone; None is NULL
# in both. Metrics and labels are facts of one version. Config and data never change,
# and all versions of a run have the same: each such object is kept once, as `shared`.
# Facts of a key stand in the tables if `keys.filled` says so. The fold of a long log leaves them out: they
# are made of `versions.metrics`, `annotations` and `shared.text` when a question needs them: see `filling`.
# fact_moves: values that `facts` no longer has; num and text NULL with `removed` set is a label taken away.
# measured_on: by metric, the dataset that an annotation named for the value that stands.
# `at` is NULL in both where it is that of the version.
# What nearly every version has one of - a name, a parent, a pack - is a column of it; what it has beside lies
# in `pointers` and `moves`, `more_parents`, `more_packs`. The views put both together: ask those.
# ref_moves: target NULL is a deletion; `id` tells the order of the moves of one entry.
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
    seq INTEGER PRIMARY KEY, id BLOB NOT NULL, model TEXT NOT NULL,
    key TEXT NOT NULL, name TEXT NOT NULL,  -- its first name
    n INTEGER NOT NULL, at TEXT NOT NULL, by TEXT NOT NULL, txn TEXT NOT NULL,
    state TEXT NOT NULL,  -- visible, deleted, forgotten
    state_n INTEGER NOT NULL,
    tree TEXT NOT NULL,  -- JSON list of object digests
    created_at TEXT NOT NULL, run TEXT, run_id TEXT, step INTEGER, epoch REAL, event TEXT NOT NULL,
    kind TEXT NOT NULL, author TEXT NOT NULL, message TEXT NOT NULL,
    bytes INTEGER NOT NULL, files INTEGER NOT NULL, content TEXT NOT NULL,
    metrics BLOB NOT NULL,  -- JSON, as the record has them
    config INTEGER NOT NULL, data INTEGER NOT NULL,  -- shared.id; 0 is an empty object
    parent BLOB, pack BLOB, base BLOB,  -- its first parent, one of its packs, the version it is loaded on
    base_name INTEGER  -- base_names.id: what that was called, or a model that is no version
);
CREATE TABLE base_names (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE INDEX versions_by_pack ON versions (pack);
CREATE TABLE records (first INTEGER PRIMARY KEY, data BLOB NOT NULL);  -- some together: see `chunks`

CREATE TABLE more_packs (
    version INTEGER NOT NULL, pack BLOB NOT NULL, PRIMARY KEY (version, pack)
) WITHOUT ROWID;
CREATE INDEX more_packs_by_pack ON more_packs (pack);
CREATE VIEW version_packs AS
    SELECT seq AS version, pack FROM versions WHERE pack IS NOT NULL
    UNION ALL SELECT version, pack FROM more_packs;
CREATE TABLE more_parents (
    version INTEGER NOT NULL, parent BLOB NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (version, position)
) WITHOUT ROWID;
CREATE VIEW parents AS
    SELECT seq AS version, parent, 0 AS position FROM versions WHERE parent IS NOT NULL
    UNION ALL SELECT version, parent, position FROM more_parents;
CREATE TABLE version_states (  -- what became of a version; at first it is visible
    version INTEGER NOT NULL, n INTEGER NOT NULL, at TEXT NOT NULL, state TEXT NOT NULL
);

CREATE TABLE keys (
    id INTEGER PRIMARY KEY, space TEXT NOT NULL,  -- metric, config, label, data, measured_on
    key TEXT NOT NULL, model TEXT NOT NULL,  -- model: '' in config and data
    filled INTEGER NOT NULL,  -- do its facts stand in the tables?
    UNIQUE (space, key, model)
);
CREATE TABLE facts (
    key INTEGER NOT NULL, version INTEGER NOT NULL, num, text TEXT, n INTEGER NOT NULL, at TEXT,
    PRIMARY KEY (key, version)
) WITHOUT ROWID;
CREATE TABLE fact_moves (
    id INTEGER PRIMARY KEY, key INTEGER NOT NULL, version INTEGER NOT NULL, num, text TEXT,
    removed INTEGER NOT NULL, n INTEGER NOT NULL, at TEXT
);
CREATE TABLE shared (
    id INTEGER PRIMARY KEY, space TEXT NOT NULL,
    digest BLOB NOT NULL, text BLOB NOT NULL,  -- its JSON, and the BLAKE3 of that
    UNIQUE (digest, space)
);
CREATE TABLE shared_facts (
    key INTEGER NOT NULL, shared INTEGER NOT NULL, num, text TEXT, PRIMARY KEY (key, shared)
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

CREATE TABLE pointers (  -- aliases, tags, and further names of versions
    model TEXT NOT NULL, key TEXT NOT NULL, kind TEXT NOT NULL,  -- alias, tag, name
    name TEXT NOT NULL, target BLOB NOT NULL, n INTEGER NOT NULL,
    PRIMARY KEY (model, key)
) WITHOUT ROWID;
CREATE INDEX pointers_by_target ON pointers (target);
CREATE VIEW refs AS
    SELECT model, key, 'name' AS kind, name, id AS target, n FROM versions
    UNION ALL SELECT model, key, kind, name, target, n FROM pointers;
CREATE TABLE moves (
    id INTEGER PRIMARY KEY,
    model TEXT NOT NULL, key TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, n INTEGER NOT NULL,
    at TEXT NOT NULL, by TEXT NOT NULL, target BLOB, why TEXT NOT NULL,
    evidence TEXT NOT NULL,  -- a JSON object
    txn TEXT NOT NULL
);
CREATE VIEW ref_moves AS
    SELECT 0 AS id, model, key, 'name' AS kind, name, n, at, by, id AS target, '' AS why, '{}' AS evidence,
        txn FROM versions
    UNION ALL SELECT id, model, key, kind, name, n, at, by, target, why, evidence, txn FROM moves;

-- Where objects are known to be; filled as packs are read or written, not by the log.
CREATE TABLE objects (digest BLOB NOT NULL, pack BLOB NOT NULL, PRIMARY KEY (digest, pack)) WITHOUT ROWID;

-- What packs and versions hold, for whoever asks how much: filled when asked, not by the log.
CREATE TABLE pack_contents (pack BLOB PRIMARY KEY, objects BLOB NOT NULL);
CREATE TABLE version_contents (
    version INTEGER PRIMARY KEY, tree TEXT NOT NULL, files BLOB NOT NULL, beside BLOB NOT NULL
);

-- The last entries as they were read (see `recent`): of no meaning to the catalog itself.
CREATE TABLE recent (n INTEGER PRIMARY KEY, entry BLOB NOT NULL);

CREATE TABLE voids (n INTEGER PRIMARY KEY, reason TEXT NOT NULL);
"""

INDEXES = """
CREATE UNIQUE INDEX versions_by_id ON versions (id);
CREATE UNIQUE INDEX versions_by_name ON versions (model, key);
CREATE INDEX packs_unremembered ON packs (n) WHERE remembered = 0;
CREATE INDEX versions_by_model ON versions (model, state, seq);
CREATE INDEX versions_by_run ON versions (model, run, seq) WHERE run IS NOT NULL;
CREATE INDEX versions_by_content ON versions (content);
CREATE INDEX versions_by_parent ON versions (parent);
CREATE INDEX versions_by_base ON versions (base) WHERE base IS NOT NULL;
CREATE INDEX versions_by_base_name ON versions (base_name) WHERE base_name IS NOT NULL;
CREATE INDEX more_parents_by_parent ON more_parents (parent);
CREATE INDEX version_states_by_version ON version_states (version, n);
CREATE INDEX facts_by_number ON facts (key, num);
CREATE INDEX fact_moves_by_key ON fact_moves (key, version, id);
CREATE INDEX versions_by_config ON versions (config);
CREATE INDEX versions_by_data ON versions (data);
CREATE INDEX moves_by_name ON moves (model, key, n);
CREATE INDEX setting_moves_by_key ON setting_moves (model, key, n);
"""
"""What the fold does not look at while it knows all there is: of a long log these are made at its end."""


_COMMENT = re.compile(r"\s*--.*")


def statements(script: str) -> list[str]:
    """The statements of a script. `executescript` would commit the caller's transaction first."""
    found: list[str] = []
    pending = ""
    # SQLite keeps each as it is given, and two files are of one shape if these are alike.
    for line in _COMMENT.sub("", script).splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            found.append(pending)
            pending = ""
    return found


INDEX_NAMES = re.findall(r"CREATE (?:UNIQUE )?INDEX (\w+)", INDEXES)
TABLE_NAMES = set(re.findall(r"CREATE (?:TABLE|VIEW) (\w+)", SCHEMA))
