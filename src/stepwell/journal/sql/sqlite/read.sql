-- Reading. No lock is taken: a reader sees the last commit before it began (WAL), and no answer is left half fetched.

-- name: hot_get
-- Unique index on id, hot's primary key.
select hot.rid, run.id, hot.function, run.door, hot.queue, hot.status, hot.reason, hot.owner, hot.epoch, hot.wake_at,
    hot.waiting_for, hot.inbox, hot.ttl
from run join hot on hot.rid = run.rid where run.id = :id

-- name: hot_queues
-- The queues in which something is or will be due: a jump per queue through index hot_due.
with recursive found (queue) as (
    select min(queue) from hot where due_at is not null
    union all
    select (select min(queue) from hot where due_at is not null and queue > found.queue)
    from found where found.queue is not null
)
select queue from found where queue is not null

-- name: hot_due
-- Runs of one queue that nobody holds and that are due, the longest due first: a range of index hot_due.
select hot.rid, run.id, hot.function, run.door, hot.queue, hot.status, hot.reason, hot.owner, hot.epoch, hot.wake_at,
    hot.waiting_for, hot.inbox, hot.ttl
from hot join run on run.rid = hot.rid
where
    hot.queue = :queue and hot.due_at is not null and hot.due_at <= :now
    and (:functions is null or hot.function in (select value from json_each(:functions)))
order by hot.due_at, hot.rid
limit :limit

-- name: hot_orphaned
-- What a silent worker holds beyond its ttl: index hot_owner.
select hot.rid, run.id, hot.function, run.door, hot.queue, hot.status, hot.reason, hot.owner, hot.epoch, hot.wake_at,
    hot.waiting_for, hot.inbox, hot.ttl
from hot join run on run.rid = hot.rid
where
    hot.owner = :owner and hot.ttl <= :silent and hot.status <> 'blocked'
    and (:queues is null or hot.queue in (select value from json_each(:queues)))
    and (:functions is null or hot.function in (select value from json_each(:functions)))
order by hot.rid
limit :limit

-- name: hot_next_wake
-- The first of one queue's wake times: index hot_due (0 stands for runs that wait for no time).
select due_at from hot
where
    queue = :queue and due_at is not null and due_at > 0
    and (:functions is null or function in (select value from json_each(:functions)))
order by due_at
limit 1

-- name: hot_held
-- Index hot_owner.
select rid, epoch, inbox from hot where owner = ?

-- name: hot_owners
-- Who holds anything at all: a jump per owner through index hot_owner.
with recursive found (owner) as (
    select min(owner) from hot where owner is not null
    union all
    select (select min(owner) from hot where owner is not null and owner > found.owner)
    from found where found.owner is not null
)
select owner from found where owner is not null

-- name: inbox_load
-- Index inbox_run.
select n, kind, at, data from inbox where rid = ? order by n

-- name: record_load
-- A range of the primary key. Parameters: k of the row before, k of the last that may be, limit (-1: none).
select k & 16777215, epoch, data from record where k > ? and k <= ? order by k limit ?

-- name: note_load
-- Index note_run.
select n, key, kind, at, data from note
where rid = :rid and n > :after and (:kind is null or kind = :kind) and (:key is null or key = :key)
order by n
limit :limit

-- name: row_get
select data from door_row where door = ? and kind = ? and key = ?

-- name: row_list
-- A range of the primary key; `end` is the first text behind all that begin with the prefix, NULL if there is none (a
-- blob sorts behind every text).
select key, data from door_row
where door = :door and kind = :kind and key >= :prefix and key < coalesce(:end, x'')
order by key

-- name: blob_get
-- The chunks of a blob that is there whole: index of blob_chunk's primary key.
select blob_chunk.data from blob left join blob_chunk on blob_chunk.hash = blob.hash
where blob.hash = ? and blob.size >= 0
order by blob_chunk.i
