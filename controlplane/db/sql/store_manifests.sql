-- purpose: Keep the rendered Jobs of claimed attempts, once each
-- rows: one for each that was kept
-- caller: dispatcher, in the claim's transaction
-- index: attempts_pkey
-- locks: the attempts' rows, whose operations the claim holds
-- $1: operation ids, $2: attempts, $3: manifests, $4: their SHA-256, $5: SHA-256 of the tokens, $6: key ids
UPDATE storeplane.attempts AS a
SET manifest = made.manifest, manifest_sha256 = made.sha256, token_hash = made.token_hash,
    token_key_id = made.token_key_id
FROM unnest($1::uuid[], $2::integer[], $3::text[], $4::text[], $5::bytea[], $6::text[])
  AS made (operation_id, number, manifest, sha256, token_hash, token_key_id)
WHERE a.operation_id = made.operation_id AND a.number = made.number AND a.state = 'created' AND a.manifest IS NULL
RETURNING a.operation_id
