-- The database itself: schema, settings, soundness.

-- name: schema_there
-- Whether there is a Stepwell at all: its table of versions, if we may see it. Reads pg_class, because the name alone
-- is looked up in a cache of the session, which knows nothing of a table made while it waited for schema_lock.
select count(*) > 0 from pg_class where pg_class.oid = to_regclass('stepwell.meta')

-- name: schema_found
-- By primary key.
select meta.value from stepwell.meta where meta.key = 'schema'

-- name: schema_set
-- By primary key, in the transaction of the migration.
insert into stepwell.meta (key, value) values ('schema', %(text)s)
on conflict (key) do update set value = excluded.value

-- name: schema_lock
-- Held until the migration's transaction ends: of two processes that open a new database one waits.
select pg_advisory_xact_lock(%(number)s)::text

-- name: schema_make
-- Nothing if it is there.
create schema if not exists stepwell

-- name: settings
-- What decides whether a commit survives a power cut.
select current_setting('fsync'), current_setting('synchronous_commit'), current_setting('full_page_writes')

-- name: sizes
-- From the catalogue of PostgreSQL: counts are its estimates.
select
    pg_size_pretty(pg_database_size(current_database())),
    pg_size_pretty(coalesce(sum(pg_total_relation_size(c.oid)), 0)),
    current_setting('server_version')
from pg_class c
where c.relnamespace = 'stepwell'::regnamespace and c.relkind = 'r'

-- name: check_open_without_hot
-- Open in the catalogue, and nobody will ever drive it. Reads run and hot whole.
select run.id from stepwell.run
where run.status is null and not exists (select from stepwell.hot where hot.rid = run.rid)
limit 10

-- name: check_hot_without_run
-- A hot row of a run that ended or is not there. Reads hot whole.
select hot.rid::text from stepwell.hot
where not exists (select from stepwell.run where run.rid = hot.rid and run.status is null)
limit 10

-- name: check_gaps
-- A run whose rows are not 1, 2, 3 …: reads record's primary key whole.
select r.rid::text from stepwell.record r
where not exists (select from stepwell.gone where gone.rid = r.rid)
group by r.rid
having count(*) <> max(r.seq) or min(r.seq) <> 1
limit 10

-- name: check_lost_rows
-- Rows of a run that is neither in the catalogue nor being taken away. Reads record's primary key whole.
select distinct r.rid::text from stepwell.record r
where
    not exists (select from stepwell.run where run.rid = r.rid)
    and not exists (select from stepwell.gone where gone.rid = r.rid)
limit 10

-- name: check_blobs
-- A blob whose chunks do not make up its size. Reads blob_chunk whole.
select encode(blob.hash, 'hex') from stepwell.blob
left join stepwell.blob_chunk on blob_chunk.hash = blob.hash
group by blob.hash, blob.size
having blob.size <> coalesce(sum(length(blob_chunk.data)), 0)
limit 10

-- name: check_indexes
-- An index of ours that PostgreSQL does not use.
select c.relname::text from pg_index i
inner join pg_class c on c.oid = i.indexrelid
where c.relnamespace = 'stepwell'::regnamespace and not (i.indisvalid and i.indisready)

-- name: check_checksums
-- Damaged pages that PostgreSQL has met in this database (only where data checksums are on).
select coalesce(checksum_failures, 0)::bigint from pg_stat_database where datname = current_database()

-- name: blob_orphans
-- Blobs that nobody refers to and that no collection has taken for a week: no problem, but space.
select count(*) from stepwell.blob
where
    blob.touched_at <= (extract(epoch from clock_timestamp()) * 1000000)::bigint - 604800000000
    and not exists (select from stepwell.blob_ref where blob_ref.hash = blob.hash)
