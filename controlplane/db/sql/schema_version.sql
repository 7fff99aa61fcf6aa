-- purpose: Number of the newest migration applied, 0 before the first
-- rows: one
-- caller: services.health
-- index: schema_migrations_pkey
-- locks: nothing
SELECT coalesce(max(m.number), 0) AS number
FROM storeplane.schema_migrations AS m
