-- purpose: Tell and keep that a living Job was bound to its attempt again
-- rows: none
-- caller: services.reattach, in the transaction of record_jobs
-- index: operations_pkey
-- locks: the new rows
-- $1: operation id, $2: attempt, $3: Job's name, $4: Job's uid, $5: caller's id, $6: caller's address
WITH operation AS (
  SELECT o.id, o.store_id FROM storeplane.operations AS o WHERE o.id = $1::uuid
), event AS (
  INSERT INTO storeplane.store_events (store_id, operation_id, event_type, message, metadata)
  SELECT operation.store_id, operation.id, 'reattached', format('Job %s is followed again', $3::text),
         jsonb_build_object('attempt', $2::integer, 'job_uid', $4::text)
  FROM operation
)
INSERT INTO storeplane.audit_log (actor_id, store_id, action, details, ip)
SELECT $5::uuid, operation.store_id, 'operation.reattach',
       jsonb_build_object('operation_id', operation.id, 'attempt', $2::integer, 'job_uid', $4::text), $6::text
FROM operation
