"""Facts about the server, the database and our role."""
