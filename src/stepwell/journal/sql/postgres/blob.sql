-- Large values.

-- name: blob_begin
-- By primary key: waits for another writer of the same blob, then touches what that one wrote. True: it is ours to fill.
insert into stepwell.blob (hash, size, touched_at)
values (%(hash)s, 0, (extract(epoch from clock_timestamp()) * 1000000)::bigint)
on conflict (hash) do update set touched_at = greatest(blob.touched_at, excluded.touched_at)
returning xmax = 0

-- name: blob_chunk
-- By primary key.
insert into stepwell.blob_chunk (hash, i, data) values (%(hash)s, %(i)s, %(data)s)

-- name: blob_finish
-- By primary key.
update stepwell.blob set size = %(size)s where blob.hash = %(hash)s

-- name: blob_get
-- By the primary keys. One snapshot: all chunks or none.
select blob.size, blob_chunk.data
from stepwell.blob left join stepwell.blob_chunk on blob_chunk.hash = blob.hash
where blob.hash = %(hash)s
order by blob_chunk.i

-- name: blob_gone_lock
-- Locks blobs that nobody refers to and that were untouched for a day, leaving out those that a writer has locked. The
-- lock makes writers that touch or refer to one of them wait.
select blob.hash from stepwell.blob
where
    blob.hash > %(hash)s
    and blob.touched_at <= (extract(epoch from clock_timestamp()) * 1000000)::bigint - 86400000000
    and not exists (select from stepwell.blob_ref where blob_ref.hash = blob.hash)
order by blob.hash
limit %(limit)s
for update of blob skip locked

-- name: blob_gone
-- Checks again, in a snapshot taken under the lock, and deletes; chunks go by the foreign key.
delete from stepwell.blob
where
    blob.hash = any(%(blobs)s)
    and blob.touched_at <= (extract(epoch from clock_timestamp()) * 1000000)::bigint - 86400000000
    and not exists (select from stepwell.blob_ref where blob_ref.hash = blob.hash)
returning blob.size

-- name: blob_gone_count
-- What a collection would take beside the runs that it would take. No lock.
select count(*), coalesce(sum(blob.size), 0)::bigint
from stepwell.blob
where
    blob.touched_at <= (extract(epoch from clock_timestamp()) * 1000000)::bigint - 86400000000
    and not exists (
        select from stepwell.blob_ref
        where blob_ref.hash = blob.hash and blob_ref.rid <> all(%(rids)s)
    )
