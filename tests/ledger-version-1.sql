-- The tables of version 1 of the ledger, as dicomnode 0.1.0 made them in SQLite.

CREATE TABLE history (
    id INTEGER NOT NULL,
    study_uid VARCHAR(64) NOT NULL,
    at FLOAT NOT NULL,
    state VARCHAR(16) NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (id)
);

CREATE INDEX ix_history_study_uid ON history (study_uid);

CREATE TABLE instance (
    id INTEGER NOT NULL,
    sop_uid VARCHAR(64) NOT NULL,
    sop_class_uid VARCHAR(64) NOT NULL,
    series_uid VARCHAR(64) NOT NULL,
    study_uid VARCHAR(64) NOT NULL,
    transfer_syntax_uid VARCHAR(64) NOT NULL,
    path TEXT NOT NULL,
    sha256 VARCHAR(64) NOT NULL,
    header JSON NOT NULL,
    association VARCHAR(32) NOT NULL,
    received_at FLOAT NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (sop_uid)
);

CREATE INDEX ix_instance_association ON instance (association);
CREATE INDEX ix_instance_study_uid ON instance (study_uid);

CREATE TABLE meta (
    schema_version INTEGER NOT NULL
);

CREATE TABLE study (
    id INTEGER NOT NULL,
    uid VARCHAR(64) NOT NULL,
    state VARCHAR(16) NOT NULL,
    reason TEXT NOT NULL,
    released_because TEXT NOT NULL,
    selection JSON NOT NULL,
    first_at FLOAT NOT NULL,
    last_at FLOAT NOT NULL,
    deadline_at FLOAT,
    released_at FLOAT,
    calling_ae VARCHAR(16) NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (uid)
);

CREATE INDEX ix_study_state ON study (state);

CREATE TABLE task (
    id INTEGER NOT NULL,
    kind VARCHAR(8) NOT NULL,
    study_uid VARCHAR(64) NOT NULL,
    name VARCHAR(64) NOT NULL,
    digest VARCHAR(64) NOT NULL,
    payload JSON NOT NULL,
    state VARCHAR(8) NOT NULL,
    reason TEXT NOT NULL,
    current INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    next_at FLOAT NOT NULL,
    lease_until FLOAT,
    owner VARCHAR(64),
    parent_id INTEGER,
    PRIMARY KEY (id),
    UNIQUE (kind, study_uid, name, digest),
    FOREIGN KEY(parent_id) REFERENCES task (id)
);

CREATE INDEX ix_task_study_uid ON task (study_uid);
CREATE INDEX task_due ON task (kind, state, next_at);

CREATE TABLE transfer (
    association VARCHAR(32) NOT NULL,
    study_uid VARCHAR(64) NOT NULL,
    calling_ae VARCHAR(16) NOT NULL,
    ending VARCHAR(8) NOT NULL,
    PRIMARY KEY (association, study_uid)
);

CREATE INDEX transfer_study ON transfer (study_uid);

CREATE TABLE analysis (
    task_id INTEGER NOT NULL,
    study_uid VARCHAR(64) NOT NULL,
    document JSON NOT NULL,
    PRIMARY KEY (task_id),
    FOREIGN KEY(task_id) REFERENCES task (id)
);

CREATE INDEX ix_analysis_study_uid ON analysis (study_uid);

CREATE TABLE attempt (
    id INTEGER NOT NULL,
    task_id INTEGER NOT NULL,
    at FLOAT NOT NULL,
    outcome VARCHAR(12) NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (id),
    FOREIGN KEY(task_id) REFERENCES task (id)
);

CREATE INDEX ix_attempt_task_id ON attempt (task_id);

CREATE TABLE result (
    sop_uid VARCHAR(64) NOT NULL,
    task_id INTEGER NOT NULL,
    study_uid VARCHAR(64) NOT NULL,
    series_uid VARCHAR(64) NOT NULL,
    sop_class_uid VARCHAR(64) NOT NULL,
    kind VARCHAR(8) NOT NULL,
    path TEXT NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (sop_uid),
    FOREIGN KEY(task_id) REFERENCES task (id)
);

CREATE INDEX ix_result_study_uid ON result (study_uid);
CREATE INDEX ix_result_task_id ON result (task_id);
