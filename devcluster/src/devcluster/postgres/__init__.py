"""A private Postgres for development, beside a cluster and not part of it."""
