-- purpose: Claim the next operations of a cluster: open an attempt for each, or take over the open one that has no Job
-- rows: up to the limit
-- caller: dispatcher, behind refill_budget in one transaction
-- index: user_slots_waiting, operations_to_dispatch, attempts_one_open, attempts_holding_store
-- locks: the operations' rows (SKIP LOCKED), then the users' slots
-- $1: cluster, $2: name of the claiming process, $3: lease in seconds, $4: most to claim, $5: most new attempts
-- Users take turns: the one least recently served begins, and each turn takes the user's oldest. A claim that takes an
-- attempt over needs no new slot, because the attempt holds one. The cluster's row is locked already, so the counters
-- and turns read here are those of the claim before; SKIP LOCKED is for cancels and reports, which never take long.
WITH due AS (
  SELECT s.last_served_at, mine.*
  FROM storeplane.user_slots AS s
  CROSS JOIN LATERAL (
    SELECT o.id, o.created_at, a.number IS NULL AS is_new,
           s.slots - s.in_flight - count(*) FILTER (WHERE a.number IS NULL) OVER turns AS left_after,
           row_number() OVER turns AS turn
    FROM (
      SELECT q.id, q.created_at
      FROM storeplane.operations AS q
      WHERE q.cluster_id = s.cluster_id AND q.owner_id = s.user_id
        AND q.next_dispatch_at IS NOT NULL AND q.next_dispatch_at <= now()
        AND (q.lease_until IS NULL OR q.lease_until < now())
        AND (q.deadline_at IS NULL OR q.deadline_at > now())
        AND NOT EXISTS (
          SELECT FROM storeplane.attempts AS p
          WHERE p.store_id = q.store_id AND p.pods_ended_at IS NULL
            AND NOT (p.operation_id = q.id AND p.number = q.attempt AND p.state = 'created'))
        AND NOT EXISTS (
          SELECT FROM storeplane.operations AS e
          WHERE q.kind = 'delete' AND e.store_id = q.store_id AND e.kind <> 'delete'
            AND e.state IN ('queued', 'running'))
      ORDER BY q.created_at, q.id
      LIMIT $4::integer
    ) AS o
    LEFT JOIN storeplane.attempts AS a
      ON a.operation_id = o.id AND a.state IN ('created', 'dispatched', 'running')
    WINDOW turns AS (ORDER BY o.created_at, o.id)
  ) AS mine
  WHERE s.cluster_id = $1::text AND s.waiting > 0
), chosen AS (
  SELECT d.id, d.is_new, count(*) FILTER (WHERE d.is_new) OVER (
           ORDER BY d.turn, d.last_served_at, d.created_at, d.id ROWS UNBOUNDED PRECEDING
         ) AS new_so_far, row_number() OVER (ORDER BY d.turn, d.last_served_at, d.created_at, d.id) AS place
  FROM due AS d
  WHERE NOT d.is_new OR d.left_after >= 0
), candidate AS MATERIALIZED (
  SELECT o.id, c.place
  FROM (
    SELECT x.id, x.place FROM chosen AS x
    WHERE NOT x.is_new OR x.new_so_far <= $5::integer
    ORDER BY x.place
    LIMIT $4::integer
  ) AS c
  JOIN storeplane.operations AS o ON o.id = c.id
  WHERE o.next_dispatch_at IS NOT NULL AND o.cancel_requested_at IS NULL AND o.state IN ('queued', 'running')
  FOR NO KEY UPDATE OF o SKIP LOCKED
), claimed AS (
  UPDATE storeplane.operations AS o
  SET fence = o.fence + 1, lease_holder = $2::text, lease_until = now() + make_interval(secs => $3::integer),
      attempt = CASE WHEN EXISTS (
          SELECT FROM storeplane.attempts AS a
          WHERE a.operation_id = o.id AND a.number = o.attempt AND a.state = 'created'
        ) THEN o.attempt ELSE o.attempt + 1 END
  FROM candidate
  WHERE o.id = candidate.id
  RETURNING o.id, o.store_id, o.owner_id, o.kind, o.attempt, o.fence, o.spec, o.request_id, o.memory_mib,
            o.created_at, candidate.place, format('store-%s-%s-%s', o.kind, o.id, o.attempt) AS job_name
), opened AS (
  INSERT INTO storeplane.attempts (operation_id, number, store_id, job_name, memory_mib)
  SELECT c.id, c.attempt, c.store_id, c.job_name, c.memory_mib FROM claimed AS c
  ON CONFLICT ON CONSTRAINT attempts_pkey DO NOTHING
), spent AS (
  UPDATE storeplane.clusters AS k
  SET bucket_tokens = k.bucket_tokens - (SELECT count(*) FROM claimed)
  WHERE k.id = $1::text AND EXISTS (SELECT FROM claimed)
), slots AS MATERIALIZED (
  -- In the order in which record_jobs locks them.
  SELECT s.user_id
  FROM storeplane.user_slots AS s
  WHERE s.cluster_id = $1::text AND s.user_id IN (SELECT c.owner_id FROM claimed AS c)
  ORDER BY s.user_id
  FOR NO KEY UPDATE OF s
), served AS (
  UPDATE storeplane.user_slots AS s SET last_served_at = clock_timestamp()
  FROM slots
  WHERE s.cluster_id = $1::text AND s.user_id = slots.user_id
)
SELECT c.id AS operation_id, c.store_id, c.owner_id, s.name AS store_name, s.engine, s.namespace, c.kind,
       c.attempt AS number, c.job_name, c.fence, c.spec, c.request_id, coalesce(a.memory_mib, c.memory_mib) AS memory_mib,
       a.manifest, a.token_hash, a.token_key_id
FROM claimed AS c
JOIN storeplane.stores AS s ON s.id = c.store_id
LEFT JOIN storeplane.attempts AS a ON a.operation_id = c.id AND a.number = c.attempt
ORDER BY c.place
