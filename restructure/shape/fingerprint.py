"""The source's fingerprint: has anybody changed the table under us, and what?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from restructure.errors import SchemaDrift
from restructure.model.relation import Relation
from restructure.postgres.connect import Connection

Parts = dict[str, dict[str, Any]]
"""Kind of thing → its name → what identifies it."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a table was like at one moment.

    ``hard``: what the shadow was built after; a change makes the shadow wrong. ``soft``: what the
    swap carries anyway, as it is then. ``files``: the file node of each member of the tree, by
    name; a new one means a rewrite (VACUUM FULL, CLUSTER, ALTER TYPE) or a TRUNCATE.
    """

    hard: Parts
    soft: Parts
    files: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """For the catalog."""
        return {"hard": self.hard, "soft": self.soft, "files": self.files}

    def of_rows(self) -> Fingerprint:
        """Only what decides about the values in a row, and about which rows there are.

        Of a column without its default, NOT NULL and identity, of a partition without the number of
        its checks and indexes.
        """
        columns = {
            number: [*parts[:3], "", parts[4], "", parts[6], parts[7] if parts[4] else ""]
            for number, parts in (self.hard.get("column") or {}).items()
        }
        partitions = {
            name: [word for place, word in enumerate(text.split(" ")[:-1]) if place != _CHECKS]
            for name, text in (self.hard.get("partition") or {}).items()
        }
        hard = {"table": self.hard["table"], "column": columns, "partition": partitions}
        return Fingerprint(hard, {}, self.files)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Fingerprint:
        """Read back what :meth:`to_json` made."""
        return cls(stored["hard"], stored["soft"], stored["files"])


@dataclass(frozen=True, slots=True)
class Drift:
    """What differs between two fingerprints, in words. ``rewritten`` are members of the tree."""

    hard: tuple[str, ...]
    soft: tuple[str, ...]
    rewritten: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.hard or self.soft or self.rewritten)


def fingerprint(connection: Connection, table: Relation) -> Fingerprint:
    """Read the fingerprint in one round trip, taking no lock on the table.

    Raises SchemaDrift where the table is gone.
    """
    row = connection.execute(FINGERPRINT, {"oid": table.oid}, prepare=True).fetchone()
    if row is None:
        raise SchemaDrift(
            f"table {table} is gone", hint="Abort the job: there is nothing left to restructure."
        )
    return Fingerprint.from_json(row[0])


def compare(before: Fingerprint, after: Fingerprint) -> Drift:
    """Say in words what has changed."""
    return Drift(
        hard=tuple(_differences(before.hard, after.hard)),
        soft=tuple(_differences(before.soft, after.soft)),
        rewritten=tuple(
            sorted(
                name
                for name in before.files.keys() & after.files.keys()
                if before.files[name] != after.files[name]
            )
        ),
    )


def _differences(before: Parts, after: Parts) -> list[str]:
    found: list[str] = []
    for kind in sorted(before.keys() | after.keys()):
        old, new = before.get(kind) or {}, after.get(kind) or {}
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) != new.get(name):
                found += _words(kind, name, old.get(name), new.get(name))
    return found


def _words(kind: str, name: str, old: Any, new: Any) -> list[str]:
    if kind == "table":
        return [f"the table's {name} changed"]
    if kind in _COLUMN_PARTS:
        parts = _COLUMN_PARTS[kind]
        name = (old or new)[0]
        if old and new:
            pairs = zip(parts, old[1:], new[1:], strict=True)
            what = ", ".join(part for part, was, is_now in pairs if was != is_now)
            renamed = old[0] != new[0] and kind == "column"
            words = [f"column {name} was renamed to {new[0]}"] if renamed else []
            return [*words, f"column {name}: {what} changed"] if what else words
        if kind != "column":
            return []  # said among the hard ones
    if old is None:
        return [f"{kind} {name} was added"]
    if new is None:
        return [f"{kind} {name} was dropped"]
    return [f"{kind} {name} was changed"]


_CHECKS = 6
"""Where the number of checks stands among the words of a partition."""

_COLUMN_PARTS = {
    "column": (
        "type",
        "type modifier",
        "not null",
        "generated",
        "identity",
        "collation",
        "default",
    ),
    "column settings": ("grants", "statistics target", "options", "storage", "compression"),
}
"""What stands behind the name in the arrays of FINGERPRINT, in their order."""


# pg_identify_object() knows nothing of what was dropped since this query's snapshot.
# pg_attribute.xmin is left out on purpose: it also moves with GRANT and SET STATISTICS,
# and what it could add (a value changed by ALTER TYPE) the file node says.
FINGERPRINT = """
WITH RECURSIVE tree AS (
    SELECT %(oid)s::oid AS oid, NULL::oid AS parent
    UNION ALL
    SELECT i.inhrelid, i.inhparent FROM pg_catalog.pg_inherits i JOIN tree t ON i.inhparent = t.oid
), member AS (
    SELECT c.*, t.parent, n.nspname || '.' || c.relname AS full_name
    FROM tree t JOIN pg_catalog.pg_class c ON c.oid = t.oid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
)
SELECT json_build_object(
 'hard', json_build_object(
  'table', json_build_object(
    'name', c.full_name, 'kind', c.relkind, 'persistence', c.relpersistence,
    'access method', c.relam, 'replica identity', c.relreplident,
    'row type', c.reloftype,
    'parents', (SELECT json_agg(inhparent ORDER BY inhseqno)
                FROM pg_catalog.pg_inherits WHERE inhrelid = c.oid)),
  'column', (SELECT json_object_agg(a.attnum, ARRAY[a.attname::text, a.atttypid::text,
        a.atttypmod::text, a.attnotnull::text, a.attgenerated::text,
        a.attidentity::text,
        a.attcollation::text, md5(d.adbin::text)])
    FROM pg_catalog.pg_attribute a
    LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
  'constraint', (SELECT json_object_agg(conname, concat_ws(' ', contype, conkey,
                  confrelid, confkey, condeferrable, condeferred,
                  convalidated, confupdtype, confdeltype, confmatchtype, connoinherit,
                  md5(conbin::text), md5(conexclop::text)))
    FROM pg_catalog.pg_constraint WHERE conrelid = c.oid),
  'index', (SELECT json_object_agg(x.relname, concat_ws(' ', i.indkey, i.indnkeyatts,
        i.indisunique, i.indisprimary, i.indisexclusion, i.indimmediate, i.indisvalid,
        i.indisreplident, i.indnullsnotdistinct, i.indcollation, i.indclass, i.indoption,
        x.relam, x.reloptions, md5(i.indexprs::text), md5(i.indpred::text)))
    FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
    WHERE i.indrelid = c.oid),
  'partition', (SELECT json_object_agg(m.full_name, concat_ws(' ', m.oid, m.parent, m.relkind,
        m.relpersistence, m.relam, m.relreplident, m.relchecks, md5(m.relpartbound::text),
        (SELECT count(*) FROM pg_catalog.pg_index WHERE indrelid = m.oid)))
    FROM member m WHERE m.oid <> c.oid)),
 'soft', json_build_object(
  'table', json_build_object('owner', c.relowner, 'grants', c.relacl, 'options', c.reloptions,
    'tablespace', c.reltablespace,
    'place', (SELECT json_agg(concat_ws(' ', t.partdefid, md5(c.relpartbound::text),
          CASE WHEN t.partdefid = c.oid  -- what fits nowhere else: that depends on all others
               THEN (SELECT md5(string_agg(s.relpartbound::text, ' ' ORDER BY s.oid))
                     FROM pg_catalog.pg_inherits j JOIN pg_catalog.pg_class s ON s.oid = j.inhrelid
                     WHERE j.inhparent = i.inhparent) END))
        FROM pg_catalog.pg_inherits i
        JOIN pg_catalog.pg_partitioned_table t ON t.partrelid = i.inhparent
        WHERE i.inhrelid = c.oid),
    'comments', (SELECT md5(string_agg(
        concat_ws(' ', objsubid, description), ' ' ORDER BY objsubid))
      FROM pg_catalog.pg_description
      WHERE classoid = 'pg_catalog.pg_class'::pg_catalog.regclass AND objoid = c.oid)),
  'column settings', (SELECT json_object_agg(attnum, ARRAY[attname::text, attacl::text,
        attstattarget::text, attoptions::text, attstorage::text,
        attcompression::text])
    FROM pg_catalog.pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped),
  'row security', (SELECT json_object_agg(m.full_name,
        m.relrowsecurity::text || m.relforcerowsecurity) FROM member m),
  'inbound foreign key', (SELECT json_object_agg(conname || ' of ' || conrelid,
        concat_ws(' ', oid, conkey, confkey, condeferrable, condeferred, convalidated,
                  confupdtype, confdeltype, confmatchtype))
    FROM pg_catalog.pg_constraint WHERE confrelid = c.oid AND conrelid <> c.oid),
  'trigger', (SELECT json_object_agg(tgname || ' on ' || full_name, concat_ws(' ', tgfoid, tgtype,
        tgenabled, tgattr, tgdeferrable, tginitdeferred, md5(tgargs), md5(tgqual::text),
        tgoldtable, tgnewtable))
    FROM member m JOIN pg_catalog.pg_trigger g ON g.tgrelid = m.oid AND NOT tgisinternal),
  'policy', (SELECT json_object_agg(polname || ' on ' || full_name, concat_ws(' ', polcmd,
        polpermissive, polroles, md5(polqual::text), md5(polwithcheck::text)))
    FROM member m JOIN pg_catalog.pg_policy p ON p.polrelid = m.oid),
  'rule', (SELECT json_object_agg(rulename || ' on ' || full_name,
        concat_ws(' ', ev_enabled, md5(ev_action::text)))
    FROM member m JOIN pg_catalog.pg_rewrite r ON r.ev_class = m.oid),
  'dependent', (SELECT json_object_agg(DISTINCT coalesce((pg_catalog.pg_identify_object(
        classid, objid, 0)).identity, objid::text), classid)
    FROM member m JOIN pg_catalog.pg_depend d
      ON refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND refobjid = m.oid
      OR refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass AND refobjid = m.reltype
    WHERE classid IN ('pg_catalog.pg_rewrite'::pg_catalog.regclass,
                      'pg_catalog.pg_proc'::pg_catalog.regclass,
                      'pg_catalog.pg_policy'::pg_catalog.regclass,
                      'pg_catalog.pg_publication_rel'::pg_catalog.regclass,
                      'pg_catalog.pg_statistic_ext'::pg_catalog.regclass))),
 'files', (SELECT json_object_agg(m.full_name, pg_catalog.pg_relation_filenode(m.oid)::int8)
    FROM member m WHERE m.relkind <> 'p'))
FROM member c WHERE c.oid = %(oid)s
"""
