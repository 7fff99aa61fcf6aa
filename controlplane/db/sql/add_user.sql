-- purpose: Add a user, or give an existing one a new role and token
-- rows: one
-- caller: services.users
-- index: users_name_unique
-- locks: the user's row
-- $1: id of a new user, $2: name, $3: role, $4: SHA-256 of the token
INSERT INTO storeplane.users (id, name, role, token_hash)
VALUES ($1::uuid, $2::text, $3::text, $4::bytea)
ON CONFLICT ON CONSTRAINT users_name_unique
DO UPDATE SET role = excluded.role, token_hash = excluded.token_hash
RETURNING id
