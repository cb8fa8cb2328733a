-- Numbers that one VM has for itself alone, chosen when its row is made: addresses, users. They end with the row.
CREATE TABLE leases (
    kind TEXT NOT NULL,
    n    INTEGER NOT NULL,
    vm   TEXT NOT NULL REFERENCES vms (id) ON DELETE CASCADE,
    PRIMARY KEY (kind, n),
    UNIQUE (vm, kind)
) STRICT;
