-- purpose: The user a bearer token belongs to
-- rows: zero or one
-- caller: services.users
-- index: users_token_hash_unique
-- locks: nothing
-- $1: SHA-256 of the token
SELECT u.id, u.role
FROM storeplane.users AS u
WHERE u.token_hash = $1::bytea
