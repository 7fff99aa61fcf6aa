-- purpose: Leave a cluster alone for a while, each time longer; what fails beside the first failure counts once
-- rows: one, or none for an unknown cluster
-- caller: dispatcher
-- index: clusters_pkey
-- locks: the cluster's row
-- $1: cluster, $2: reason a person reads, $3: seconds, null for a time that doubles with each failure from 2 up to 30,
-- $4: whether the probe failed
UPDATE storeplane.clusters AS c
SET circuit_reason = $2::text,
    circuit_failures = CASE WHEN c.circuit_until > now() AND NOT $4::boolean THEN c.circuit_failures
                            ELSE c.circuit_failures + 1 END,
    circuit_until = CASE WHEN c.circuit_until > now() AND NOT $4::boolean THEN c.circuit_until
                         ELSE now() + make_interval(secs => coalesce(
                           $3::double precision, least(30, 2 * power(2, least(c.circuit_failures, 5))))) END
FROM storeplane.clusters AS before
WHERE c.id = $1::text AND before.id = c.id
RETURNING before.circuit_reason IS DISTINCT FROM $2::text AS is_new, c.circuit_until
