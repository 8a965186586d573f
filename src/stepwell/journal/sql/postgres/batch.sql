-- Writing batches. One statement, and one trip, for whatever a batch does, put together of the parts below:
--     with gate as (<batch_gate_…>), <batch_row>[, <batch_extras>][, <batch_facts>] <batch_answer>
-- (the gates of a start and of an end close the parenthesis and open one of their own). All that is written hangs on
-- the gate's row, so that it is all or nothing. Groups of like batches go by batch_append_many, _start_many, _end_many.
--
-- A fence says `coalesce(hot.owner, '') = …` so that no planner looks for the run among all that its owner holds, and
-- has held since the last vacuum: by hot's index on owner a step of a busy worker takes twice as long (measured).

-- name: batch_append
-- The fast path, one statement a step, in autocommit. Reads hot by its primary key and the row before by record's.
-- No lock on hot: while a takeover is not committed the old epoch is still seen here, but the takeover has inserted
-- row last + 1 before, so that this insert waits for it on record's primary key and fails with unique_violation.
insert into stepwell.record (rid, seq, epoch, data)
select %(rid)s, %(seq)s, %(epoch)s, %(data)s
from stepwell.hot
where
    hot.rid = %(rid)s and hot.epoch = %(epoch)s and coalesce(hot.owner, '') = %(owner)s
    and (
        %(seq)s = 1
        or exists (select from stepwell.record before where before.rid = %(rid)s and before.seq = %(seq)s - 1)
    )

-- name: batch_append_many
-- The same for many rows at once. `first` is the seq of the first row of a chain of batches of one lease that follow
-- each other within the group: EXISTS does not see rows of its own statement, so a chain is held to the row before its
-- first. A chain is in as a whole or not at all: all its rows meet the same conditions. No ON CONFLICT: behind a
-- takeover it would skip the first row of a chain and insert the rest.
insert into stepwell.record (rid, seq, epoch, data)
select b.rid, b.seq, b.epoch, b.data
from
    unnest(%(rids)s, %(seqs)s, %(epochs)s, %(datas)s, %(owners)s, %(firsts)s) as b (rid, seq, epoch, data, owner, first)
inner join stepwell.hot on hot.rid = b.rid and hot.epoch = b.epoch and coalesce(hot.owner, '') = b.owner
where
    b.first = 1
    or exists (select from stepwell.record before where before.rid = b.rid and before.seq = b.first - 1)
returning rid, seq

