"""What every command starts with: the global options, a session, the job that was named."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import typer
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from restructure.catalog.job import Job
from restructure.cli.render import Output
from restructure.cli.secrecy import DSN_VARIABLE
from restructure.errors import UsageError
from restructure.phases.standing import find_job
from restructure.postgres.connect import Connection, connect


@dataclass(frozen=True, slots=True)
class Invocation:
    """The global options as a command uses them. ``dsn`` is empty where libpq is to find its own
    way.
    """

    dsn: str
    output: Output

    @contextlib.contextmanager
    def session(self) -> Iterator[Connection]:
        """A session for looking. Raises as postgres/connect.py does, and at once."""
        with connect(self.dsn, role="cli") as connection:
            yield connection

    def job(self, connection: Connection, name: str) -> Job:
        """The job of this name. Raises UsageError where there is none."""
        return find_job(connection, self.dsn, name)

    def confirm(self, question: str, *, yes: bool) -> None:
        """Ask unless ``yes``. Raises UsageError off a terminal, Abort where the answer is no."""
        if yes:
            return
        if not self.output.interactive:
            raise UsageError(
                "this asks first, and there is no terminal to ask on",
                hint="Add --yes if you are sure.",
            )
        if not self.output.ask(question):
            raise typer.Abort


def invocation(context: typer.Context) -> Invocation:
    """The invocation that the main callback left for the command."""
    return cast(Invocation, context.obj)


def choose_dsn(given: str | None, environment: Mapping[str, str] = os.environ) -> str:
    """``--dsn``, RESTRUCTURE_DSN, DATABASE_URL, else libpq's own variables and service file."""
    return given or environment.get(DSN_VARIABLE) or environment.get("DATABASE_URL") or ""


def secrets_of(dsn: str, environment: Mapping[str, str] = os.environ) -> list[str]:
    """The passwords that this process knows of."""
    found = [environment.get("PGPASSWORD")]
    with contextlib.suppress(ProgrammingError):
        words = conninfo_to_dict(dsn)
        found += [cast("str | None", words.get(name)) for name in ("password", "sslpassword")]
    return [secret for secret in found if secret]
