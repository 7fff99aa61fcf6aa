-- purpose: Keep the rendered Job of an attempt, once
-- rows: one, or none when the claim is lost or a manifest is there already
-- caller: dispatcher, in the claim's transaction
-- index: attempts_pkey, operations_pkey
-- locks: the attempt's row
-- $1: operation id, $2: attempt, $3: fence, $4: manifest, $5: its SHA-256, $6: SHA-256 of the token, $7: key id
UPDATE storeplane.attempts AS a
SET manifest = $4::text, manifest_sha256 = $5::text, token_hash = $6::bytea, token_key_id = $7::text
FROM storeplane.operations AS o
WHERE a.operation_id = $1::uuid AND a.number = $2::integer AND a.state = 'created' AND a.manifest IS NULL
  AND o.id = a.operation_id AND o.fence = $3::bigint
RETURNING a.number
