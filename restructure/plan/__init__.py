"""The plan file: what a job is asked to do."""
