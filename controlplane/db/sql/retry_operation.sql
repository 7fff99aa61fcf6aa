-- purpose: Schedule the next attempt of a running operation whose newest attempt ended without success
-- rows: one, or none when it moved on
-- caller: reconciler
-- index: operations_pkey, attempts_pkey
-- locks: the operation's row, then the user's slots
-- $1: operation id, $2: attempt that ended, $3: seconds until then, $4: reason a person reads, $5: memory limit in MiB
WITH operation AS (
  UPDATE storeplane.operations AS o
  SET next_dispatch_at = now() + make_interval(secs => $3::double precision), fence = o.fence + 1,
      waiting_reason = $4::text, waiting_since = now(), memory_mib = $5::integer
  WHERE o.id = $1::uuid AND o.state = 'running' AND o.attempt = $2::integer AND o.next_dispatch_at IS NULL
    AND o.cancel_requested_at IS NULL AND EXISTS (
      SELECT FROM storeplane.attempts AS a
      WHERE a.operation_id = o.id AND a.number = o.attempt AND a.finished_at IS NOT NULL
    )
  RETURNING o.id, o.store_id, o.kind, o.next_dispatch_at
), event AS (
  INSERT INTO storeplane.store_events (store_id, operation_id, event_type, message, metadata)
  SELECT operation.store_id, operation.id, 'retry_scheduled', $4::text,
         jsonb_build_object('kind', operation.kind, 'attempt', $2::integer, 'at', operation.next_dispatch_at)
  FROM operation
)
SELECT operation.id FROM operation
