-- purpose: Make every earlier writer of a running operation lose, before a person's retry ends its open attempt
-- rows: one, or none when it has no open attempt, is being cancelled or is over
-- caller: services.retries, with end_attempt in the same transaction
-- index: operations_pkey, attempts_one_open
-- locks: the operation's row
-- $1: operation id, $2: caller's id, $3: caller's role, $4: caller's address
WITH operation AS (
  UPDATE storeplane.operations AS o
  SET fence = o.fence + 1
  WHERE o.id = $1::uuid AND (o.owner_id = $2::uuid OR $3::text = 'admin') AND o.state = 'running'
    AND o.cancel_requested_at IS NULL
    AND EXISTS (SELECT FROM storeplane.attempts AS a
                WHERE a.operation_id = o.id AND a.number = o.attempt AND a.finished_at IS NULL)
  RETURNING o.id, o.store_id, o.kind, o.attempt
), audit AS (
  INSERT INTO storeplane.audit_log (actor_id, store_id, action, details, ip)
  SELECT $2::uuid, operation.store_id, 'operation.retry',
         jsonb_build_object('operation_id', operation.id, 'attempt', operation.attempt), $4::text
  FROM operation
)
SELECT operation.attempt FROM operation
