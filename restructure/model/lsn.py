"""A position in the write-ahead log."""

from __future__ import annotations


class Lsn(int):
    """A byte position in the WAL, printed as PostgreSQL prints it (``16/B374D848``).

    >>> Lsn.parse("16/B374D848")
    Lsn('16/B374D848')
    >>> Lsn.parse("0/10") - Lsn.parse("0/8")
    8
    """

    @classmethod
    def parse(cls, text: str) -> Lsn:
        """Read PostgreSQL's text form. Raises ValueError on anything else."""
        high, slash, low = text.partition("/")
        if not slash:
            raise ValueError(f"not an LSN: {text!r}")
        return cls((int(high, 16) << 32) | int(low, 16))

    def __str__(self) -> str:
        return f"{self >> 32:X}/{self & 0xFFFFFFFF:X}"

    def __repr__(self) -> str:
        return f"Lsn('{self}')"
