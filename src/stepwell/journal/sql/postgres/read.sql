-- Reading. None of these takes a lock.

-- name: hot_columns
-- The columns of every query that gives hot rows.
select
    hot.rid, run.id, hot.function, run.door, hot.queue, hot.status, hot.reason, hot.owner, hot.epoch, hot.wake_at,
    hot.waiting_for, hot.inbox, hot.ttl
from stepwell.hot inner join stepwell.run on run.rid = hot.rid

-- name: hot_get
-- After hot_columns. By run's index on id, then hot's primary key.
where run.id = %(id)s

-- name: hot_due
-- After hot_columns. By hot's index on due_at.
where
    hot.due_at <= %(now)s
    and (%(queues)s::text[] is null or hot.queue = any(%(queues)s))
    and (%(functions)s::text[] is null or hot.function = any(%(functions)s))
order by hot.due_at, hot.rid
limit %(limit)s

-- name: hot_orphaned
-- After hot_columns. By hot's index on owner, for each silent worker.
inner join unnest(%(workers)s::text[], %(seconds)s::float8[]) as silent (worker, seconds) on silent.worker = hot.owner
where
    hot.status <> 'blocked' and silent.seconds >= hot.ttl
    and (%(queues)s::text[] is null or hot.queue = any(%(queues)s))
    and (%(functions)s::text[] is null or hot.function = any(%(functions)s))
order by coalesce(hot.wake_at, 0), hot.rid
limit %(limit)s

-- name: hot_held
-- By hot's index on owner.
select hot.rid, hot.epoch, hot.inbox from stepwell.hot where hot.owner = %(worker)s

-- name: hot_next_wake
-- By hot's index on due_at.
select hot.due_at from stepwell.hot
where
    hot.due_at > 0
    and (%(queues)s::text[] is null or hot.queue = any(%(queues)s))
    and (%(functions)s::text[] is null or hot.function = any(%(functions)s))
order by hot.due_at
limit 1

-- name: inbox_load
-- By inbox's primary key.
select inbox.n, inbox.kind, inbox.at, inbox.data from stepwell.inbox where inbox.rid = %(rid)s order by inbox.n

-- name: record_load
-- By record's primary key. A collection that has begun on a run has taken it out of the catalogue: see `gone`.
select r.seq, r.epoch, r.data from stepwell.record r
where r.rid = %(rid)s and r.seq > %(after)s
order by r.seq
limit %(limit)s

-- name: note_load
-- By note's primary key.
select note.n, note.key, note.kind, note.at, note.data from stepwell.note
where
    note.rid = %(rid)s and note.n > %(after)s
    and (%(kind)s::text is null or note.kind = %(kind)s)
    and (%(key)s::text is null or note.key = %(key)s)
order by note.n
limit %(limit)s

-- name: row_get
-- By door_row's primary key.
select door_row.data from stepwell.door_row
where door_row.door = %(door)s and door_row.kind = %(kind)s and door_row.key = %(key)s

-- name: row_list
-- By door_row's primary key, a range where the prefix has no wildcard in front.
select door_row.key, door_row.data from stepwell.door_row
where door_row.door = %(door)s and door_row.kind = %(kind)s and door_row.key like %(prefix)s
order by door_row.key

-- name: run_columns
-- The columns of every query that gives catalogue rows.
select
    run.rid, run.id, run.function, run.door, coalesce(run.status, hot.status), coalesce(run.reason, hot.reason),
    run.created_at, run.ended_at, run.queue, run.tags, run.target, run.parent, run.deadline, run.input_hash,
    hot.owner, coalesce(hot.epoch, 0), hot.wake_at, hot.waiting_for, coalesce(hot.inbox, 0)

-- name: run_from
-- After run_columns or run_counted: all runs.
from stepwell.run left join stepwell.hot on hot.rid = run.rid

-- name: run_from_open
-- The same where only open runs can match: hot is small.
from stepwell.hot inner join stepwell.run on run.rid = hot.rid

-- name: run_counted
-- Instead of run_columns.
select count(*)

-- name: run_get
-- After run_columns and run_from. By run's index on id.
where run.id = %(id)s

-- name: run_where
-- After run_columns and run_from. Planned anew each time with the values known, so that what is not asked for (NULL)
-- falls away and an id's prefix is a range of run's index on id. Else run's primary key is read backwards. A text is
-- looked for byte by byte (as SQLite does: only ASCII has two cases), and in hot for open runs alone, so that a million
-- ended ones are not joined to it first: a quarter of the time (measured).
where
    (%(statuses)s::text[] is null or coalesce(run.status, hot.status) = any(%(statuses)s))
    and (%(function)s::text is null or run.function = %(function)s)
    and (%(door)s::text is null or run.door = %(door)s)
    and (%(queue)s::text is null or run.queue = %(queue)s)
    and (%(tag)s::text is null or %(tag)s = any(run.tags))
    and (%(parent)s::text is null or run.parent = %(parent)s)
    and (%(id_prefix)s::text is null or run.id like %(id_prefix)s)
    and (%(created_from)s::bigint is null or run.created_at >= %(created_from)s)
    and (%(created_to)s::bigint is null or run.created_at < %(created_to)s)
    and (%(ended_before)s::bigint is null or run.ended_at < %(ended_before)s)
    and (
        %(text)s::text is null
        or run.id ilike %(text)s
        or run.function collate "C" ilike %(text)s
        or run.reason collate "C" ilike %(text)s
        or run.status is null
        and (select h.reason collate "C" ilike %(text)s from stepwell.hot h where h.rid = run.rid)
    )

-- name: run_before
-- After run_where: one page of a list, by run's primary key.
and (%(before)s::bigint is null or run.rid < %(before)s)
order by run.rid desc
limit %(limit)s
