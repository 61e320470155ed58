"""The life of a job, one phase per file, doing beside undoing."""
