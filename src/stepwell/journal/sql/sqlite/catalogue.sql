-- The catalogue: lists and searches. No lock. What a filter asks for becomes terms (below) in the place of {where}.

-- name: run_list
-- Newest first, along run's primary key; index run_unlucky or run_parent where a term allows it.
select run.rid, run.id, run.function, run.door, coalesce(run.status, hot.status), coalesce(run.reason, hot.reason),
    run.created_at, run.ended_at, run.queue, run.tags, run.target, run.parent, run.deadline, run.input_hash,
    hot.owner, coalesce(hot.epoch, 0), hot.wake_at, hot.waiting_for, coalesce(hot.inbox, 0)
from run left join hot on hot.rid = run.rid
where {where}
order by run.rid desc
limit :limit

-- name: run_list_open
-- As run_list, of open runs only: along hot's primary key, however many runs have ended.
select run.rid, run.id, run.function, run.door, hot.status, hot.reason,
    run.created_at, run.ended_at, run.queue, run.tags, run.target, run.parent, run.deadline, run.input_hash,
    hot.owner, hot.epoch, hot.wake_at, hot.waiting_for, hot.inbox
from hot cross join run on run.rid = hot.rid
where {where}
order by hot.rid desc
limit :limit

-- name: run_count
select count(*) from run left join hot on hot.rid = run.rid where {where}

-- name: run_count_open
select count(*) from hot cross join run on run.rid = hot.rid where {where}

-- name: where_statuses
coalesce(run.status, hot.status) in (select value from json_each(:statuses))

-- name: where_unlucky
-- Index run_unlucky, in order of rid.
run.status = :status and run.status <> 'succeeded'

-- name: where_function
run.function = :function

-- name: where_door
run.door = :door

-- name: where_queue
run.queue = :queue

-- name: where_tag
instr(run.tags, :tag) > 0

-- name: where_parent
-- Index run_parent.
run.parent = :parent

-- name: run_prefixed
-- Numbers of runs by prefix of their id: a range of the unique index on id (a blob sorts behind every text).
select rid from run where id >= :id_prefix and id < coalesce(:id_end, x'') limit :limit

-- name: where_rids
run.rid in (select value from json_each(:rids))

-- name: where_id_prefix
-- A range of the unique index on id.
run.id >= :id_prefix and run.id < coalesce(:id_end, x'')

-- name: where_text
-- A walk over the catalogue, newest first, that ends with the page: 0.2 µs a run (measured). An open run's reason lies
-- in hot; asked for apart, so that hot is not looked into for each of a million ended runs.
(run.id like :text escape '\' or run.function like :text escape '\'
    or run.reason is not null and run.reason like :text escape '\'
    or run.status is null and (select hot.reason from hot where hot.rid = run.rid) like :text escape '\')

-- name: where_created_from
run.created_at >= :created_from

-- name: where_created_to
run.created_at < :created_to

-- name: where_ended_before
run.ended_at < :ended_before

-- name: where_before
run.rid < :before
