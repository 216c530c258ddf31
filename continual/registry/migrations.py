"""The catalog's schema, as numbered migrations. A released migration is never edited.

A migration is a list of SQL statements, applied in one transaction. The table `migrations` records its number. JSON
columns hold data that is always read as a whole. Times are UTC.
"""

from __future__ import annotations

m001_initial = [
    """
    CREATE TABLE domains (
        name VARCHAR PRIMARY KEY,
        position INTEGER NOT NULL UNIQUE,      -- order of first ingest, from 1
        created_at TIMESTAMP NOT NULL
    )
    """,
    """
    CREATE TABLE batches (
        id VARCHAR PRIMARY KEY,                -- b1, b2, ...
        position INTEGER NOT NULL UNIQUE,
        domain VARCHAR NOT NULL,
        source VARCHAR NOT NULL,               -- the file or data set as the caller named it
        source_sha256 VARCHAR NOT NULL,        -- of its content
        path VARCHAR NOT NULL,                 -- training rows, relative to .continual/
        rows_in BIGINT NOT NULL,
        kept BIGINT NOT NULL,
        duplicates BIGINT NOT NULL,
        leaked BIGINT NOT NULL,
        rejected BIGINT NOT NULL,
        held_out BIGINT NOT NULL,
        rejects_path VARCHAR,                  -- bad rows with their reasons, relative to .continual/
        columns JSON NOT NULL,                 -- which column was read as what: with others it is another batch
        created_at TIMESTAMP NOT NULL
    )
    """,
    """
    CREATE TABLE tasks (
        name VARCHAR PRIMARY KEY,
        position INTEGER NOT NULL UNIQUE,
        domain VARCHAR,                        -- NULL: no domain of ours, out of domain for every version
        path VARCHAR NOT NULL,                 -- relative to .continual/
        queries BIGINT NOT NULL,
        documents BIGINT NOT NULL,
        judgements BIGINT NOT NULL,
        origin VARCHAR NOT NULL,               -- where it came from: a folder, or "holdout"
        sha256 VARCHAR NOT NULL,               -- of its texts and judgements
        created_at TIMESTAMP NOT NULL
    )
    """,
    """
    CREATE TABLE versions (
        id VARCHAR PRIMARY KEY,                -- v0 is the root base
        position INTEGER NOT NULL UNIQUE,
        parent VARCHAR,
        status VARCHAR NOT NULL,               -- root, accepted, refused
        path VARCHAR NOT NULL,                 -- sentence-transformers folder, relative to .continual/
        adapter VARCHAR,                       -- PEFT folder, relative to .continual/
        sha256 VARCHAR NOT NULL,               -- of the weights
        batches JSON NOT NULL,                 -- ids of the batches learned in this step
        pairs_trained BIGINT NOT NULL,
        tokens_trained BIGINT NOT NULL,
        seconds DOUBLE NOT NULL,               -- of training
        joint_pairs BIGINT NOT NULL,           -- what retraining on the whole lineage would have trained
        recipe JSON NOT NULL,                  -- start, merge rule, weight, state, replay, config, seed, libraries
        verdict JSON,                          -- the gate's decision with its figures
        created_at TIMESTAMP NOT NULL
    )
    """,
    """
    CREATE TABLE scores (
        version VARCHAR NOT NULL,
        task VARCHAR NOT NULL,
        metric VARCHAR NOT NULL,               -- the main score, such as ndcg_at_10
        score DOUBLE NOT NULL,                 -- points, 0 to 100
        queries BIGINT NOT NULL,
        path VARCHAR,                          -- per-query values, relative to .continual/
        details JSON NOT NULL,                 -- the other metrics, points
        settings VARCHAR NOT NULL,             -- what the score depends on besides model and task
        created_at TIMESTAMP NOT NULL,
        PRIMARY KEY (version, task)
    )
    """,
    """
    CREATE TABLE alias_events (
        position INTEGER PRIMARY KEY,
        alias VARCHAR NOT NULL,
        version VARCHAR NOT NULL,
        previous VARCHAR,
        "at" TIMESTAMP NOT NULL,
        reason VARCHAR NOT NULL
    )
    """,
    """
    CREATE TABLE runs (
        id VARCHAR PRIMARY KEY,                -- the version that the run will become
        state VARCHAR NOT NULL,                -- running, done, discarded
        spec JSON NOT NULL,                    -- everything a resumed run needs to continue to the same weights
        started_at TIMESTAMP NOT NULL,
        ended_at TIMESTAMP
    )
    """,
]

