-- purpose: End a living attempt by what was observed; a success ends operation and store with it
-- rows: one, or none when the attempt had ended or been replaced by then
-- caller: reconciler
-- index: operations_pkey, attempts_pkey, stores_pkey
-- locks: the operation's row, then the attempt's, then the store's
-- $1: operation id, $2: attempt, $3: expected state, $4: new state, $5: outcome, $6: exit code, $7: result, $8: problem
WITH operation AS (
  SELECT o.id, o.store_id FROM storeplane.operations AS o
  WHERE o.id = $1::uuid AND o.attempt = $2::integer AND o.state = 'running'
  FOR NO KEY UPDATE
), attempt AS (
  UPDATE storeplane.attempts AS a
  SET state = $4::text, outcome = $5::text, exit_code = $6::integer, result = $7::jsonb, problem = $8::jsonb,
      finished_at = now()
  FROM operation
  WHERE a.operation_id = operation.id AND a.number = $2::integer AND a.state = $3::text
  RETURNING a.operation_id, a.state, a.result
), finished AS (
  UPDATE storeplane.operations AS o
  SET lease_until = NULL, lease_holder = NULL,
      state = CASE WHEN attempt.state = 'succeeded' THEN 'succeeded' ELSE o.state END,
      result = CASE WHEN attempt.state = 'succeeded' THEN attempt.result ELSE o.result END,
      finished_at = CASE WHEN attempt.state = 'succeeded' THEN now() ELSE o.finished_at END
  FROM attempt
  WHERE o.id = attempt.operation_id
  RETURNING o.id, o.store_id, o.state
), store AS (
  UPDATE storeplane.stores AS s SET state = 'ready', updated_at = now()
  FROM finished
  WHERE s.id = finished.store_id AND finished.state = 'succeeded' AND s.state = 'provisioning'
  RETURNING s.id, s.urls
), event AS (
  INSERT INTO storeplane.store_events (store_id, operation_id, event_type, message, metadata)
  SELECT store.id, finished.id, 'provisioning_completed',
         format('Store is ready at %s', coalesce(store.urls ->> 'storefront', store.urls ->> 'api')),
         jsonb_build_object('attempt', $2::integer)
  FROM store, finished
)
SELECT attempt.operation_id FROM attempt
