-- purpose: Tell why the pod of a dispatched attempt does not start
-- rows: one, or none when it has begun or the operation moved on
-- caller: reconciler
-- index: operations_pkey, attempts_pkey
-- locks: the operation's row
-- $1: operation id, $2: attempt, $3: reason
UPDATE storeplane.operations AS o
SET waiting_reason = $3::text, waiting_since = now()
FROM storeplane.attempts AS a
WHERE o.id = $1::uuid AND o.attempt = $2::integer AND o.state = 'running'
  AND a.operation_id = o.id AND a.number = o.attempt AND a.state = 'dispatched'
RETURNING o.id
