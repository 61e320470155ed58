"""An embedded PostgreSQL and the clients that write to it."""
