-- What a database of Alya v0.36 holds, as pg_dump --inserts writes it, without what history does not need.
-- The first digit of an id tells the story: 1 success, 2 failed, 3 aborted, 4 slow query that succeeded, 5 that failed,
-- 6 that was aborted, 7 with odd lines, 8 queued, 9 in progress, a without rows.
CREATE TYPE status_enum AS ENUM ('queued', 'inprog', 'success', 'failed', 'aborted', 'wait');
CREATE TABLE batches (
    id uuid PRIMARY KEY, app character varying(255) NOT NULL, op character varying(255) NOT NULL, context jsonb NOT NULL,
    inputfile character varying(255), status status_enum NOT NULL, reqat timestamp without time zone NOT NULL,
    doneat timestamp without time zone, outputfiles jsonb, nsuccess integer, nfailed integer, naborted integer,
    created_at timestamp without time zone
);
CREATE TABLE batchrows (
    rowid bigint PRIMARY KEY, batch uuid NOT NULL, line integer NOT NULL, input jsonb NOT NULL, status status_enum NOT NULL,
    reqat timestamp without time zone NOT NULL, doneat timestamp without time zone, res jsonb, blobrows jsonb,
    messages jsonb, doneby character varying(255), created_at timestamp without time zone
);
CREATE TABLE batch_files (
    id integer PRIMARY KEY, batch_id uuid NOT NULL, object_id text NOT NULL, filename text NOT NULL, size bigint NOT NULL,
    checksum text NOT NULL, content_type text NOT NULL, status boolean NOT NULL,
    received_at timestamp with time zone NOT NULL, processed_at timestamp with time zone, error_message text,
    metadata jsonb, created_at timestamp without time zone
);
INSERT INTO batches VALUES
    ('10000000-0000-0000-0000-000000000000', 'Bank', 'transfer', '{"day": 1}', 'one.csv', 'success', '2026-04-16 10:00:00.5', '2026-04-16 10:05:00', '{"posted.csv": "10000000_posted.csv"}', 2, 0, 0, NULL),
    ('20000000-0000-0000-0000-000000000000', 'bank', 'transfer', '{}', NULL, 'failed', '2026-04-16 11:00:00', '2026-04-16 11:05:00', '{}', 1, 3, 0, NULL),
    ('30000000-0000-0000-0000-000000000000', 'bank', 'transfer', '{}', NULL, 'aborted', '2026-04-16 12:00:00', '2026-04-16 12:05:00', '{"posted.csv": "gone"}', 1, 0, 1, NULL),
    ('40000000-0000-0000-0000-000000000000', 'bank', 'report', '7', NULL, 'success', '2026-04-16 13:00:00', '2026-04-16 13:05:00', '{"report.pdf": "40000000.pdf"}', NULL, NULL, NULL, NULL),
    ('50000000-0000-0000-0000-000000000000', 'bank', 'report', '{}', NULL, 'failed', '2026-04-16 14:00:00', NULL, NULL, NULL, NULL, NULL, NULL),
    ('60000000-0000-0000-0000-000000000000', 'bank', 'report', '{}', NULL, 'aborted', '2026-04-16 15:00:00', '2026-04-16 15:05:00', NULL, NULL, NULL, NULL, NULL),
    ('70000000-0000-0000-0000-000000000000', 'bank', 'transfer', '{}', NULL, 'success', '2026-04-16 16:00:00', '2026-04-16 16:05:00', 'null', 4, 0, 0, NULL),
    ('80000000-0000-0000-0000-000000000000', 'bank', 'transfer', '{}', NULL, 'queued', '2026-04-16 17:00:00', NULL, NULL, NULL, NULL, NULL, NULL),
    ('90000000-0000-0000-0000-000000000000', 'bank', 'transfer', '{}', NULL, 'inprog', '2026-04-16 18:00:00', NULL, NULL, NULL, NULL, NULL, NULL),
    ('a0000000-0000-0000-0000-000000000000', 'bank', 'transfer', '{}', NULL, 'success', '2026-04-16 19:00:00', '2026-04-16 19:05:00', NULL, 0, 0, 0, NULL);
