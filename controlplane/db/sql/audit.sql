-- purpose: Keep an audit row of something the system did by itself
-- rows: none
-- caller: reconciler
-- index: none
-- locks: the new row
-- $1: action, $2: details
INSERT INTO storeplane.audit_log (action, details) VALUES ($1::text, $2::jsonb)
