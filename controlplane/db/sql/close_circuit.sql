-- purpose: A Job was created: the cluster is well again
-- rows: one, or none when the circuit was closed
-- caller: dispatcher
-- index: clusters_pkey
-- locks: the cluster's row
-- $1: cluster
UPDATE storeplane.clusters AS c
SET circuit_reason = NULL, circuit_until = NULL, circuit_failures = 0, circuit_closed_at = now()
WHERE c.id = $1::text AND c.circuit_reason IS NOT NULL
RETURNING c.id
