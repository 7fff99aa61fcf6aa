-- purpose: Number of the newest migration applied
-- rows: one
-- caller: services.health
-- index: schema_migrations_pkey
-- locks: nothing
SELECT max(m.number) AS number
FROM storeplane.schema_migrations AS m
