-- purpose: Running operations past their deadline, and queued ones past the queue's limit while the cluster is well
-- rows: up to the limit
-- caller: reconciler
-- index: operations_running, operations_queued
-- locks: nothing
-- $1: cluster, $2: seconds in the queue, $3: limit
-- Waiting counts from the end of the cluster's last trouble: an outage fails nobody in bulk.
SELECT o.id, o.kind, o.state
FROM storeplane.operations AS o
WHERE o.state = 'running' AND o.cluster_id = $1::text AND o.deadline_at < now()
UNION ALL
SELECT o.id, o.kind, o.state
FROM storeplane.operations AS o
JOIN storeplane.clusters AS c ON c.id = o.cluster_id
WHERE o.state = 'queued' AND o.cluster_id = $1::text AND c.circuit_reason IS NULL
  AND o.created_at < now() - make_interval(secs => $2::double precision)
  AND c.circuit_closed_at < now() - make_interval(secs => $2::double precision)
LIMIT $3::integer
