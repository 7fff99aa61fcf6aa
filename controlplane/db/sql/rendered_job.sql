-- purpose: What an attempt's Job must be: as it was rendered, with the token the database expects
-- rows: zero or one
-- caller: reconciler
-- index: attempts_pkey
-- locks: nothing
-- $1: operation id, $2: attempt
SELECT a.manifest, a.token_hash
FROM storeplane.attempts AS a
WHERE a.operation_id = $1::uuid AND a.number = $2::integer AND a.manifest IS NOT NULL
