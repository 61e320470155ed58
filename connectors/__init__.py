"""Ways to learn which keys changed. The core finds them by entry point."""
