-- purpose: What a user's key was used for, and the first answer
-- rows: zero or one
-- caller: services.stores
-- index: idempotency_keys_pkey, operations_pkey
-- locks: nothing
-- $1: user id, $2: route, $3: key
SELECT k.fingerprint, k.operation_id, o.store_id, k.answer
FROM storeplane.idempotency_keys AS k
JOIN storeplane.operations AS o ON o.id = k.operation_id
WHERE k.user_id = $1::uuid AND k.route = $2::text AND k.key = $3::text
