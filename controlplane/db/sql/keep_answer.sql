-- purpose: Keep the first answer to a request with an idempotency key, in the transaction that wrote the key
-- rows: none
-- caller: services.stores
-- index: idempotency_keys_pkey
-- locks: the key's row
-- $1: user id, $2: route, $3: key, $4: body of the answer
UPDATE storeplane.idempotency_keys AS k
SET answer = $4::text
WHERE k.user_id = $1::uuid AND k.route = $2::text AND k.key = $3::text
