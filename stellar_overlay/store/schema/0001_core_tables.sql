-- The two tables of stellar-core, under its names: what operators query (connection.md 9.1).
CREATE TABLE peers (
    ip VARCHAR(15) NOT NULL,
    port INT NOT NULL CHECK (port > 0 AND port <= 65535),
    nextattempt TIMESTAMP NOT NULL,
    numfailures INT NOT NULL DEFAULT 0 CHECK (numfailures >= 0),
    type INT NOT NULL,
    PRIMARY KEY (ip, port)
);
CREATE TABLE ban (
    nodeid CHARACTER(56) NOT NULL PRIMARY KEY
);