m002_pins = [
    "ALTER TABLE versions ADD COLUMN pinned BOOLEAN DEFAULT FALSE",  # its snapshot is never dropped
]

m003_licences = [
    "ALTER TABLE batches ADD COLUMN license VARCHAR",  # of the data; NULL: unknown
]


m004_tasks = [
    "ALTER TABLE tasks ADD COLUMN kind VARCHAR DEFAULT 'Retrieval'",  # mteb's name of its type
    "ALTER TABLE tasks ADD COLUMN metric VARCHAR DEFAULT 'ndcg_at_10'",  # the main score
    "ALTER TABLE tasks ADD COLUMN mteb JSON",  # task, parts with data set and revision; NULL: the folder has it all
    # A version may have several scores on one task, each with its settings.
    "ALTER TABLE scores RENAME TO scores_m003",
    """
    CREATE TABLE scores (
        version VARCHAR NOT NULL,
        task VARCHAR NOT NULL,
        metric VARCHAR NOT NULL,
        score DOUBLE NOT NULL,
        queries BIGINT NOT NULL,
        path VARCHAR,
        details JSON NOT NULL,
        settings VARCHAR NOT NULL,
        created_at TIMESTAMP NOT NULL,
        PRIMARY KEY (version, task, settings)
    )
    """,
    """
    INSERT INTO scores
    SELECT version, task, metric, score, queries, path, details, settings, created_at FROM scores_m003
    """,
    "DROP TABLE scores_m003",
]

m005_leaks = [
    """
    CREATE TABLE leaks (
        task VARCHAR NOT NULL,
        batch VARCHAR NOT NULL,                -- stored before the task was registered
        rows BIGINT NOT NULL,                  -- its rows that leak into the task, near duplicates included
        near BIGINT NOT NULL,                  -- near duplicates of a text of the task
        found_at TIMESTAMP NOT NULL,
        PRIMARY KEY (task, batch)
    )
    """,
]

m006_compatibility = [
    """
    CREATE TABLE compatibility (
        old VARCHAR NOT NULL,                  -- the version whose index there is
        new VARCHAR NOT NULL,                  -- the version that asks it
        result JSON NOT NULL,                  -- what was measured, see docs/compatibility.md
        created_at TIMESTAMP NOT NULL,
        PRIMARY KEY (old, new)
    )
    """,
]

m007_kinds = [
    "ALTER TABLE domains ADD COLUMN kind VARCHAR DEFAULT 'retrieval'",  # the type of task that its rows are of
    "ALTER TABLE domains ADD COLUMN instruction VARCHAR",  # put before its queries; NULL: nothing is
    "ALTER TABLE tasks ADD COLUMN instruction VARCHAR",  # that of its domain
]

m008_names = [
    "ALTER TABLE versions RENAME COLUMN recipe TO provenance",  # a recipe is BOOM, joint, phased ...
    "ALTER TABLE tasks RENAME COLUMN kind TO task_type",  # a kind is a domain's
]

m009_digests = [
    """
    CREATE TABLE files (
        path VARCHAR PRIMARY KEY,              -- relative to .continual/
        artifact VARCHAR NOT NULL,             -- the file or folder that a record names, relative to .continual/
        size BIGINT NOT NULL,
        sha256 VARCHAR NOT NULL
    )
    """,
]

m010_counters = [
    """
    CREATE TABLE counters (
        name VARCHAR PRIMARY KEY,              -- a table with a position, such as batches
        last INTEGER NOT NULL                  -- the highest position of a row that was deleted
    )
    """,
]

MIGRATIONS: list[list[str]] = [
    m001_initial,
    m002_pins,
    m003_licences,
    m004_tasks,
    m005_leaks,
    m006_compatibility,
    m007_kinds,
    m008_names,
    m009_digests,
    m010_counters,
]
"""Migration n is `MIGRATIONS[n - 1]`."""
