"""Preflight: one fact per file, each finding with its remedy."""
