-- Ours: bans that end (Unix seconds), the peers to try first after a restart, and how many times
-- bans were changed, by which the text export and the database know which of them is newer.
CREATE TABLE timed_ban (
    nodeid CHARACTER(56) NOT NULL PRIMARY KEY,
    expires REAL NOT NULL
);
CREATE TABLE anchor (
    position INT NOT NULL PRIMARY KEY,
    ip VARCHAR(45) NOT NULL,
    port INT NOT NULL CHECK (port > 0 AND port <= 65535)
);
CREATE TABLE ban_change (
    number INT NOT NULL
);
INSERT INTO ban_change (number) VALUES (0);
