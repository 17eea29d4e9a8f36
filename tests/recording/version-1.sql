-- A recording as the first version of the tables had it: a frame, a state that lasted and a condition.
PRAGMA application_id = 1414615622;
PRAGMA user_version = 1;
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE frames (at INTEGER PRIMARY KEY, step INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE events (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, severity TEXT NOT NULL, at INTEGER NOT NULL, until INTEGER, cut INTEGER NOT NULL DEFAULT 0, count INTEGER NOT NULL, detail BLOB NOT NULL);
CREATE INDEX events_at ON events (at);
INSERT INTO meta VALUES ('seen', 1700000020000);
INSERT INTO events VALUES (1, 'state', 'found', '', 1700000000000, NULL, 0, 1, CAST('{}' AS BLOB));
INSERT INTO events VALUES (2, 'condition', 'DataPlaneTrainerStarved', 'critical', 1700000005000, 1700000015000, 0, 1, CAST('{"text":"no group is ready"}' AS BLOB));
INSERT INTO frames VALUES (1699999800000, 10, X'00');
