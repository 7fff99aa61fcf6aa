-- purpose: Set a cluster's budget; a cluster that is not known yet is added
-- rows: one
-- caller: services.clusters
-- index: clusters_pkey
-- locks: the cluster's row
-- $1: cluster, $2: attempts in flight, $3: Jobs a second, $4: Jobs at once; null leaves what is
INSERT INTO storeplane.clusters AS c (id, in_flight_limit, bucket_rate, bucket_size)
VALUES ($1::text, coalesce($2::integer, 200), coalesce($3::double precision, 20), coalesce($4::double precision, 100))
ON CONFLICT ON CONSTRAINT clusters_pkey DO UPDATE
SET in_flight_limit = coalesce($2::integer, c.in_flight_limit),
    bucket_rate = coalesce($3::double precision, c.bucket_rate),
    bucket_size = coalesce($4::double precision, c.bucket_size)
RETURNING c.in_flight_limit, c.bucket_rate, c.bucket_size
