-- What VMs, images and kernels are. No kernel fact (pid, tap, loop, device-mapper name) may ever be stored: schema_test.go.
CREATE TABLE vms (
    id            TEXT PRIMARY KEY,
    name          TEXT NOT NULL UNIQUE,
    want          TEXT NOT NULL CHECK (want IN ('running', 'stopped', 'gone')),
    state         TEXT NOT NULL CHECK (state IN ('stopped', 'starting', 'running', 'stopping', 'removing', 'error')),
    generation    INTEGER NOT NULL,
    image         TEXT NOT NULL,
    image_digest  TEXT NOT NULL,
    kernel        TEXT NOT NULL,
    kernel_digest TEXT NOT NULL,
    vmm           TEXT NOT NULL,
    disk          TEXT NOT NULL,
    network       TEXT NOT NULL,
    created_at    TEXT NOT NULL,
    started_at    TEXT NOT NULL,
    spec          TEXT NOT NULL,
    runtime       TEXT NOT NULL
) STRICT;

CREATE TABLE images (
    name       TEXT PRIMARY KEY,
    digest     TEXT NOT NULL,
    size       INTEGER NOT NULL,
    created_at TEXT NOT NULL,
    init       TEXT NOT NULL,
    env        TEXT NOT NULL,
    source     TEXT NOT NULL
) STRICT;

CREATE TABLE kernels (
    name       TEXT PRIMARY KEY,
    digest     TEXT NOT NULL,
    release    TEXT NOT NULL,
    version    TEXT NOT NULL,
    size       INTEGER NOT NULL,
    created_at TEXT NOT NULL,
    source     TEXT NOT NULL
) STRICT;
