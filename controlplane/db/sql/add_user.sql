-- purpose: Add a user, or give an existing one a new role, token and number of stores
-- rows: one
-- caller: services.users
-- index: users_name_unique
-- locks: the user's row
-- $1: id of a new user, $2: name, $3: role, $4: SHA-256 of the token, $5: most stores, null to leave it or take five
INSERT INTO storeplane.users AS u (id, name, role, token_hash, max_stores)
VALUES ($1::uuid, $2::text, $3::text, $4::bytea, coalesce($5::integer, 5))
ON CONFLICT ON CONSTRAINT users_name_unique
DO UPDATE SET role = excluded.role, token_hash = excluded.token_hash, max_stores = coalesce($5::integer, u.max_stores)
RETURNING id
