"""Which server this is, and how its provider wants things done."""

from __future__ import annotations

from dataclasses import dataclass

from restructure.postgres.connect import Connection


@dataclass(frozen=True, slots=True)
class Provider:
    """Who runs the server. The two fixes are what the user has to do there."""

    name: str
    wal_level: str
    replication: str


SELF_HOSTED = Provider(
    "PostgreSQL",
    "As a superuser: ALTER SYSTEM SET wal_level = 'logical'; then restart the server.",
    "As a superuser: ALTER ROLE {role} REPLICATION.",
)
_AURORA = Provider(
    "Amazon Aurora",
    "Set rds.logical_replication = 1 in the DB cluster parameter group and reboot the writer.",
    "GRANT rds_replication TO {role}.",
)
_RDS = Provider(
    "Amazon RDS",
    "Set rds.logical_replication = 1 in the DB parameter group and reboot the instance.",
    "GRANT rds_replication TO {role}.",
)
_CLOUD_SQL = Provider(
    "Google Cloud SQL",
    "Set the flag cloudsql.logical_decoding = on; the instance restarts.",
    "As the postgres user: ALTER USER {role} WITH REPLICATION.",
)
_AZURE = Provider(
    "Azure Database for PostgreSQL",
    "Set the server parameter wal_level to LOGICAL and restart the server.",
    "As the server's administrator: ALTER ROLE {role} WITH REPLICATION.",
)
_NEON = Provider(
    "Neon",
    "Enable logical replication in the project's settings. It cannot be switched off again.",
    "Use a role made in the console, the CLI or the API: those have REPLICATION.",
)
_SUPABASE = Provider(
    "Supabase",
    "wal_level is logical by default: ask their support what changed it.",
    "Use the postgres role over the direct connection, not over the pooler.",
)
_HEROKU = Provider(
    "Heroku Postgres",
    "Heroku offers no logical replication slots: move the database elsewhere first.",
    "Heroku offers no logical replication slots: move the database elsewhere first.",
)

_SIGNS = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_proc WHERE proname = 'aurora_version'),
       EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'rds_superuser'),
       EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'cloudsqlsuperuser'),
       EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'azure_pg_admin'),
       EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'neon_superuser'),
       EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'supabase_admin'),
       EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'heroku_ext')
"""
_IN_ORDER = (_AURORA, _RDS, _CLOUD_SQL, _AZURE, _NEON, _SUPABASE, _HEROKU)


def provider(connection: Connection) -> Provider:
    """Tell the provider by the roles and functions that only it makes."""
    signs = connection.execute(_SIGNS).fetchone() or ()
    return next((p for p, seen in zip(_IN_ORDER, signs, strict=False) if seen), SELF_HOSTED)


_MAY_REPLICATE = """
SELECT current_user, r.rolsuper OR r.rolreplication OR EXISTS (
           SELECT FROM pg_catalog.pg_roles p WHERE p.rolname = 'rds_replication'
           AND pg_catalog.pg_has_role(current_user, p.oid, 'USAGE'))
FROM pg_catalog.pg_roles r WHERE r.rolname = current_user
"""


def may_replicate(connection: Connection) -> tuple[str, bool]:
    """Our role, and whether it may make slots and read them."""
    role, allowed = connection.execute(_MAY_REPLICATE).fetchone() or ("", False)
    return role, allowed
