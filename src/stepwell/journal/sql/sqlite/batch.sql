-- Writing runs. All of it under the process's writer mutex and the fair lock between processes; SQLite's own write lock
-- is taken by the statement itself where it stands alone (a step), else by BEGIN IMMEDIATE.

-- name: batch_append
-- The fast path, alone or in a group: one row of a run's journal with its fence. Reads hot by its primary key and the
-- row before by record's. Changes 1 row, or none: fenced, or the seq is taken.
-- Parameters: k, data, rid, epoch, owner, k of the row before.
insert or ignore into record (k, epoch, data)
select ?, hot.epoch, ? from hot
where hot.rid = ? and hot.epoch = ? and hot.owner = ? and exists (select 1 from record where k = ?)

-- name: record_insert
-- A row behind a fence that was read in the same transaction. Changes 1 row, or none: the seq is taken.
insert or ignore into record (k, epoch, data) values (?, ?, ?)

-- name: record_get
-- By primary key.
select epoch, data from record where k = ?

-- name: record_last
-- The newest row of a run; its range of the primary key, from the end.
select k, epoch from record where k > :low and k <= :high order by k desc limit 1

-- name: run_insert
-- The unique index on id tells a run that exists. The rid is never one that was given before (autoincrement).
insert or ignore into run (id, function, door, created_at, queue, tags, target, parent, deadline, input_hash)
values (:id, :function, :door, :created_at, :queue, :tags, :target, :parent, :deadline, :input_hash)

-- name: hot_insert
insert into hot (rid, queue, function, status, owner, epoch, ttl, inbox)
values (:rid, :queue, :function, :status, :owner, :epoch, :ttl, :inbox)

-- name: hot_fence
-- Who may write the run; by hot's primary key, in the writing transaction.
select epoch, owner, inbox from hot where rid = ?

-- name: run_state
-- After a commit in doubt: how a run stands. By the primary keys of run and hot.
select run.status, hot.epoch, hot.owner, hot.status from run left join hot on hot.rid = run.rid where run.rid = ?

-- name: hot_change
-- Park, unpark, release: by hot's primary key, behind the fence.
update hot set status = :status, reason = :reason, wake_at = :wake_at, waiting_for = :waiting_for,
    owner = case when :release then null else owner end
where rid = :rid

-- name: hot_delete
delete from hot where rid = ?

-- name: run_end
update run set status = :status, reason = :reason, ended_at = :at where rid = :rid

-- name: hot_claim
-- Take a run: by hot's primary key, after hot_fence in the same transaction.
update hot set owner = :worker, epoch = :epoch, status = :status, ttl = :ttl, wake_at = null, waiting_for = null,
    reason = null
where rid = :rid

-- name: run_closed
-- An ended run that is not being taken away, and how many facts nobody took.
select id, queue, function, (select count(*) from inbox where inbox.rid = run.rid)
from run where rid = ? and status is not null and not exists (select 1 from gone where gone.rid = run.rid)

-- name: run_open_again
update run set status = null, reason = null, ended_at = null where rid = ?

-- name: fact_wake
-- One more fact: the counter, and the time unless a person is waited for. Unique index on id, hot's primary key.
update hot set inbox = inbox + 1, wake_at = case when status = 'blocked' then wake_at else :now end
where rid = (select rid from run where id = :id)
returning rid

-- name: fact_insert
insert into inbox (rid, kind, at, data) values (:rid, :kind, :at, :data)

-- name: fact_there
-- After a commit in doubt: whether the fact is in already. Index inbox_run.
select 1 from inbox where rid = (select rid from run where id = :id) and kind = :kind and at = :at and data = :data

-- name: claim_first
-- A door's row that nobody has written yet, by primary key. Changes no row if somebody has.
insert or ignore into door_row (door, kind, key, data) values (:door, :kind, :key, :after)

-- name: claim_take
-- A door's row as it was read, by primary key. Changes no row if it is another by now.
update door_row set data = :after where door = :door and kind = :kind and key = :key and data = :before

-- name: note_insert
insert into note (rid, key, kind, at, data) values (?, ?, ?, ?, ?)

-- name: fact_delete
delete from inbox where n = ? and rid = ?

-- name: blob_ref_insert
insert or ignore into blob_ref (rid, hash) values (?, ?)

-- name: row_put
insert or replace into door_row (door, kind, key, data) values (?, ?, ?, ?)

-- name: row_delete
delete from door_row where door = ? and kind = ? and key = ?
