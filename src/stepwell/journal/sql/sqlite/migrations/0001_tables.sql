-- The first schema. All times are microseconds since 1970 UTC, by the host's clock, held still where it steps back.

-- What a process must know before it touches anything else. If the key `schema` changes its meaning, older versions
-- can no longer tell that they must keep away.
create table meta (key text primary key, value text not null) without rowid;

-- The catalogue: one row for ever, written at a run's start and at its end only. `status` is NULL while the run is
-- open (its open status lies in `hot`). `rid` rises with the starts and is never given twice (autoincrement): a zombie
-- of an old run could else write into a new one. `tags` is a JSON array of texts, NULL without tags.
create table run (
    rid integer primary key autoincrement,
    id text not null unique,
    function text not null,
    door text not null,
    status text,
    reason text,
    created_at integer not null,
    ended_at integer,
    queue text not null,
    tags text,
    target text,
    parent text,
    deadline integer,
    input_hash blob not null
);
create index run_parent on run (parent) where parent is not null;
-- What people look for among a million runs that went well; those pay nothing for it.
create index run_unlucky on run (status, rid) where status <> 'succeeded';

-- One small row for each open run: who holds it, when it wakes, how many facts have come for it. (owner, epoch) is the
-- fence of every write; a change that lets two claims of a run have the same epoch lets two workers write it. `inbox`
-- only ever grows: a park compares it. `due_at`: NULL as long as nobody may take the run.
create table hot (
    rid integer primary key,
    queue text not null,
    function text not null,
    status text not null,
    reason text,
    owner text,
    epoch integer not null,
    wake_at integer,
    waiting_for text,
    inbox integer not null default 0,
    ttl real not null,
    due_at integer generated always as (
        case
            when owner is not null or status = 'blocked' or (status = 'waiting' and wake_at is null) then null
            else coalesce(wake_at, 0)
        end
    ) virtual
);
create index hot_due on hot (queue, due_at) where due_at is not null;
create index hot_owner on hot (owner) where owner is not null;

-- The journal: one row for each batch of records. `k` is rid << 24 | seq, which makes (rid, seq) the primary key and a
-- step's insert an append to one b-tree: a quarter faster than a key of two columns and, with values of some
-- kilobytes, half as large (measured). It is the fence between a claim and a stale append (both want the same seq), and
-- makes a batch all or nothing. Rows are never updated. `data` is a msgpack array. `rid` and `seq` are for people: no
-- query finds rows by them.
create table record (
    k integer primary key,
    epoch integer not null,
    data blob not null,
    rid integer generated always as (k >> 24) virtual,
    seq integer generated always as (k & 16777215) virtual
);

-- Log lines, progress and heartbeats: never part of replay, so losing them loses no work. `data` is UTF-8 as bytes,
-- because people log half surrogate pairs, too.
create table note (
    n integer primary key,
    rid integer not null,
    key text not null,
    kind text not null,
    at integer not null,
    data blob not null
);
create index note_run on note (rid, n);

-- Facts from outside that the holder has not yet turned into records. A row and the counter in `hot` are written in
-- one transaction: a fact without the counter would never be read.
create table inbox (
    n integer primary key autoincrement,
    rid integer not null,
    kind text not null,
    at integer not null,
    data blob not null
);
create index inbox_run on inbox (rid, n);

-- Large values by content, in chunks of at most 1 MiB. The row in `blob` is there before the first chunk, with size -1
-- until the last one is: chunks without a row are rubbish. `touched_at` keeps a blob that a writer has just put, or
-- found there, from being taken away before its record is written.
create table blob (hash blob primary key, size integer not null, touched_at integer not null) without rowid;
create table blob_chunk (hash blob not null, i integer not null, data blob not null, primary key (hash, i));
create table blob_ref (rid integer not null, hash blob not null, primary key (rid, hash)) without rowid;
create index blob_ref_hash on blob_ref (hash);

-- Runs taken out of the catalogue whose rows are still being deleted, in small transactions.
create table gone (rid integer primary key);

-- For doors to come, so that none of them needs a migration. Named locks: leases of a run held by a worker that beats;
-- `epoch` fences a holder that lost it.
create table lock (
    name text primary key,
    rid integer,
    worker text,
    epoch integer not null,
    ttl real not null,
    taken_at integer not null,
    renewed_at integer not null,
    data blob
) without rowid;

-- Timers that belong to no run: schedules.
create table timer (name text primary key, due_at integer not null, data blob not null) without rowid;
create index timer_due on timer (due_at);

-- Signals sent to a run by name, and values that a run publishes under a name.
create table signal (
    rid integer not null, name text not null, n integer not null, at integer not null, data blob not null,
    primary key (rid, name, n)
) without rowid;
create table published (
    rid integer not null, name text not null, at integer not null, data blob not null, primary key (rid, name)
) without rowid;

-- Rows of a door's own, written in a batch's transaction.
create table door_row (
    door text not null, kind text not null, key text not null, data blob not null, primary key (door, kind, key)
) without rowid;
