"""The moving parts of a running job."""
