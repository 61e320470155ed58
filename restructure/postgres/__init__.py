"""PostgreSQL as we use it: one noun of the server per file."""
