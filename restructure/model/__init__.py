"""Plain values that every floor may use. Nothing here talks to a server."""