INSERT INTO batchrows VALUES
    (1, '10000000-0000-0000-0000-000000000000', 1, '{"n": 12345678901234567890123}', 'success', '2026-04-16 10:00:00', '2026-04-16 10:01:00', '{"reference": "a"}', '{"posted.csv": "1,a"}', 'null', 'host-17', NULL),
    (2, '10000000-0000-0000-0000-000000000000', 2, '{}', 'success', '2026-04-16 10:00:00', '2026-04-16 10:02:00', NULL, NULL, '[]', 'host-17', NULL),
    (3, '20000000-0000-0000-0000-000000000000', 1, '{}', 'success', '2026-04-16 11:00:00', '2026-04-16 11:01:00', '{}', NULL, NULL, 'host-17', NULL),
    (4, '20000000-0000-0000-0000-000000000000', 2, '{}', 'failed', '2026-04-16 11:00:00', '2026-04-16 11:02:00', NULL, NULL, '[{"msgid": 1005, "errcode": "closed", "field": "creditor", "vals": ["9999"]}]', 'host-17', NULL),
    (5, '20000000-0000-0000-0000-000000000000', 3, '{}', 'failed', '2026-04-16 11:00:00', NULL, '{"seen": 1}', NULL, '[{"msgid": 1005, "errcode": "closed"}]', NULL, NULL),
    (6, '20000000-0000-0000-0000-000000000000', 4, '{}', 'failed', '2026-04-16 11:00:00', '2026-04-16 11:03:00', NULL, NULL, NULL, 'host-17', NULL),
    (7, '30000000-0000-0000-0000-000000000000', 1, '{}', 'success', '2026-04-16 12:00:00', '2026-04-16 12:01:00', '{}', '{"posted.csv": "1,b"}', NULL, 'host-17', NULL),
    (8, '30000000-0000-0000-0000-000000000000', 2, '{}', 'aborted', '2026-04-16 12:00:00', NULL, '{}', '{}', '[]', 'host-17', NULL),
    (9, '40000000-0000-0000-0000-000000000000', 0, '{"month": 4}', 'success', '2026-04-16 13:00:00', '2026-04-16 13:05:00', '[1, 2]', '{}', NULL, 'host-17', NULL),
    (10, '50000000-0000-0000-0000-000000000000', 0, '{}', 'failed', '2026-04-16 14:00:00', '2026-04-16 14:05:00', NULL, NULL, '[{"msgid": 10, "errcode": "processing_error", "vals": ["down"]}]', 'host-17', NULL),
    (11, '60000000-0000-0000-0000-000000000000', 0, '{}', 'aborted', '2026-04-16 15:00:00', '2026-04-16 15:05:00', NULL, NULL, NULL, NULL, NULL),
    (12, '70000000-0000-0000-0000-000000000000', 0, '"zero"', 'success', '2026-04-16 16:00:00', '2026-04-16 16:01:00', '{}', NULL, NULL, 'host-17', NULL),
    (13, '70000000-0000-0000-0000-000000000000', 5, '"first"', 'success', '2026-04-16 16:00:00', '2026-04-16 16:01:00', '{}', NULL, NULL, 'host-17', NULL),
    (14, '70000000-0000-0000-0000-000000000000', 5, '"second"', 'success', '2026-04-16 16:00:00', '2026-04-16 16:01:00', '{}', NULL, NULL, 'host-17', NULL),
    (15, '70000000-0000-0000-0000-000000000000', 6, '"sixth"', 'success', '2026-04-16 16:00:00', '2026-04-16 16:01:00', '{}', NULL, NULL, 'host-17', NULL),
    (16, '80000000-0000-0000-0000-000000000000', 1, '{}', 'queued', '2026-04-16 17:00:00', NULL, NULL, NULL, NULL, NULL, NULL),
    (17, '90000000-0000-0000-0000-000000000000', 1, '{}', 'inprog', '2026-04-16 18:00:00', NULL, NULL, NULL, NULL, 'host-17', NULL);
INSERT INTO batch_files VALUES
    (1, '10000000-0000-0000-0000-000000000000', 'one.csv', '', 17, 'd41d8cd98f00b204e9800998ecf8427e', '', TRUE, '2026-04-16 04:29:00+00', NULL, NULL, NULL, NULL),
    (2, '20000000-0000-0000-0000-000000000000', 'two.csv', 'two.csv', 17, 'd41d8cd98f00b204e9800998ecf8427e', 'text/csv', TRUE, '2026-04-16 05:29:00+00', NULL, NULL, NULL, NULL),
    (3, '80000000-0000-0000-0000-000000000000', 'eight.csv', 'eight.csv', 17, 'd41d8cd98f00b204e9800998ecf8427e', 'text/csv', TRUE, '2026-04-16 11:29:00+00', NULL, NULL, NULL, NULL);
