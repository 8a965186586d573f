-- Large values, retention, checks. What writes does so in transactions of at most 5,000 rows or 50 ms (BEGIN IMMEDIATE
-- under the fair lock), so that no step waits longer for it.

-- name: blob_touch
-- Keep a blob from gc for another day; changes no row if it is not there whole.
update blob set touched_at = :now where hash = :hash and size >= 0

-- name: blob_begin
insert into blob (hash, size, touched_at) values (:hash, -1, :now) on conflict (hash) do update set touched_at = :now

-- name: blob_chunk_put
insert or replace into blob_chunk (hash, i, data) values (?, ?, ?)

-- name: blob_chunk_cut
-- What an earlier writer left, who cut the blob otherwise and did not finish.
delete from blob_chunk where hash = :hash and i >= :count

-- name: blob_finish
insert into blob (hash, size, touched_at) values (:hash, :size, :now)
on conflict (hash) do update set size = :size, touched_at = :now

-- name: gc_roots
-- A page of ended runs that match and whose parent, if any, is not on record. Along run's primary key.
select run.rid, run.id from run left join hot on hot.rid = run.rid
where
    run.rid > :after and run.status is not null and {where}
    and (run.parent is null or not exists (select 1 from run as above where above.id = run.parent))
order by run.rid
limit :limit

-- name: gc_family
-- A run and all its descendants: index run_parent for each. `open` is 1 where one of them has not ended.
with recursive family (rid, id, open) as (
    select rid, id, status is null from run where rid = :rid
    union
    select run.rid, run.id, run.status is null from family join run on run.parent = family.id
)
select rid, open from family

-- name: gc_remember
-- From now on nobody can open the run again: run_closed looks here.
insert or ignore into gone (rid) values (?)

-- name: gc_catalogued
-- By run's primary key.
select id from run where rid = ?

-- name: gc_door_rows
-- A piece of the rows that a run has in a door: a range of the primary key for each kind, found by a jump per kind.
delete from door_row where door = :door and (kind, key) in (
    with recursive kinds (kind) as (
        select min(kind) from door_row where door = :door
        union all
        select (select min(kind) from door_row where door = :door and kind > kinds.kind)
        from kinds where kinds.kind is not null
    )
    select door_row.kind, door_row.key from kinds cross join door_row
    where door_row.door = :door and door_row.kind = kinds.kind and door_row.key >= :low and door_row.key < :high
    limit :limit
)

-- name: gc_detach
-- Out of the catalogue before its records go; the id is free again only now that no row of a door has it.
delete from run where rid = ?

-- name: gc_left
select rid from gone order by rid limit ?

-- name: gc_forget
delete from gone where rid = ?

-- name: gc_records
-- A piece of a run's journal: a range of the primary key, found and deleted in one pass.
delete from record where k in (select k from record where k > :low and k <= :high order by k limit :limit)
returning length(data)

-- name: gc_notes
-- Index note_run.
delete from note where n in (select n from note where rid = :rid order by n limit :limit) returning length(data)

-- name: gc_facts
-- Index inbox_run.
delete from inbox where n in (select n from inbox where rid = :rid order by n limit :limit) returning length(data)

-- name: gc_signals
delete from signal where rid = ?

-- name: gc_published
delete from published where rid = ?

-- name: gc_blob_refs
delete from blob_ref where rid = ?

-- name: gc_count
-- What a run's rows come to.
select count(*), coalesce(sum(size), 0) from (
    select length(data) as size from record where k > :low and k <= :high
    union all
    select length(data) from note where rid = :rid
    union all
    select length(data) from inbox where rid = :rid
)

-- name: gc_blobs
-- A page of blobs that rest, in order of hash: blob's primary key.
select hash, size from blob where hash > :after and touched_at <= :oldest order by hash limit :limit

-- name: gc_blob_users
-- Index blob_ref_hash.
select rid from blob_ref where hash = ?

-- name: gc_blob
-- Looks again at touch and references, in the transaction that deletes.
delete from blob
where hash = :hash and touched_at <= :oldest and not exists (select 1 from blob_ref where blob_ref.hash = blob.hash)

-- name: gc_chunks_left
-- Blobs of which only chunks are left, by a collection that was broken off.
select distinct hash from blob_chunk
where not exists (select 1 from blob where blob.hash = blob_chunk.hash)
limit :limit

-- name: gc_chunks
-- A piece of a blob that is gone; none if somebody has begun to write it again.
delete from blob_chunk
where
    hash = :hash and i in (select i from blob_chunk where hash = :hash order by i desc limit :limit)
    and not exists (select 1 from blob where blob.hash = :hash)

-- name: check_integrity
pragma integrity_check(100)

-- name: check_blobs_missing
select run.id, hex(blob_ref.hash)
from blob_ref left join run on run.rid = blob_ref.rid
where not exists (select 1 from blob where blob.hash = blob_ref.hash and blob.size >= 0)
limit 100

-- name: check_blobs_idle
select count(*), coalesce(sum(size), 0) from blob
where touched_at <= :oldest and not exists (select 1 from blob_ref where blob_ref.hash = blob.hash)

-- name: check_hot_without_run
select hot.rid from hot left join run on run.rid = hot.rid where run.rid is null or run.status is not null limit 100

-- name: check_open_without_hot
select run.id from run left join hot on hot.rid = run.rid where run.status is null and hot.rid is null limit 100
