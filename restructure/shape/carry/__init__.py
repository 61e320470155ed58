"""What hangs on a table: one kind of dependent per file."""
