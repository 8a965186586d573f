-- Writing: under the process's mutex and the fair lock between processes. Reading: takes no lock (WAL).

-- name: batch_insert
-- One row of a run's journal with its fence: hot's primary key, then record's own. Changes 1 row, or none if fenced.
insert into record (rid, seq, epoch, data)
select :rid, :seq, :epoch, :data
where exists (select 1 from hot where rid = :rid and epoch = :epoch and owner is :owner)
and (:seq = 1 or exists (select 1 from record where rid = :rid and seq = :seq - 1))

-- name: run_insert
insert into run (id, function, door, created_at, queue, tags, target, parent, deadline, input_hash)
values (:id, :function, :door, :created_at, :queue, :tags, :target, :parent, :deadline, :input_hash)

-- name: hot_insert
insert into hot (rid, queue, function, status, owner, epoch, ttl, inbox)
values (:rid, :queue, :function, :status, :owner, :epoch, :ttl, :inbox)

-- name: hot_change
-- Park, unpark, release: by hot's primary key.
update hot set status = :status, reason = :reason, wake_at = :wake_at, waiting_for = :waiting_for,
    owner = case when :release then null else owner end
where rid = :rid and epoch = :epoch

-- name: run_end
update run set status = :status, reason = :reason, ended_at = :at where rid = :rid

-- name: hot_delete
delete from hot where rid = :rid

-- name: hot_claim
-- The claim of a run whose hot row is still as it was seen. Changes 1 row, or none.
update hot set owner = :worker, epoch = :epoch, status = :status, ttl = :ttl, wake_at = null, waiting_for = null,
    reason = null
where rid = :rid and epoch = :seen and owner is :owner

-- name: record_last
select coalesce(max(seq), 0) from record where rid = :rid

-- name: hot_columns
-- The columns of every query that gives hot rows.
select
    hot.rid, run.id, hot.function, run.door, hot.queue, hot.status, hot.reason, hot.owner, hot.epoch, hot.wake_at,
    hot.waiting_for, hot.inbox, hot.ttl
from hot join run on run.rid = hot.rid

-- name: run_columns
-- The columns of every query that gives runs.
select
    run.rid, run.id, run.function, run.door, coalesce(hot.status, run.status), coalesce(hot.reason, run.reason),
    run.created_at, run.ended_at, run.queue, run.tags, run.target, run.parent, run.deadline, run.input_hash,
    hot.owner, coalesce(hot.epoch, 0), hot.wake_at, hot.waiting_for, coalesce(hot.inbox, 0)
from run left join hot on hot.rid = run.rid
