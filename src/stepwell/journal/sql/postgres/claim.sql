-- Taking runs, and facts from outside.

-- name: run_claim
-- Locks hot's row by primary key; a row that somebody else has locked is skipped. Inserts row last + 1 (record's primary
-- key, read backwards): a stale append of the former holder that is not committed yet makes this wait, and fail with
-- unique_violation if it commits; then the claim is made again with the next seq.
with seen as (
    select hot.rid from stepwell.hot
    where hot.rid = %(rid)s and hot.epoch = %(seen_epoch)s and coalesce(hot.owner, '') = coalesce(%(seen_owner)s, '')
    for update skip locked
),

gate as (
    update stepwell.hot
    set
        owner = %(owner)s, epoch = %(epoch)s, status = %(status)s, ttl = %(ttl)s,
        wake_at = null, waiting_for = null, reason = null
    from seen
    where hot.rid = seen.rid
    returning hot.rid, hot.inbox
),

row_in as (
    insert into stepwell.record (rid, seq, epoch, data)
    select
        gate.rid,
        coalesce((select max(last.seq) from stepwell.record last where last.rid = %(rid)s), 0) + 1,
        %(epoch)s,
        %(data)s
    from gate
    returning rid, seq
)

select gate.rid, row_in.seq, gate.inbox
from gate inner join row_in on row_in.rid = gate.rid

-- name: run_claim_waiting
-- The same for a row that was found locked although nobody has taken the run yet: waits for whoever has the lock.
with gate as (
    update stepwell.hot
    set
        owner = %(owner)s, epoch = %(epoch)s, status = %(status)s, ttl = %(ttl)s,
        wake_at = null, waiting_for = null, reason = null
    where hot.rid = %(rid)s and hot.epoch = %(seen_epoch)s and coalesce(hot.owner, '') = coalesce(%(seen_owner)s, '')
    returning hot.rid, hot.inbox
),

row_in as (
    insert into stepwell.record (rid, seq, epoch, data)
    select
        gate.rid,
        coalesce((select max(last.seq) from stepwell.record last where last.rid = %(rid)s), 0) + 1,
        %(epoch)s,
        %(data)s
    from gate
    returning rid, seq
)

select gate.rid, row_in.seq, gate.inbox
from gate inner join row_in on row_in.rid = gate.rid

-- name: run_reopen
-- Behind run_lock, in the same transaction, so that of two that open it one waits and finds it open, and that one that
-- is being taken away is seen to be. Facts that nobody took before the end count again. Nobody who has not seen the
-- newest life opens the run (record, by its primary key).
with gate as (
    update stepwell.run set status = null, reason = null, ended_at = null
    where
        run.rid = %(rid)s and run.status is not null
        and not exists (select from stepwell.gone where gone.rid = run.rid)
        and %(epoch)s > coalesce(
            (select last.epoch from stepwell.record last where last.rid = %(rid)s order by last.seq desc limit 1), 0
        )
    returning run.rid, run.id, run.queue, run.function
),

opened as (
    insert into stepwell.hot (rid, queue, function, status, owner, epoch, ttl, inbox)
    select
        gate.rid, gate.queue, gate.function, %(status)s, %(owner)s, %(epoch)s, %(ttl)s,
        (select count(*) from stepwell.inbox where inbox.rid = %(rid)s)
    from gate
    returning rid, inbox
),

row_in as (
    insert into stepwell.record (rid, seq, epoch, data)
    select
        gate.rid,
        coalesce((select max(last.seq) from stepwell.record last where last.rid = %(rid)s), 0) + 1,
        %(epoch)s,
        %(data)s
    from gate
    returning rid, seq
)

select gate.rid, row_in.seq, opened.inbox, gate.id
from gate
inner join row_in on row_in.rid = gate.rid
inner join opened on opened.rid = gate.rid

-- name: claim_seen
-- Is the hot row still as it was seen? By primary key, no lock.
select hot.rid from stepwell.hot
where hot.rid = %(rid)s and hot.epoch = %(seen_epoch)s and coalesce(hot.owner, '') = coalesce(%(seen_owner)s, '')

-- name: claim_ours
-- After a claim whose outcome was unknown and that found another hot row than it expected: was it our own? By the
-- primary keys of hot and record.
select hot.rid, r.seq, hot.inbox
from stepwell.hot
inner join stepwell.record r on r.rid = hot.rid and r.epoch = hot.epoch and r.data = %(data)s
where hot.rid = %(rid)s and hot.epoch = %(epoch)s and coalesce(hot.owner, '') = %(owner)s
order by r.seq
limit 1

-- name: run_name
-- By primary key.
select run.id from stepwell.run where run.rid = %(rid)s

-- name: fact_deliver
-- Finds the run by run's index on id, locks hot's row by primary key: facts of one run come one after the other, so
-- that their numbers rise in order of commit. Tells the transaction's number, by which the outcome of a lost COMMIT is
-- found out.
with gate as (
    update stepwell.hot
    set
        inbox = hot.inbox + 1,
        wake_at = case when hot.status = 'blocked' then hot.wake_at else %(now)s end
    from stepwell.run
    where run.id = %(id)s and hot.rid = run.rid
    returning hot.rid
),

put as (
    insert into stepwell.inbox (rid, kind, at, data)
    select gate.rid, %(kind)s, %(at)s, %(data)s from gate
)

select
    gate.rid, txid_current(),
    case when %(notify)s then pg_notify(%(channel)s, %(token)s)::text end
from gate

-- name: fact_deliver_claimed
-- As fact_deliver, where a door's row decides. Locks hot's row first, by primary key, then door_row's by its own: of two
-- with the same claim the second waits, at hot's row or for the new row to be committed, and finds that it has changed.
-- `heard` is NULL where it is not as it was read; no row at all where the run is not open.
with found as (
    select hot.rid from stepwell.run inner join stepwell.hot on hot.rid = run.rid
    where run.id = %(id)s
    for no key update of hot
),

claimed_first as (
    insert into stepwell.door_row (door, kind, key, data)
    select %(door)s, %(claim_kind)s, %(key)s, %(claim_after)s from found
    where %(claim_before)s is null
    on conflict (door, kind, key) do nothing
    returning door_row.key
),

claimed_next as (
    update stepwell.door_row set data = %(claim_after)s
    from found
    where
        door_row.door = %(door)s and door_row.kind = %(claim_kind)s and door_row.key = %(key)s
        and door_row.data = %(claim_before)s
    returning door_row.key
),

gate as (
    update stepwell.hot
    set
        inbox = hot.inbox + 1,
        wake_at = case when hot.status = 'blocked' then hot.wake_at else %(now)s end
    from found
    where hot.rid = found.rid and (exists (select from claimed_first) or exists (select from claimed_next))
    returning hot.rid
),

put as (
    insert into stepwell.inbox (rid, kind, at, data)
    select gate.rid, %(kind)s, %(at)s, %(data)s from gate
)

select
    gate.rid as heard, txid_current(),
    case when %(notify)s and gate.rid is not null then pg_notify(%(channel)s, %(token)s)::text end
from found left join gate on gate.rid = found.rid

-- name: transaction_number
-- Last in a transaction whose own statements do not tell it.
select null::text, txid_current()

-- name: transaction_outcome
-- Committed, aborted or in progress; NULL if it is too long ago to be known.
select txid_status(%(txid)s)
