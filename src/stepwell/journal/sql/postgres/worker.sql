-- Workers' beats, on a connection of their own. None of these takes a lock but that of the worker's own row.

-- name: worker_register
-- By primary key. A worker that registers again goes on counting: a beat number is never seen twice.
insert into stepwell.worker (id, info, beat, beat_at)
values (%(worker)s, %(info)s, 1, (extract(epoch from clock_timestamp()) * 1000000)::bigint)
on conflict (id) do update
set info = excluded.info, beat = worker.beat + 1, beat_at = excluded.beat_at, left_at = null

-- name: worker_beat
-- By primary key; makes the row again if it was swept away while the process slept. Tells the server's time.
insert into stepwell.worker (id, info, beat, beat_at)
values (%(worker)s, %(info)s, 1, (extract(epoch from clock_timestamp()) * 1000000)::bigint)
on conflict (id) do update set beat = worker.beat + 1, beat_at = excluded.beat_at
returning (extract(epoch from clock_timestamp()) * 1000000)::bigint

-- name: worker_leave
-- By primary key. The row stays, marked, while runs are still the worker's own, so that they are anybody's at once.
with gone as (
    delete from stepwell.worker
    where
        worker.id = %(worker)s
        and not exists (select from stepwell.hot where hot.owner = %(worker)s)
)

update stepwell.worker set left_at = (extract(epoch from clock_timestamp()) * 1000000)::bigint
where
    worker.id = %(worker)s
    and exists (select from stepwell.hot where hot.owner = %(worker)s)

-- name: worker_list
-- All rows; there are as many as workers.
select worker.info from stepwell.worker where worker.left_at is null order by worker.id

-- name: worker_beats
-- All rows, and the owners of runs that have none (hot's index on owner). No lock.
select worker.id, worker.info, worker.beat, worker.left_at is not null
from stepwell.worker
union all
select distinct hot.owner, null::text, 0::bigint, false
from stepwell.hot
where hot.owner is not null and not exists (select from stepwell.worker where worker.id = hot.owner)

-- name: worker_sweep
-- Rows of workers that have not beaten for a day, by this server's clock alone, and hold nothing.
delete from stepwell.worker
where
    worker.beat_at < (extract(epoch from clock_timestamp()) * 1000000)::bigint - 86400000000
    and not exists (select from stepwell.hot where hot.owner = worker.id)

-- name: clock
-- The server's time.
select (extract(epoch from clock_timestamp()) * 1000000)::bigint
