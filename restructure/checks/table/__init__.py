"""Facts about the source table and about the names that the job will take."""
