"""Postgres: the only package that speaks to it.

Statements are static text in `sql/`, migrations in `migrations/`. Rows leave as domain objects, drivers' errors as
domain errors. No function here calls anything but the database, so no transaction ever spans a cluster call.
"""

__all__: list[str] = []
