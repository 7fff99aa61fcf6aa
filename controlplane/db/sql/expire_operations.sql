-- purpose: Fail every operation past its deadline, with its open attempt and its store
-- rows: one for each
-- caller: reconciler
-- index: operations_running, attempts_one_open, stores_pkey
-- locks: the operations' rows, then the attempts', then the stores'
-- $1: error, $2: the moment to take for now, null for the database's clock
-- A pod that never began has a reason, and without it the timeout would hide the cause.
WITH operation AS (
  UPDATE storeplane.operations AS o
  SET state = 'failed', error = $1::jsonb || coalesce((
        SELECT jsonb_build_object(
          'detail', format('%s; its pod did not start: %s', $1::jsonb ->> 'detail', o.waiting_reason))
        FROM storeplane.attempts AS a
        WHERE a.operation_id = o.id AND a.number = o.attempt AND a.state = 'dispatched' AND o.waiting_reason <> ''
      ), '{}'), finished_at = now(), lease_until = NULL, lease_holder = NULL
  WHERE o.state = 'running' AND o.deadline_at < coalesce($2::timestamptz, now())
  RETURNING o.id, o.store_id, o.attempt, o.error
), attempt AS (
  UPDATE storeplane.attempts AS a
  SET state = 'failed', outcome = 'timeout', problem = operation.error, finished_at = now()
  FROM operation
  WHERE a.operation_id = operation.id AND a.state IN ('created', 'dispatched', 'running')
), store AS (
  UPDATE storeplane.stores AS s SET state = 'failed', updated_at = now()
  FROM operation
  WHERE s.id = operation.store_id AND s.state = 'provisioning'
), event AS (
  INSERT INTO storeplane.store_events (store_id, operation_id, event_type, message, metadata)
  SELECT operation.store_id, operation.id, 'timeout', $1::jsonb ->> 'title',
         jsonb_build_object('attempt', operation.attempt, 'error', operation.error)
  FROM operation
)
SELECT operation.id FROM operation
