-- Retention. Runs are remembered in `gone` first, whole families at once: from then on nobody can open them again. Then
-- the rows go that doors have of them, and with the last of these the catalogue's row: these rows are known by the run's
-- id, which must not be free as long as one is there. Then the rest, known by rid, goes, all in small transactions. What
-- is broken off is finished next time.

-- name: gc_roots
-- After run_from and run_where (run.status is not null): by run's primary key, forwards. A child whose parent is on
-- record goes with it only.
and run.status is not null
and run.rid > %(after)s
and (run.parent is null or not exists (select from stepwell.run above where above.id = run.parent))
order by run.rid
limit %(limit)s

-- name: gc_root_columns
-- Before run_from.
select run.rid

-- name: gc_family
-- Runs and their children's children, by run's index on parent.
with recursive family (root, rid, id, status) as (
    select run.rid, run.rid, run.id, run.status from stepwell.run where run.rid = any(%(rids)s)
    union
    select family.root, run.rid, run.id, run.status
    from family inner join stepwell.run on run.parent = family.id
)

select family.root, family.rid, family.status is null from family order by family.root, family.rid

-- name: run_lock
-- By run's primary key, in order of rid. The statement behind it sees what whoever had the lock has committed.
select run.rid from stepwell.run where run.rid = any(%(rids)s) order by run.rid for update

-- name: gc_detach
-- Behind run_lock, in the same transaction: nothing if one of the runs is open (again). Deletes rows of the door, found
-- by a jump per kind and a range of the primary key for each run (OFFSET 0 forbids any other plan: one made before the
-- table was ever analysed took 49 seconds for 200 runs among 100,000, this one milliseconds), at most so many; the
-- catalogue's rows, by primary key, only if that were all of them.
with recursive ended as (
    select run.rid, run.id from stepwell.run
    where
        run.rid = any(%(rids)s)
        and not exists (select from stepwell.run r where r.rid = any(%(rids)s) and r.status is null)
),

kinds (kind) as (
    select min(door_row.kind) from stepwell.door_row where door_row.door = %(door)s
    union all
    select (
        select min(door_row.kind) from stepwell.door_row where door_row.door = %(door)s and door_row.kind > kinds.kind
    )
    from kinds
    where kinds.kind is not null
),

doomed as (
    select theirs.kind, theirs.key
    from ended, kinds, lateral (
        select door_row.kind, door_row.key from stepwell.door_row
        where
            door_row.door = %(door)s and door_row.kind = kinds.kind
            and door_row.key >= ended.id || '/' and door_row.key < ended.id || '0'
        offset 0
    ) as theirs
    limit %(limit)s
),

rows_deleted as (
    delete from stepwell.door_row using doomed
    where door_row.door = %(door)s and door_row.kind = doomed.kind and door_row.key = doomed.key
),

detached as (
    delete from stepwell.run using ended
    where run.rid = ended.rid and (select count(*) from doomed) < %(limit)s
)

insert into stepwell.gone (rid)
select ended.rid from ended
on conflict (rid) do update set rid = excluded.rid
returning rid

-- name: gc_gone
-- Runs whose rows are still there, and whether each is in the catalogue still.
select gone.rid, exists (select from stepwell.run where run.rid = gone.rid)
from stepwell.gone
where gone.rid > %(after)s
order by gone.rid
limit %(limit)s

-- name: gc_records
-- By record's primary key, at most so many.
with doomed as (
    select r.rid, r.seq from stepwell.record r where r.rid = any(%(rids)s) order by r.rid, r.seq limit %(limit)s
),

deleted as (
    delete from stepwell.record using doomed
    where record.rid = doomed.rid and record.seq = doomed.seq
    returning length(record.data) as size
)

select count(*), coalesce(sum(deleted.size), 0)::bigint from deleted

-- name: gc_notes
-- By note's primary key, at most so many.
with doomed as (
    select note.rid, note.n from stepwell.note
    where note.rid = any(%(rids)s)
    order by note.rid, note.n
    limit %(limit)s
),

deleted as (
    delete from stepwell.note using doomed
    where note.rid = doomed.rid and note.n = doomed.n
    returning length(note.data) as size
)

select count(*), coalesce(sum(deleted.size), 0)::bigint from deleted

-- name: gc_inbox
-- By inbox's primary key, at most so many.
with doomed as (
    select inbox.rid, inbox.n from stepwell.inbox
    where inbox.rid = any(%(rids)s)
    order by inbox.rid, inbox.n
    limit %(limit)s
),

deleted as (
    delete from stepwell.inbox using doomed
    where inbox.rid = doomed.rid and inbox.n = doomed.n
    returning length(inbox.data) as size
)

select count(*), coalesce(sum(deleted.size), 0)::bigint from deleted

-- name: gc_rest
-- What is left of runs when their rows are gone; each by its primary key's first column.
with refs as (
    delete from stepwell.blob_ref where blob_ref.rid = any(%(rids)s)
),

signals as (
    delete from stepwell.signal where signal.rid = any(%(rids)s)
),

values_published as (
    delete from stepwell.published where published.rid = any(%(rids)s)
)

delete from stepwell.gone where gone.rid = any(%(rids)s)

-- name: gc_sizes
-- What a run's rows are, for a dry run. By the primary keys' first column; no lock.
select
    (select count(*) from stepwell.record r where r.rid = %(rid)s)
    + (select count(*) from stepwell.note where note.rid = %(rid)s)
    + (select count(*) from stepwell.inbox where inbox.rid = %(rid)s),
    (
        (select coalesce(sum(length(r.data)), 0) from stepwell.record r where r.rid = %(rid)s)
        + (select coalesce(sum(length(note.data)), 0) from stepwell.note where note.rid = %(rid)s)
        + (select coalesce(sum(length(inbox.data)), 0) from stepwell.inbox where inbox.rid = %(rid)s)
    )::bigint