-- name: batch_start_many
-- Waits for a start of the same id that is not committed yet (run's index on id), then skips; hot and record get their
-- rows from what was inserted. The ids of one call are different.
with b as (
    select *
    from
        unnest(
            %(numbers)s, %(ids)s, %(functions)s, %(doors)s, %(input_hashes)s, %(created_ats)s, %(queues)s,
            %(tag_lists)s, %(targets)s, %(parents)s, %(deadlines)s, %(statuses)s, %(owners)s, %(epochs)s, %(ttls)s,
            %(seqs)s, %(datas)s
        ) as b (
            number, id, function, door, input_hash, created_at, queue,
            tags, target, parent, deadline, status, owner, epoch, ttl, seq, data
        )
),

gate as (
    insert into stepwell.run (id, function, door, input_hash, created_at, queue, tags, target, parent, deadline)
    select b.id, b.function, b.door, b.input_hash, b.created_at, b.queue, b.tags::text[], b.target, b.parent, b.deadline
    from b
    order by b.number
    on conflict (id) do nothing
    returning rid, id
),

opened as (
    insert into stepwell.hot (rid, queue, function, status, owner, epoch, ttl)
    select gate.rid, b.queue, b.function, b.status, b.owner, b.epoch, b.ttl
    from gate inner join b on b.id = gate.id
),

row_in as (
    insert into stepwell.record (rid, seq, epoch, data)
    select gate.rid, b.seq, b.epoch, b.data
    from gate inner join b on b.id = gate.id
    where b.seq > 0
)

select b.number, gate.rid from gate inner join b on b.id = gate.id

-- name: batch_end_many
-- Locks and deletes hot rows by primary key, in the order given (by rid, so that two groups do not wait for each other
-- in a circle); under the lock the fence is checked again by PostgreSQL itself.
with b as (
    select *
    from
        unnest(%(rids)s, %(seqs)s, %(epochs)s, %(datas)s, %(owners)s, %(statuses)s, %(reasons)s)
            as b (rid, seq, epoch, data, owner, status, reason)
),

gate as (
    delete from stepwell.hot using b
    where
        hot.rid = b.rid and hot.epoch = b.epoch and coalesce(hot.owner, '') = b.owner
        and (
            b.seq <= 1
            or exists (select from stepwell.record before where before.rid = b.rid and before.seq = b.seq - 1)
        )
    returning b.rid, b.seq, b.epoch, b.data, b.status, b.reason
),

ended as (
    update stepwell.run set status = gate.status, reason = gate.reason, ended_at = %(now)s
    from gate
    where run.rid = gate.rid
),

row_in as (
    insert into stepwell.record (rid, seq, epoch, data)
    select gate.rid, gate.seq, gate.epoch, gate.data from gate
    where gate.seq > 0
)

select rid from gate

-- name: batch_gate_start
-- Inserts run and hot. Waits for a start of the same id that is not committed yet, then skips.
insert into stepwell.run (id, function, door, input_hash, created_at, queue, tags, target, parent, deadline)
values (
    %(id)s, %(function)s, %(door)s, %(input_hash)s, %(created_at)s, %(queue)s, %(tags)s::text[], %(target)s,
    %(parent)s, %(deadline)s
)
on conflict (id) do nothing
returning rid
), opened as (
insert into stepwell.hot (rid, queue, function, status, owner, epoch, ttl)
select gate.rid, %(queue)s, %(function)s, %(status)s, %(owner)s, %(epoch)s, %(ttl)s from gate

-- name: batch_gate_append
-- As batch_append: no lock, the row's primary key is the fence. `before` is the row that must be there, 0 for none.
select hot.rid from stepwell.hot
where
    hot.rid = %(rid)s and hot.epoch = %(epoch)s and coalesce(hot.owner, '') = %(owner)s
    and (%(before)s = 0 or exists (select from stepwell.record r where r.rid = %(rid)s and r.seq = %(before)s))

-- name: batch_gate_hold
-- For a batch without records: no row of its own stands between it and a takeover, so it locks hot's row (by primary
-- key) until its commit. A claim waits meanwhile, or this waits for the claim and finds another epoch.
select hot.rid from stepwell.hot
where
    hot.rid = %(rid)s and hot.epoch = %(epoch)s and coalesce(hot.owner, '') = %(owner)s
    and (%(before)s = 0 or exists (select from stepwell.record r where r.rid = %(rid)s and r.seq = %(before)s))
for no key update

-- name: batch_gate_park
-- Locks hot's row by primary key. Compares the inbox counter: a fact that comes at the same moment makes this wait, see
-- the other number and change nothing.
update stepwell.hot
set
    status = 'waiting', wake_at = %(wake_at)s, waiting_for = %(waiting_for)s, reason = null,
    owner = case when not %(release)s then owner end
where
    hot.rid = %(rid)s and hot.epoch = %(epoch)s and coalesce(hot.owner, '') = %(owner)s and hot.inbox = %(inbox)s
    and (%(before)s = 0 or exists (select from stepwell.record r where r.rid = %(rid)s and r.seq = %(before)s))
returning hot.rid

-- name: batch_gate_set
-- Unpark and release. Locks hot's row by primary key. An unpark may compare the inbox counter, as a park does.
update stepwell.hot
set
    status = %(status)s, wake_at = %(wake_at)s, waiting_for = null, reason = %(reason)s,
    owner = case when not %(release)s then owner end
where
    hot.rid = %(rid)s and hot.epoch = %(epoch)s and coalesce(hot.owner, '') = %(owner)s
    and (%(inbox)s is null or hot.inbox = %(inbox)s)
    and (%(before)s = 0 or exists (select from stepwell.record r where r.rid = %(rid)s and r.seq = %(before)s))
returning hot.rid

