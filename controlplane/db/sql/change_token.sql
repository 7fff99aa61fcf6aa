-- purpose: Expect another token of an attempt whose Job was not created under the key of before
-- rows: one, or none when the claim is lost or the attempt has begun
-- caller: dispatcher
-- index: operations_pkey, attempts_pkey
-- locks: the operation's row, then the attempt's
-- $1: operation id, $2: attempt, $3: fence, $4: SHA-256 of the token, $5: key id
WITH operation AS (
  SELECT o.id FROM storeplane.operations AS o
  WHERE o.id = $1::uuid AND o.attempt = $2::integer AND o.fence = $3::bigint AND o.state IN ('queued', 'running')
  FOR NO KEY UPDATE
)
UPDATE storeplane.attempts AS a
SET token_hash = $4::bytea, token_key_id = $5::text
FROM operation
WHERE a.operation_id = operation.id AND a.number = $2::integer AND a.state = 'created' AND a.job_uid IS NULL
RETURNING a.number
