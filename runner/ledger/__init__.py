"""The durable record of submissions, in SQLite: the only package with SQL."""
