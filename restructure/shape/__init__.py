"""The table as it is, the table as it will be, and the mapping between the two."""
