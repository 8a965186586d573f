-- The first schema. `stepwell.` in front of a name stands for the schema that the store's URL names (?schema=…).
-- All times are microseconds since 1970 UTC, by this server's clock unless a column says otherwise.

-- What a process must know before it touches anything else. If the key `schema` changes its meaning, older
-- versions can no longer tell that they must keep away.
create table stepwell.meta (
    key text collate "C" primary key,
    value text not null
);

-- The catalogue: one row for ever, written at a run's start and at its end only. `status` is NULL while the run is
-- open (its open status lies in `hot`): a status that changed with each step would turn one insert a step into two
-- writes. `rid` rises with the starts: lists are read backwards along the primary key. Were a rid ever given twice, a
-- zombie of the old run could write into the new one. `id` has the collation "C" so that a prefix is a range.
-- fillfactor leaves room on the page for the run's end (a HOT update: no indexed column changes).
create table stepwell.run (
    rid bigint generated always as identity primary key,
    id text collate "C" not null unique,
    function text not null,
    door text not null,
    status text,
    reason text,
    created_at bigint not null,
    ended_at bigint,
    queue text not null,
    tags text[] not null,
    target text,
    parent text collate "C",
    deadline bigint,
    input_hash bytea not null
) with (fillfactor = 85);
create index run_parent on stepwell.run (parent) where parent is not null;

-- One small row for each open run: who holds it, when it wakes, how many facts have come for it. (owner, epoch) is the
-- fence of every write; a change that lets two claims of a run have the same epoch lets two workers write it.
-- `inbox` only ever grows: a park compares it. `due_at` is what a worker looks for: NULL as long as nobody may take
-- the run, so that parking in place and facts for a held run change no index.
create table stepwell.hot (
    rid bigint primary key,
    queue text not null,
    function text not null,
    status text not null,
    reason text,
    owner text collate "C",
    epoch integer not null,
    wake_at bigint,
    waiting_for text,
    inbox integer not null default 0,
    ttl double precision not null,
    due_at bigint generated always as (
        case
            when owner is not null or status = 'blocked' or (status = 'waiting' and wake_at is null) then null
            else coalesce(wake_at, 0)
        end
    ) stored
) with (
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 2000,
    autovacuum_analyze_threshold = 2000,
    autovacuum_vacuum_cost_delay = 0
);
create index hot_due on stepwell.hot (due_at) where due_at is not null;
create index hot_owner on stepwell.hot (owner) where owner is not null;

-- The journal: one row for each batch of records. The primary key *is* the fence between a claim and a stale append
-- (both want the same seq), and makes a batch all or nothing. Rows are never updated. `data` is a msgpack array of
-- records (stepwell.core); the order of the columns saves padding.
create table stepwell.record (
    rid bigint not null,
    seq integer not null,
    epoch integer not null,
    data bytea not null,
    primary key (rid, seq)
);

-- Log lines, progress and heartbeats: never part of replay, so losing them loses no work. `data` is UTF-8 as bytes
-- because text of PostgreSQL takes neither NUL nor half a surrogate pair, and people log such things.
create table stepwell.note (
    n bigint generated always as identity,
    rid bigint not null,
    key text not null,
    kind text not null,
    at bigint not null,
    data bytea not null,
    primary key (rid, n)
);

-- Facts from outside that the holder has not yet turned into records. A row and the counter in `hot` are written in
-- one transaction: a fact without the counter would never be read.
create table stepwell.inbox (
    n bigint generated always as identity,
    rid bigint not null,
    kind text not null,
    at bigint not null,
    data bytea not null,
    primary key (rid, n)
);

-- Large values by content. A row is committed together with all its chunks; `touched_at` keeps a blob that a writer
-- has just put, or found there, from being taken away before its record is written.
create table stepwell.blob (
    hash bytea primary key,
    size bigint not null,
    touched_at bigint not null
);
create table stepwell.blob_chunk (
    hash bytea not null references stepwell.blob on delete cascade,
    i integer not null,
    data bytea not null,
    primary key (hash, i)
);
-- Chunks come compressed.
alter table stepwell.blob_chunk alter column data set storage external;

-- Which runs need a blob. The foreign key is what closes the last gap between a writer that refers to a blob and a
-- collection that deletes it: one of the two waits for the other, and loses.
create table stepwell.blob_ref (
    rid bigint not null,
    hash bytea not null references stepwell.blob,
    primary key (rid, hash)
);
create index blob_ref_hash on stepwell.blob_ref (hash);

-- Runs taken out of the catalogue whose rows are still being deleted, in small transactions. Losing a row here leaves
-- rows that nobody deletes.
create table stepwell.gone (
    rid bigint primary key
);

-- Workers and their beats. `beat` is a counter, compared with nothing but its own last value by each observer;
-- `beat_at` is by this server's clock and only tells when a row is old enough to be swept away. `left_at`: the worker
-- left although runs were still its own.
create table stepwell.worker (
    id text collate "C" primary key,
    info text not null,
    beat bigint not null,
    beat_at bigint not null,
    left_at bigint
) with (fillfactor = 50, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);

-- Named locks: leases of a run held by a worker that beats; `epoch` fences a holder that lost it. `ttl` counts only
-- where no worker stands behind the lock, by this server's time.
create table stepwell.lock (
    name text collate "C" primary key,
    rid bigint,
    worker text collate "C",
    epoch bigint not null,
    ttl double precision not null,
    taken_at bigint not null,
    renewed_at bigint not null,
    data bytea
);
create index lock_worker on stepwell.lock (worker) where worker is not null;
create index lock_run on stepwell.lock (rid) where rid is not null;

-- Timers that belong to no run: schedules.
create table stepwell.timer (
    name text collate "C" primary key,
    due_at bigint not null,
    data bytea not null
);
create index timer_due on stepwell.timer (due_at);

-- Signals sent to a run by name, before or after it asks for them, and values that a run publishes under a name.
create table stepwell.signal (
    n bigint generated always as identity,
    rid bigint not null,
    name text collate "C" not null,
    at bigint not null,
    data bytea not null,
    primary key (rid, name, n)
);
create table stepwell.published (
    rid bigint not null,
    name text collate "C" not null,
    at bigint not null,
    data bytea not null,
    primary key (rid, name)
);

-- Rows of a door's own, written in a batch's transaction. Keys are read in order of code point: hence "C".
create table stepwell.door_row (
    door text collate "C" not null,
    kind text collate "C" not null,
    key text collate "C" not null,
    data bytea not null,
    primary key (door, kind, key)
);
