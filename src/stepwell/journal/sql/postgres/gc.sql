-- Retention. A run is taken out of the catalogue first, whole families at once, and remembered in `gone`; then its rows
-- go, in small transactions. Nobody can open again what is half away, and what is broken off is finished next time.

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

-- name: gc_detach
-- Locks and deletes run's rows by primary key, only if all of them are still ended.
with ended as (
    select run.rid from stepwell.run
    where run.rid = any(%(rids)s) and run.status is not null
    order by run.rid
    for update
),

detached as (
    delete from stepwell.run
    where run.rid in (select ended.rid from ended) and (select count(*) from ended) = cardinality(%(rids)s)
    returning run.rid
)

insert into stepwell.gone (rid)
select detached.rid from detached
returning rid

-- name: gc_gone
-- Runs whose rows are still there.
select gone.rid from stepwell.gone order by gone.rid limit %(limit)s

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
