"""Our own state, kept in schema ``restructure`` beside the tables it is about."""
