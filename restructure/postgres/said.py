"""What PostgreSQL says of an error in DDL, where no row has a part in it."""

from __future__ import annotations

import psycopg


def said(error: psycopg.Error) -> str:
    """Its message and detail in one line. Either may quote a value of a row in other statements."""
    parts = (error.diag.message_primary, error.diag.message_detail)
    return "; ".join(" ".join(part.split()) for part in parts if part) or str(error)
