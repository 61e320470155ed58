"""The command line: one command, or pair of commands, per file."""
