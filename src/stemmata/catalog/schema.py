"""The catalog's tables. Owns their shape; a file of any other shape is thrown away and built again.

Conventions: `model` is always the model's key (`names.name_key`), `models.name` its spelling. `id`,
`parent`, `target` and `pack` are raw bytes; digests of content and packs' files are hex. `n` is a log
entry's number and `at` the entry's effective time. `version` is `versions.seq`, which grows with the log.
"""

from __future__ import annotations

VERSION = 1
"""Raised whenever a table changes. Part of the file's name, so that releases do not fight over it."""

# facts: a number is `num` (a bool also has text 'true' or 'false', an integer beyond 63 bits its digits as
# text); NaN is num NULL, text 'nan'; a string or a list (as JSON) is text alone; None is NULL in both.
# fact_moves: every value that a metric or label ever had (config and data never change); num and text NULL
# with `removed` set is a label taken away.
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

CREATE TABLE versions (
    seq INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, model TEXT NOT NULL,
    name TEXT NOT NULL,  -- its first name
    n INTEGER NOT NULL, at TEXT NOT NULL,
    state TEXT NOT NULL,  -- visible, deleted, forgotten
    state_n INTEGER NOT NULL,
    record BLOB NOT NULL, tree TEXT NOT NULL,  -- tree: JSON list of object digests
    created_at TEXT NOT NULL, run TEXT, run_id TEXT, step INTEGER, epoch REAL, event TEXT NOT NULL,
    kind TEXT NOT NULL, author TEXT NOT NULL, message TEXT NOT NULL,
    bytes INTEGER NOT NULL, files INTEGER NOT NULL, content TEXT NOT NULL
);
CREATE INDEX versions_by_model ON versions (model, state, seq);
CREATE INDEX versions_by_run ON versions (model, run, seq) WHERE run IS NOT NULL;
CREATE INDEX versions_by_content ON versions (content);

CREATE TABLE version_packs (
    version INTEGER NOT NULL, pack BLOB NOT NULL, PRIMARY KEY (version, pack)
) WITHOUT ROWID;
CREATE INDEX version_packs_by_pack ON version_packs (pack);
CREATE TABLE parents (
    version INTEGER NOT NULL, parent BLOB NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (version, position)
) WITHOUT ROWID;
CREATE INDEX parents_by_parent ON parents (parent);
CREATE TABLE version_states (
    version INTEGER NOT NULL, n INTEGER NOT NULL, at TEXT NOT NULL, state TEXT NOT NULL
);
CREATE INDEX version_states_by_version ON version_states (version, n);

CREATE TABLE facts (
    version INTEGER NOT NULL, space TEXT NOT NULL,  -- metric, config, label, data
    key TEXT NOT NULL, num REAL, text TEXT, n INTEGER NOT NULL,
    PRIMARY KEY (version, space, key)
) WITHOUT ROWID;
CREATE INDEX facts_by_key ON facts (space, key, num);
CREATE TABLE fact_moves (
    version INTEGER NOT NULL, space TEXT NOT NULL, key TEXT NOT NULL, num REAL, text TEXT,
    removed INTEGER NOT NULL DEFAULT 0, n INTEGER NOT NULL, at TEXT NOT NULL
);
CREATE INDEX fact_moves_by_key ON fact_moves (space, key, version, n);

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
CREATE INDEX ref_moves_by_name ON ref_moves (model, key, n);

-- Where objects are known to be; filled as packs are read or written, not by the log.
CREATE TABLE objects (digest BLOB NOT NULL, pack BLOB NOT NULL, PRIMARY KEY (digest, pack)) WITHOUT ROWID;

CREATE TABLE voids (n INTEGER PRIMARY KEY, reason TEXT NOT NULL);
"""
