"""Give a live PostgreSQL table a new shape by logical replication."""

__version__ = "0.1.0"
