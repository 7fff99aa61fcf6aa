-- purpose: Keep that somebody reached for what is not theirs, or that something foreign carries our name
-- rows: none
-- caller: services
-- index: none
-- locks: the new row
-- $1: caller's id, $2: store or null, $3: action, $4: details, $5: caller's address
INSERT INTO storeplane.audit_log (actor_id, store_id, action, details, ip)
VALUES ($1::uuid, $2::uuid, $3::text, $4::jsonb, $5::text)