-- name: batch_gate_end
-- Locks and deletes hot's row by primary key, then updates run's by its own.
delete from stepwell.hot
where
    hot.rid = %(rid)s and hot.epoch = %(epoch)s and coalesce(hot.owner, '') = %(owner)s
    and (%(before)s = 0 or exists (select from stepwell.record r where r.rid = %(rid)s and r.seq = %(before)s))
returning hot.rid
), ended as (
update stepwell.run set status = %(status)s, reason = %(reason)s, ended_at = %(now)s
from gate
where run.rid = gate.rid

-- name: batch_row
-- A taken seq is a unique_violation, which takes the whole statement back.
row_in as (
    insert into stepwell.record (rid, seq, epoch, data)
    select gate.rid, %(seq)s, %(epoch)s, %(data)s from gate
    where %(seq)s > 0
)

-- name: batch_extras
-- Notes, taken facts, references to blobs (a share lock on the blob's row by the foreign key), rows of doors. Each
-- by primary key. A door's row is named at most once.
noted as (
    insert into stepwell.note (rid, key, kind, at, data)
    select gate.rid, u.key, u.kind, u.at, u.data
    from gate, unnest(%(note_keys)s, %(note_kinds)s, %(note_ats)s, %(note_datas)s) as u (key, kind, at, data)
),

taken as (
    delete from stepwell.inbox using gate
    where inbox.rid = gate.rid and inbox.n = any(%(taken)s)
),

referred as (
    insert into stepwell.blob_ref (rid, hash)
    select gate.rid, u.hash from gate, unnest(%(blobs)s) as u (hash)
    on conflict do nothing
),

rows_put as (
    insert into stepwell.door_row (door, kind, key, data)
    select u.door, u.kind, u.key, u.data
    from gate, unnest(%(row_doors)s, %(row_kinds)s, %(row_keys)s, %(row_datas)s) as u (door, kind, key, data)
    where u.data is not null
    on conflict (door, kind, key) do update set data = excluded.data
),

rows_deleted as (
    delete from stepwell.door_row
    using gate, unnest(%(row_doors)s, %(row_kinds)s, %(row_keys)s, %(row_datas)s) as u (door, kind, key, data)
    where door_row.door = u.door and door_row.kind = u.kind and door_row.key = u.key and u.data is null
)

-- name: batch_lock
-- Before a batch that tells other runs something, in the same transaction: all the hot rows that it will change, its own
-- (where it does) and theirs, in order of rid, as groups lock theirs. So two runs that tell each other something do not
-- wait in a circle, and a claim of one that is told waits. Finds them by run's index on id and hot's primary key.
select held.rid
from
    (
        select run.rid from stepwell.run where run.id = any(%(ids)s)
        union
        select %(rid)s
        order by rid
    ) as wanted
cross join lateral (select hot.rid from stepwell.hot where hot.rid = wanted.rid for no key update) as held

-- name: batch_facts
-- Facts for other runs, behind batch_lock; a run is named at most once. By run's index on id and hot's primary key. As
-- fact_deliver: numbers rise in order of commit, since hot's row is locked.
told as (
    update stepwell.hot
    set
        inbox = hot.inbox + 1,
        wake_at = case when hot.status = 'blocked' then hot.wake_at else %(now)s end
    from
        gate,
        unnest(%(fact_ids)s, %(fact_kinds)s, %(fact_ats)s, %(fact_datas)s) as u (id, kind, at, data)
        inner join stepwell.run on run.id = u.id
    where hot.rid = run.rid
    returning hot.rid, u.kind, u.at, u.data
),

delivered as (
    insert into stepwell.inbox (rid, kind, at, data)
    select told.rid, told.kind, told.at, told.data from told
)

-- name: batch_answer
-- The run's number if the gate was open, and a NOTIFY in the same commit where somebody may wait for this one.
select gate.rid, case when %(notify)s then pg_notify(%(channel)s, %(token)s)::text end from gate

-- name: batch_extras_many
-- Extras of batches with records, after `batch_append_many` in the same transaction: a batch's row being there is the
-- gate. Rows are found by record's primary key.
with noted as (
    insert into stepwell.note (rid, key, kind, at, data)
    select u.rid, u.key, u.kind, u.at, u.data
    from
        unnest(%(note_rids)s, %(note_seqs)s, %(note_epochs)s, %(note_keys)s, %(note_kinds)s, %(note_ats)s, %(note_datas)s)
            with ordinality as u (rid, seq, epoch, key, kind, at, data, place)
    inner join stepwell.record r on r.rid = u.rid and r.seq = u.seq and r.epoch = u.epoch
    order by u.place
),

taken as (
    delete from stepwell.inbox
    using
        unnest(%(taken_rids)s, %(taken_seqs)s, %(taken_epochs)s, %(taken)s) as u (rid, seq, epoch, n)
    inner join stepwell.record r on r.rid = u.rid and r.seq = u.seq and r.epoch = u.epoch
    where inbox.rid = u.rid and inbox.n = u.n
),

referred as (
    insert into stepwell.blob_ref (rid, hash)
    select u.rid, u.hash
    from unnest(%(blob_rids)s, %(blob_seqs)s, %(blob_epochs)s, %(blobs)s) as u (rid, seq, epoch, hash)
    inner join stepwell.record r on r.rid = u.rid and r.seq = u.seq and r.epoch = u.epoch
    on conflict do nothing
)

select 1

-- name: batch_notify
-- Takes the lock of the whole database's notifications at commit.
select pg_notify(%(channel)s, %(token)s)::text

-- name: doubt_record
-- After a commit whose outcome was unknown: is this row there? Asked when the same insert has waited for whoever was
-- writing it, so that the answer is final. By record's primary key.
select r.seq from stepwell.record r
where r.rid = %(rid)s and r.seq = %(seq)s and r.epoch = %(epoch)s and r.data = %(data)s

-- name: doubt_records
-- The same for a group. By record's primary key.
select r.rid, r.seq
from unnest(%(rids)s, %(seqs)s, %(epochs)s, %(datas)s) as b (rid, seq, epoch, data)
inner join stepwell.record r on r.rid = b.rid and r.seq = b.seq and r.epoch = b.epoch and r.data = b.data

-- name: doubt_start
-- The run that we may have started: by run's index on id.
select run.rid from stepwell.run
left join stepwell.hot on hot.rid = run.rid
where
    run.id = %(id)s and run.created_at = %(created_at)s and run.input_hash = %(input_hash)s
    and (%(seq)s > 0 or (hot.epoch = %(epoch)s and hot.owner is not distinct from %(owner)s))
    and (
        %(seq)s = 0
        or exists (
            select from stepwell.record r
            where r.rid = run.rid and r.seq = %(seq)s and r.epoch = %(epoch)s and r.data = %(data)s
        )
    )

-- name: doubt_hot
-- Waits until nobody is writing the run (a lock on hot's row), then tells how it stands. By primary key.
select hot.epoch, hot.owner, hot.status, hot.inbox from stepwell.hot
where hot.rid = %(rid)s
for no key update

-- name: doubt_end
-- How a run ended. By primary key.
select run.status from stepwell.run where run.rid = %(rid)s

-- name: doubt_notes
-- How many of the last notes are the ones we may have written. By note's primary key, backwards.
select count(*)
from (
    select note.key, note.kind, note.at, note.data from stepwell.note
    where note.rid = %(rid)s
    order by note.n desc
    limit 1000
) as last_notes
inner join
    unnest(%(note_keys)s, %(note_kinds)s, %(note_ats)s, %(note_datas)s) as u (key, kind, at, data)
    on u.key = last_notes.key and u.kind = last_notes.kind and u.at = last_notes.at and u.data = last_notes.data

-- name: probe_row
-- Waits on record's primary key for a transaction that is writing the same row and is not over yet.
insert into stepwell.record (rid, seq, epoch, data) values (%(rid)s, %(seq)s, %(epoch)s, %(data)s)

-- name: probe_end_session
-- Ends a session of ours whose client is gone, if it is still in the transaction that we began there. The column has
-- the transaction's number without its wrap-around.
select pg_terminate_backend(pid) from pg_stat_activity
where pid = %(number)s and backend_xid is not null and backend_xid::text::bigint = %(txid)s & 4294967295
