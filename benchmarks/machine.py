"""On what the figures were taken: without it they mean nothing."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.place import Place, settings


def describe_machine() -> dict[str, Any]:
    """Processor, cores, memory in bytes, kernel and the libraries that count."""
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _first("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load_average": os.getloadavg(),
        "python": platform.python_version(),
        "psycopg": psycopg.__version__,
        "psycopg_implementation": psycopg.pq.__impl__,
        "libpq": psycopg.pq.version(),
    }


def describe_server(place: Place) -> dict[str, Any]:
    """The server's version and what it says of the settings that matter."""
    names = [*settings(), "fsync", "full_page_writes", "data_checksums", "autovacuum"]
    names += ["max_parallel_maintenance_workers", "logical_decoding_work_mem", "synchronous_commit"]
    with place.admin() as admin:
        found = admin.execute(
            "SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY(%s)", (names,)
        ).fetchall()
        version = admin.execute("SELECT version()").fetchone()
        size = admin.execute("SELECT pg_database_size('filled')").fetchone()
    assert version is not None and size is not None
    return {"version": version[0], "settings": dict(found), "database_bytes": size[0]}


def _first(path: str, label: str) -> str | None:
    try:
        lines: Iterable[str] = Path(path).read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(label)), None)
