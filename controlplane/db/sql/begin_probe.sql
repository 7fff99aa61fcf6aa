-- purpose: Keep the circuit shut behind the one claim that tries whether the cluster is well again
-- rows: one
-- caller: dispatcher, in the claim's transaction
-- index: clusters_pkey
-- locks: the cluster's row, which the claim holds
-- $1: cluster, $2: seconds the probe may take
UPDATE storeplane.clusters AS c
SET circuit_until = clock_timestamp() + make_interval(secs => $2::double precision)
WHERE c.id = $1::text AND c.circuit_reason IS NOT NULL
RETURNING c.id
