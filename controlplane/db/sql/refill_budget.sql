-- purpose: Take the cluster's budget for one claim: refill its bucket, and let other claims of the cluster wait
-- rows: one, or none for an unknown cluster
-- caller: dispatcher, the first statement of the claim's transaction
-- index: clusters_pkey
-- locks: the cluster's row until the claim commits, so that what the claim reads next is not changed beside it
-- $1: cluster
-- The wall clock, not the transaction's: the lock may have been long in coming.
UPDATE storeplane.clusters AS c
SET bucket_tokens = least(c.bucket_size, c.bucket_tokens + c.bucket_rate
                          * greatest(0, extract(epoch FROM clock_timestamp() - c.bucket_at)::double precision)),
    bucket_at = greatest(c.bucket_at, clock_timestamp())
WHERE c.id = $1::text
RETURNING floor(c.bucket_tokens)::integer AS tokens, greatest(0, c.in_flight_limit - c.in_flight) AS free,
          c.circuit_reason IS NOT NULL AS is_broken, coalesce(c.circuit_until > clock_timestamp(), false) AS is_open,
          ((1 - c.bucket_tokens) / c.bucket_rate)::double precision AS seconds_to_token
