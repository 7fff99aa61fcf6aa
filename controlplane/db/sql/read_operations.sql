-- purpose: Operations with every fact that says why they wait, as far as the caller may see them
-- rows: one for each id, newest first
-- caller: services.operations, services.stores
-- index: operations_pkey, attempts_pkey, attempts_holding_store, operations_to_dispatch, user_slots_waiting
-- locks: nothing
-- $1: operation ids, $2: caller's id, $3: caller's role, $4: most of an owner's operations counted
-- The position follows the claim's order without sorting the queue: users take turns, the one least recently served
-- first, and each turn takes the user's oldest. Before the owner's turn t come t-1 of their own, and of everybody
-- else as many as they have, at most t, or t-1 when their turn comes later. Users served at the same moment (never, as
-- a rule) are ordered by the operations of that turn. Whoever has more than $4 of their own before it gets no place:
-- a page of a long queue must not count it once for each row.
SELECT o.id, o.store_id, o.kind, o.state, o.attempt, o.retry_of, o.error, o.result, o.created_at, o.started_at,
       o.finished_at, o.deadline_at, o.waiting_reason, o.waiting_since, o.next_dispatch_at, now() AS now,
       o.owner_id = $2::uuid AS is_own, o.cancel_requested_at IS NOT NULL AS is_cancelling,
       coalesce(o.lease_until > now(), false) AS is_leased, a.state AS attempt_state,
       k.circuit_reason, k.in_flight AS cluster_in_flight, k.in_flight_limit AS cluster_limit,
       least(k.bucket_size, k.bucket_tokens + k.bucket_rate * extract(epoch FROM now() - k.bucket_at))
         ::double precision AS tokens,
       coalesce(mine.in_flight, 0) AS own_in_flight, coalesce(mine.slots, 1) AS own_slots,
       busy.operation_id AS busy_operation_id, busy.kind AS busy_kind, busy.number AS busy_number, place.position
FROM storeplane.operations AS o
JOIN storeplane.clusters AS k ON k.id = o.cluster_id
LEFT JOIN storeplane.user_slots AS mine ON mine.cluster_id = o.cluster_id AND mine.user_id = o.owner_id
LEFT JOIN storeplane.attempts AS a ON a.operation_id = o.id AND a.number = o.attempt
LEFT JOIN LATERAL (
  SELECT * FROM (
    SELECT p.operation_id, h.kind, p.number, p.created_at
    FROM storeplane.attempts AS p
    JOIN storeplane.operations AS h ON h.id = p.operation_id
    WHERE p.store_id = o.store_id AND p.pods_ended_at IS NULL
      AND NOT (p.operation_id = o.id AND p.number = o.attempt AND p.finished_at IS NULL)
    UNION ALL
    SELECT e.id, e.kind, e.attempt, e.created_at
    FROM storeplane.operations AS e
    WHERE o.kind = 'delete' AND e.store_id = o.store_id AND e.kind <> 'delete' AND e.state IN ('queued', 'running')
  ) AS holder
  ORDER BY holder.created_at LIMIT 1
) AS busy ON o.next_dispatch_at IS NOT NULL
LEFT JOIN LATERAL (
  SELECT own.turn + (
    SELECT coalesce(sum(least(u.waiting, own.turn - CASE
             WHEN u.last_served_at < mine.last_served_at THEN 0
             WHEN u.last_served_at > mine.last_served_at THEN 1
             WHEN (SELECT (q.created_at, q.id) < (o.created_at, o.id) FROM storeplane.operations AS q
                   WHERE q.cluster_id = u.cluster_id AND q.owner_id = u.user_id AND q.next_dispatch_at IS NOT NULL
                   ORDER BY q.created_at, q.id OFFSET greatest(own.turn - 1, 0) LIMIT 1) THEN 0
             ELSE 1 END)), 0)
    FROM storeplane.user_slots AS u
    WHERE u.cluster_id = o.cluster_id AND u.user_id <> o.owner_id AND u.waiting > 0
  ) AS position
  FROM (
    SELECT CASE WHEN count(*) <= $4::integer THEN count(*) END AS turn
    FROM (
      SELECT FROM storeplane.operations AS q
      WHERE q.cluster_id = o.cluster_id AND q.owner_id = o.owner_id AND q.next_dispatch_at IS NOT NULL
        AND (q.created_at, q.id) <= (o.created_at, o.id)
      LIMIT $4::integer + 1
    ) AS earlier
  ) AS own
  -- What waits for nothing has no turn.
  WHERE o.next_dispatch_at IS NOT NULL
) AS place ON true
WHERE o.id = ANY ($1::uuid[]) AND (o.owner_id = $2::uuid OR $3::text IN ('operator', 'admin'))
ORDER BY o.created_at DESC, o.id DESC
