"""A table with a random part of everything that PostgreSQL can hang on one, as SQL.

One function per kind. Each knows the columns that are always there (``BASE``) and asks ``Chance``
for the rest, so that a failing example shrinks to the one statement that matters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

ROLES = ("everything_owner", "everything_reader", "everything_giver", "everything_taker")
"""Made once on each server, for roles outlive databases."""

NAMES = ("t", '"Order Items"', '"a ""b"" %s"', "app.t", '"App".t')
BASE = """
    id int NOT NULL, a int NOT NULL, b text NOT NULL DEFAULT 'b', d date DEFAULT '2026-01-02',
    doc jsonb DEFAULT '{"k": [1, "%"]}', r int4range, parent int, boss int
"""
FORMS = {
    "plain": "",
    "range": """ PARTITION BY RANGE (a);
        CREATE TABLE {s}leaf_low PARTITION OF {t} FOR VALUES FROM (MINVALUE) TO (100);
        CREATE TABLE {s}leaf_rest PARTITION OF {t} DEFAULT""",
    "list": """ PARTITION BY LIST (a);
        CREATE TABLE {s}leaf_one PARTITION OF {t} FOR VALUES IN (1, 2);
        CREATE TABLE other.leaf_rest PARTITION OF {t} DEFAULT""",
    "hash": """ PARTITION BY HASH (a);
        CREATE TABLE {s}leaf_0 PARTITION OF {t} FOR VALUES WITH (MODULUS 2, REMAINDER 0);
        CREATE TABLE {s}leaf_1 PARTITION OF {t} FOR VALUES WITH (MODULUS 2, REMAINDER 1)""",
    "two levels": """ PARTITION BY RANGE (a);
        CREATE TABLE {s}leaf_mid PARTITION OF {t} FOR VALUES FROM (MINVALUE) TO (100)
            PARTITION BY HASH (id);
        CREATE TABLE {s}leaf_m0 PARTITION OF {s}leaf_mid FOR VALUES WITH (MODULUS 1, REMAINDER 0);
        CREATE TABLE {s}leaf_rest PARTITION OF {t} DEFAULT""",
}
LEAVES = {
    "plain": (),
    "range": ("{s}leaf_low", "{s}leaf_rest"),
    "list": ("{s}leaf_one", "other.leaf_rest"),
    "hash": ("{s}leaf_0", "{s}leaf_1"),
    "two levels": ("{s}leaf_m0", "{s}leaf_rest"),
}
AROUND = """
CREATE SCHEMA app; CREATE SCHEMA "App"; CREATE SCHEMA other; CREATE SCHEMA code;
GRANT CREATE, USAGE ON SCHEMA public, app, "App", other, code TO everything_owner;
CREATE TYPE public.mood AS ENUM ('sad', 'it''s ok');
CREATE DOMAIN public.posint AS int DEFAULT 1 CHECK (VALUE > 0);
CREATE TYPE public.pair AS (x int, y text);
CREATE SEQUENCE other.shared;
CREATE COLLATION other.own (provider = libc, locale = 'C');
CREATE FUNCTION code.seven() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 7';
CREATE FUNCTION code.act() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN IF TG_LEVEL = ''ROW'' AND TG_OP <> ''DELETE'' THEN RETURN NEW; END IF; RETURN OLD; END';
CREATE TABLE other.parents (id int PRIMARY KEY, kind int, UNIQUE (id, kind));
"""

Kind = Callable[["Chance", "World"], list[str]]


@dataclass(frozen=True, slots=True)
class Chance:
    """What hypothesis decides."""

    draw: Callable[[st.SearchStrategy[Any]], Any]

    def pick(self, *options: str) -> str:
        """One of them; the first is the simplest."""
        return str(self.draw(st.sampled_from(options)))

    def some(self, options: Sequence[str], most: int = 4) -> list[str]:
        """A few of them, in any order."""
        return list(self.draw(st.lists(st.sampled_from(options), unique=True, max_size=most)))

    def maybe(self, text: str) -> str:
        return text if self.draw(st.booleans()) else ""


@dataclass(slots=True)
class World:
    """The table that the statements are about."""

    table: str
    form: str
    version: int
    columns: list[str] = field(default_factory=list)
    virtual: bool = False
    statements: list[str] = field(default_factory=list, init=False, repr=False)
    """Those that make it with all that hangs on it."""

    @property
    def partitioned(self) -> bool:
        return self.form != "plain"

    @property
    def bare(self) -> str:
        """Its name without the schema."""
        return self.table.rpartition(".")[2]

    @property
    def schema(self) -> str:
        """The prefix of what stands beside it."""
        return self.table.removesuffix(self.bare) or "public."

    @property
    def key(self) -> str:
        return "id, a" if self.partitioned else "id"

    @property
    def leaves(self) -> tuple[str, ...]:
        return tuple(leaf.format(s=self.schema) for leaf in LEAVES[self.form])

    def on(self, texts: Sequence[str]) -> list[str]:
        """The statements for this table: {t} is it, {s} its schema, {b} its bare name."""
        return [
            text.replace("{t}", self.table).replace("{s}", self.schema).replace("{b}", self.bare)
            for text in texts
        ]


COLUMNS = {
    "small": "smallint DEFAULT -3",
    "price": "numeric(12,2) DEFAULT 0.50 NOT NULL",
    "label": "varchar(20) COLLATE \"C\" DEFAULT 'it''s 100%%'",
    "folded": "text COLLATE other.own",
    "list": "int[] DEFAULT '{1,2}'",
    "uid": "uuid DEFAULT gen_random_uuid()",
    "ip": "inet",
    "bits": "bit varying(8) DEFAULT B'101'",
    "wait": "interval day to second(3) DEFAULT '1 day'",
    "at": "timestamp(3) with time zone DEFAULT now()",
    "mood": "public.mood DEFAULT 'sad'",
    "posint": "public.posint",
    "pair": "public.pair",
    "raw": "bytea DEFAULT '\\x00ff'",
    "real": "real DEFAULT 0.1",
    "fixed": "char(3)",
    '"Select"': "double precision DEFAULT 'NaN'",
    "fn": "int DEFAULT code.seven()",
    "shared": "bigint DEFAULT nextval('other.shared')",
    "serial": "serial",
    "small_serial": "smallserial",
    "always": "bigint GENERATED ALWAYS AS IDENTITY (INCREMENT 5 CACHE 10)",
    "by_default": "int GENERATED BY DEFAULT AS IDENTITY (MAXVALUE 999999 CYCLE)",
    "twice": "int GENERATED ALWAYS AS (a * 2) STORED",
    "words": "tsvector GENERATED ALWAYS AS (to_tsvector('pg_catalog.english', b)) STORED",
}


def columns(chance: Chance, world: World) -> list[str]:
    found = chance.some(list(COLUMNS), most=6)
    if "always" in found and "by_default" in found:
        found.remove("by_default")
    world.columns = found
    texts = [f"{name} {COLUMNS[name]}" for name in found]
    if world.version >= 18:
        virtual = chance.some(["virtual_one int GENERATED ALWAYS AS (a + 1) VIRTUAL"])
        world.virtual = bool(virtual)
        texts += virtual
    return texts


def altered_columns(chance: Chance, world: World) -> list[str]:
    """Columns that came and went: numbers with holes, defaults that are not in the rows."""
    return chance.some(
        [
            "ALTER TABLE {t} ADD gone int, ADD after_gone int DEFAULT 5; ALTER TABLE {t} DROP gone",
            "ALTER TABLE {t} ADD fast text NOT NULL DEFAULT 'fast'",
            "ALTER TABLE {t} ADD old_name int DEFAULT 1; ALTER TABLE {t} RENAME old_name TO new_name",
        ]
    )


def constraints(chance: Chance, world: World) -> list[str]:
    found = [
        "ALTER TABLE {t} ADD CONSTRAINT positive CHECK (a > -100) NOT VALID",
        "ALTER TABLE {t} ADD CONSTRAINT \"Long enough %\" CHECK (length(b) > 0 AND b <> '%')",
        "ALTER TABLE {t} ADD CHECK (id <> a OR b IS NOT NULL)",
        "ALTER TABLE {t} ADD CONSTRAINT uq_incl UNIQUE (id, a) INCLUDE (b)",
        "ALTER TABLE {t} ADD CONSTRAINT uq_late UNIQUE (a, b, id) DEFERRABLE INITIALLY DEFERRED",
        "ALTER TABLE {t} ADD CONSTRAINT uq_nulls UNIQUE NULLS NOT DISTINCT (id, a, r)",
        "COMMENT ON CONSTRAINT the_key ON {t} IS 'the key''s 100%'",
    ]
    if not world.partitioned:
        found += [
            "ALTER TABLE {t} ADD CONSTRAINT alone CHECK (a < 1000000) NO INHERIT",
            "ALTER TABLE {t} ADD CONSTRAINT uq_full UNIQUE (b) WITH (fillfactor = 60)",
            "ALTER TABLE {t} ADD CONSTRAINT no_overlap EXCLUDE USING gist (r WITH &&)"
            " WHERE (a > 0) DEFERRABLE",
        ]
    if world.version >= 18:
        found += [
            "ALTER TABLE {t} ADD CONSTRAINT b_there NOT NULL r NOT VALID",
            "ALTER TABLE {t} ADD CONSTRAINT doc_there NOT NULL doc",
            "ALTER TABLE {t} ADD CONSTRAINT doc_there NOT NULL doc;"
            " COMMENT ON CONSTRAINT doc_there ON {t} IS 'there'",
            "ALTER TABLE {t} ADD CONSTRAINT loose CHECK (a < 5) NOT ENFORCED",
        ]
    chosen = chance.some(found)
    named = [text for text in chosen if "doc_there" in text]
    return [text for text in chosen if text not in named[1:]]


def indexes(chance: Chance, world: World) -> list[str]:
    found = [
        "CREATE INDEX ix_partial ON {t} (a DESC NULLS LAST) WHERE b IS NOT NULL AND b <> 'x%'",
        "CREATE INDEX ix_lower ON {t} (lower(b) text_pattern_ops) INCLUDE (a);"
        " ALTER INDEX {s}ix_lower ALTER COLUMN 1 SET STATISTICS 77",
        'CREATE UNIQUE INDEX "Ix Odd" ON {t} (id, a, (b COLLATE "C")) WITH (fillfactor = 70)',
        "CREATE INDEX ix_doc ON {t} USING gin (doc jsonb_path_ops) WITH (fastupdate = off)",
        "CREATE INDEX ix_brin ON {t} USING brin (id, a) WITH (pages_per_range = 8)",
        "CREATE INDEX ix_hash ON {t} USING hash (b); COMMENT ON INDEX {s}ix_hash IS 'hash''d'",
        "CREATE INDEX ix_range ON {t} USING gist (r range_ops)",
    ]
    if world.partitioned:
        found.append("CREATE INDEX ix_only ON ONLY {t} (parent)")
    else:
        found.append("CREATE INDEX ix_cluster ON {t} (b); ALTER TABLE {t} CLUSTER ON ix_cluster")
    chosen = chance.some(found)
    if world.partitioned:
        chosen += chance.some([f"CREATE INDEX ix_leaf ON {world.leaves[0]} (boss)"])
    return chosen


def settings(chance: Chance, world: World) -> list[str]:
    found = [
        "ALTER TABLE {t} ALTER b SET STORAGE EXTERNAL, ALTER b SET STATISTICS 500",
        "ALTER TABLE {t} ALTER doc SET COMPRESSION pglz",
        "ALTER TABLE {t} ALTER a SET (n_distinct = -0.5)",
        "ALTER TABLE {t} ALTER id SET STATISTICS 0",
    ]
    if not world.partitioned:
        found += [
            "ALTER TABLE {t} SET (fillfactor = 80, autovacuum_enabled = false)",
            "ALTER TABLE {t} SET (toast.autovacuum_enabled = false, parallel_workers = 2)",
            "ALTER TABLE {t} SET (autovacuum_vacuum_scale_factor = 0.02, toast_tuple_target = 200)",
        ]
    chosen = chance.some(found)
    for leaf in world.leaves[:1]:
        chosen += chance.some(
            [
                f"ALTER TABLE {leaf} SET (fillfactor = 50, toast.autovacuum_enabled = false)",
                f"ALTER TABLE {leaf} ALTER b SET STORAGE MAIN, ALTER a SET STATISTICS 5",
                f"ALTER TABLE {leaf} ALTER b SET DEFAULT 'leaf'",
                f"ALTER TABLE {leaf} ADD CONSTRAINT leaf_check CHECK (a < 1000000)",
                f"COMMENT ON TABLE {leaf} IS 'a leaf'",
                f"GRANT SELECT ON {leaf} TO everything_reader",
            ]
        )
    return [*chosen, *chance.some([_identity(chance, world)], most=1)]


def _identity(chance: Chance, world: World) -> str:
    """A virtual column cannot be published, which FULL asks for: no such table can have a stream."""
    form = "USING INDEX the_key" if world.virtual else chance.pick("FULL", "USING INDEX the_key")
    return f"ALTER TABLE {{t}} REPLICA IDENTITY {form}"


def comments(chance: Chance, world: World) -> list[str]:
    return chance.some(
        [
            "COMMENT ON TABLE {t} IS 'who''s in 100% of it\nand a second line'",
            "COMMENT ON COLUMN {t}.b IS 'a text'",
            "COMMENT ON COLUMN {t}.id IS 'the key'",
        ]
    )


def ownership(chance: Chance, world: World) -> list[str]:
    found = chance.some(
        [
            "GRANT SELECT ON {t} TO everything_reader, PUBLIC",
            "GRANT UPDATE (b), REFERENCES (id), SELECT (a) ON {t} TO everything_reader",
            "REVOKE TRUNCATE ON {t} FROM CURRENT_USER",
            "GRANT ALL ON {t} TO everything_taker",
            "GRANT SELECT, INSERT ON {t} TO everything_giver WITH GRANT OPTION;"
            ' GRANT USAGE ON SCHEMA public, app, "App" TO everything_giver;'
            " SET ROLE everything_giver; GRANT SELECT ON {t} TO everything_taker; RESET ROLE",
            "GRANT UPDATE (a) ON {t} TO everything_giver WITH GRANT OPTION",
        ]
    )
    sequences = {"serial": "USAGE", "by_default": "SELECT", "always": "ALL"}
    plain = world.bare.strip('"').replace('""', '"').replace('"', '""')
    for column in sequences.keys() & set(world.columns):
        name = f'{world.schema}"{plain}_{column}_seq"'
        found += chance.some(
            [
                f"GRANT {sequences[column]} ON SEQUENCE {name} TO everything_reader",
                f"COMMENT ON SEQUENCE {name} IS 'counts'",
            ]
        )
    # a new owner is given last, so that the grants above are its own
    return found + chance.some(
        [
            "ALTER TABLE {t} OWNER TO everything_owner",
            "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO everything_reader",
        ]
    )


def outbound_keys(chance: Chance, world: World) -> list[str]:
    action = chance.pick(
        "", " ON DELETE CASCADE", " ON DELETE SET NULL (parent) ON UPDATE CASCADE",
        " ON DELETE SET DEFAULT ON UPDATE RESTRICT", " DEFERRABLE",
        " ON DELETE RESTRICT DEFERRABLE INITIALLY DEFERRED",
    )  # fmt: skip
    late = "" if world.partitioned and world.version < 18 else chance.maybe(" NOT VALID")
    found = [
        f"ALTER TABLE {{t}} ADD CONSTRAINT to_parent FOREIGN KEY (parent)"
        f" REFERENCES other.parents{action}{late}",
        "ALTER TABLE {t} ADD FOREIGN KEY (parent, boss)"
        " REFERENCES other.parents (id, kind) MATCH FULL",
        "ALTER TABLE {t} ADD CONSTRAINT said FOREIGN KEY (boss) REFERENCES other.parents;"
        " COMMENT ON CONSTRAINT said ON {t} IS 'a parent''s 100%'",
    ]
    for leaf in world.leaves[-1:]:
        found.append(
            f"ALTER TABLE {leaf} ADD CONSTRAINT leaf_to_parent FOREIGN KEY (boss, parent)"
            f" REFERENCES other.parents (id, kind); COMMENT ON CONSTRAINT leaf_to_parent ON {leaf} IS 'leaf'"
        )
    return chance.some(found)


def self_references(chance: Chance, world: World) -> list[str]:
    own = "boss, a" if world.partitioned else "boss"
    action = chance.pick("", " ON DELETE CASCADE", " DEFERRABLE INITIALLY DEFERRED")
    return chance.some(
        [
            f"ALTER TABLE {{t}} ADD CONSTRAINT to_boss FOREIGN KEY ({own})"
            f" REFERENCES {{t}}{action}",
            f"ALTER TABLE {{t}} ADD CONSTRAINT boss_said FOREIGN KEY ({own}) REFERENCES {{t}};"
            " COMMENT ON CONSTRAINT boss_said ON {t} IS 'itself'",
        ]
    )


def inbound_keys(chance: Chance, world: World) -> list[str]:
    own = "of, of_a" if world.partitioned else "of"
    action = chance.pick(
        "", " ON DELETE CASCADE ON UPDATE CASCADE", " ON DELETE SET NULL", " MATCH FULL",
        " DEFERRABLE INITIALLY DEFERRED", " NOT VALID",
    )  # fmt: skip
    found = [
        f"CREATE TABLE other.kids (id int PRIMARY KEY, of int, of_a int,"
        f' CONSTRAINT "To It %" FOREIGN KEY ({own}) REFERENCES {{t}});'
        " COMMENT ON CONSTRAINT \"To It %\" ON other.kids IS 'up'",
        "CREATE TABLE {s}more_kids (id int, of int, of_a int);"
        f" ALTER TABLE {{s}}more_kids ADD CONSTRAINT up FOREIGN KEY ({own})"
        f" REFERENCES {{t}}{action}",
        f"CREATE TABLE other.many (id int, of int, of_a int, FOREIGN KEY ({own}) REFERENCES {{t}})"
        " PARTITION BY HASH (id); CREATE TABLE other.many_0 PARTITION OF other.many"
        " FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
    ]
    return chance.some(found)


def triggers(chance: Chance, world: World) -> list[str]:
    moment = chance.pick("AFTER", "BEFORE")
    run = "EXECUTE FUNCTION code.act"
    found = [
        f"CREATE TRIGGER tr_row {moment} INSERT OR UPDATE OF b, a ON {{t}} FOR EACH ROW"
        f" WHEN (NEW.a > 3 AND NEW.b <> '%') {run}('x', '100%', 'it''s')",
        f'CREATE TRIGGER "Tr Odd" AFTER UPDATE ON {{t}} FOR EACH ROW'
        f" WHEN (OLD.* IS DISTINCT FROM NEW.*) {run}()",
        f"CREATE TRIGGER tr_statement {moment} DELETE OR TRUNCATE ON {{t}}"
        f" FOR EACH STATEMENT {run}(); COMMENT ON TRIGGER tr_statement ON {{t}} IS 'it''s'",
        f"CREATE TRIGGER tr_tables AFTER UPDATE ON {{t}} REFERENCING OLD TABLE AS o NEW TABLE AS n"
        f" FOR EACH STATEMENT {run}()",
        f"CREATE CONSTRAINT TRIGGER tr_late AFTER INSERT ON {{t}}{' ' * 1}"
        f"{chance.pick('', 'DEFERRABLE INITIALLY DEFERRED', 'FROM other.parents DEFERRABLE')}"
        f" FOR EACH ROW {run}()",
    ]
    chosen = chance.some(found)
    names = {"tr_row": "tr_row", "Tr Odd": '"Tr Odd"', "tr_statement": "tr_statement"}
    for word, name in names.items():
        if any(f"TRIGGER {name}" in text for text in chosen):
            state = chance.pick("", "DISABLE", "ENABLE REPLICA", "ENABLE ALWAYS")
            only = chance.maybe("ONLY ") if world.partitioned and word != "tr_statement" else ""
            if state:
                chosen.append(f"ALTER TABLE {only}{{t}} {state} TRIGGER {name}")
    if world.partitioned:
        leaf = world.leaves[0]
        chosen += chance.some(
            [
                f"CREATE TRIGGER tr_leaf BEFORE INSERT ON {leaf} FOR EACH ROW {run}();"
                f" ALTER TABLE {leaf} ENABLE ALWAYS TRIGGER tr_leaf"
            ]
        )
    return chosen


def rules(chance: Chance, world: World) -> list[str]:
    return chance.some(
        [
            "CREATE TABLE other.log (id int, note text); CREATE RULE ru_log AS ON UPDATE TO {t}"
            " WHERE OLD.a <> NEW.a DO ALSO INSERT INTO other.log VALUES (OLD.id, '100%')",
            "CREATE RULE ru_never AS ON DELETE TO {t} WHERE OLD.id < 0 DO INSTEAD NOTHING;"
            " COMMENT ON RULE ru_never ON {t} IS 'never'",
            "CREATE RULE ru_note AS ON INSERT TO {t} DO ALSO NOTIFY it_happened;"
            " ALTER TABLE {t} DISABLE RULE ru_note",
            "CREATE TABLE other.box (id int); CREATE RULE ru_to AS ON INSERT TO other.box"
            " DO ALSO UPDATE {t} SET b = 'boxed' WHERE id = NEW.id",
        ]
    )


def policies(chance: Chance, world: World) -> list[str]:
    found = [
        "CREATE POLICY po_see ON {t} FOR SELECT TO everything_reader, everything_taker"
        " USING (a > 0 AND b <> current_setting('app.x%', true))",
        'CREATE POLICY "Po Odd" ON {t} AS RESTRICTIVE USING (id > 0) WITH CHECK (a IS NOT NULL);'
        " COMMENT ON POLICY \"Po Odd\" ON {t} IS 'odd'",
        "CREATE POLICY po_in ON {t} FOR INSERT WITH CHECK (b = CURRENT_USER)",
        "CREATE POLICY po_sub ON {t} FOR UPDATE USING"
        " (EXISTS (SELECT FROM other.parents p WHERE p.id = parent))",
    ]
    return chance.some(
        [
            *found,
            "ALTER TABLE {t} ENABLE ROW LEVEL SECURITY",
            "ALTER TABLE {t} FORCE ROW LEVEL SECURITY",
        ]
    )


def views(chance: Chance, world: World) -> list[str]:
    options = chance.pick(
        "", " WITH (security_barrier = true)", " WITH (security_invoker = true)",
        " WITH (check_option = local)",
    )  # fmt: skip
    first = (
        f"CREATE VIEW {chance.pick('public', 'other')}.v_first{options} AS"
        f" SELECT id, a, b AS label FROM {{t}} WHERE a > 0"
    )
    found = [
        "CREATE VIEW {s}v_star AS SELECT * FROM {t}; COMMENT ON VIEW {s}v_star IS 'all'",
        'CREATE VIEW other."V %" AS SELECT t.*, p.kind FROM {t} t'
        " JOIN other.parents p ON p.id = t.parent;"
        ' GRANT SELECT (id), UPDATE ON other."V %" TO everything_reader;'
        " COMMENT ON COLUMN other.\"V %\".b IS 'b'",
        "CREATE RECURSIVE VIEW {s}v_tree (id, depth) AS SELECT id, 0 FROM {t} WHERE boss IS NULL"
        " UNION ALL SELECT c.id, p.depth + 1 FROM {t} c JOIN v_tree p ON p.id = c.boss",
        "CREATE VIEW {s}v_group AS SELECT a, count(*) AS n, max(b) AS top FROM {t} GROUP BY a",
        "CREATE VIEW {s}v_key AS SELECT * FROM {t} GROUP BY id, a"
        if not world.partitioned
        else "CREATE VIEW {s}v_distinct AS SELECT DISTINCT a FROM {t}",
    ]
    chosen = chance.some(found, most=3)
    if chance.maybe("views on views"):
        first = first.replace("{t}", world.table)
        place = "other" if "other.v_first" in first else "public"
        chosen += [
            first,
            *chance.some(
                [
                    f"CREATE FUNCTION code.above(limit_a int) RETURNS bigint LANGUAGE sql STABLE"
                    f" BEGIN ATOMIC SELECT count(*) FROM {place}.v_first v WHERE v.a > limit_a; END",
                    f"CREATE VIEW other.v_second AS SELECT *, label || '%' AS l FROM {place}.v_first",
                    f"CREATE VIEW {place}.v_third WITH (security_barrier) AS SELECT x.id, y.a"
                    f" FROM {place}.v_first x JOIN {{t}} y USING (id);"
                    f" ALTER VIEW {place}.v_third OWNER TO everything_owner",
                    f"ALTER VIEW {place}.v_first ALTER COLUMN label SET DEFAULT 'of view'",
                    f"CREATE TRIGGER tr_view INSTEAD OF INSERT ON {place}.v_first FOR EACH ROW"
                    " EXECUTE FUNCTION code.act()",
                    f"CREATE RULE ru_view AS ON UPDATE TO {place}.v_first DO INSTEAD"
                    " UPDATE {t} SET b = NEW.label WHERE id = NEW.id",
                ]
            ),
        ]
    return chosen


def materialized_views(chance: Chance, world: World) -> list[str]:
    empty = chance.maybe(" WITH NO DATA")
    return chance.some(
        [
            f"CREATE MATERIALIZED VIEW {{s}}m_one WITH (fillfactor = 60) AS"
            f" SELECT id, lower(b) AS low FROM {{t}}{empty};"
            " CREATE UNIQUE INDEX m_one_id ON {s}m_one (id);"
            " CREATE INDEX m_one_low ON {s}m_one (low text_pattern_ops) WHERE low <> '%';"
            " COMMENT ON MATERIALIZED VIEW {s}m_one IS 'kept';"
            " GRANT SELECT ON {s}m_one TO everything_reader",
            "CREATE MATERIALIZED VIEW other.m_group AS SELECT a, count(*) AS n FROM {t} GROUP BY a;"
            " ALTER MATERIALIZED VIEW other.m_group ALTER n SET STATISTICS 50;"
            " ALTER MATERIALIZED VIEW other.m_group OWNER TO everything_owner;"
            " GRANT SELECT ON {t} TO everything_owner",
        ]
    )


def functions(chance: Chance, world: World) -> list[str]:
    return chance.some(
        [
            "CREATE FUNCTION code.count_it(floor_a int) RETURNS bigint LANGUAGE sql STABLE"
            " BEGIN ATOMIC SELECT count(*) FROM {t} WHERE a >= floor_a; END;"
            " COMMENT ON FUNCTION code.count_it(int) IS 'counts';"
            " REVOKE ALL ON FUNCTION code.count_it(int) FROM PUBLIC;"
            " GRANT EXECUTE ON FUNCTION code.count_it(int) TO everything_reader",
            "CREATE PROCEDURE code.wipe(which int) LANGUAGE sql"
            " BEGIN ATOMIC DELETE FROM {t} WHERE id = which; UPDATE {t} SET a = a WHERE false; END",
            "CREATE FUNCTION {s}returning_one() RETURNS int LANGUAGE sql RETURN"
            " (SELECT max(id) FROM {t});"
            " ALTER FUNCTION {s}returning_one() SECURITY DEFINER SET work_mem = '8MB'",
        ]
    )


def row_types(chance: Chance, world: World) -> list[str]:
    return chance.some(
        [
            "CREATE FUNCTION {s}first_of(many {t}[]) RETURNS {t} LANGUAGE sql AS 'SELECT many[1]'",
            "CREATE FUNCTION {s}computed(it {t}) RETURNS text LANGUAGE sql IMMUTABLE"
            " AS 'SELECT it.b || 1'; GRANT EXECUTE ON FUNCTION {s}computed({t}) TO everything_reader",
            "CREATE FUNCTION code.all_of() RETURNS SETOF {t} LANGUAGE plpgsql AS 'BEGIN END'",
        ]
    )


def statistics(chance: Chance, world: World) -> list[str]:
    return chance.some(
        [
            "CREATE STATISTICS {s}st_two (ndistinct, mcv) ON a, d FROM {t};"
            " ALTER STATISTICS {s}st_two SET STATISTICS 333; COMMENT ON STATISTICS {s}st_two IS 's'",
            'CREATE STATISTICS other."St %" ON lower(b), (a % 7) FROM {t}',
            "CREATE STATISTICS code.st_own (dependencies) ON a, d FROM {t};"
            " ALTER STATISTICS code.st_own OWNER TO everything_owner",
        ]
    )


def publications(chance: Chance, world: World) -> list[str]:
    found = [
        "CREATE PUBLICATION p_whole FOR TABLE {t} WITH (publish = 'insert, truncate')",
        "CREATE PUBLICATION p_some FOR TABLE {t} (id, a, b) WHERE (a > 3), TABLE other.parents"
        " WITH (publish = 'insert', publish_via_partition_root = true)",
        "CREATE PUBLICATION p_schema FOR TABLES IN SCHEMA other",
    ]
    if world.partitioned:
        found.append(
            f"CREATE PUBLICATION p_leaf FOR TABLE {world.leaves[0]}"
            " WITH (publish_via_partition_root = true)"
        )
    return chance.some(found)


KINDS: dict[str, Kind] = {
    "altered columns": altered_columns,
    "constraints": constraints,
    "indexes": indexes,
    "settings": settings,
    "comments": comments,
    "ownership": ownership,
    "foreign key": outbound_keys,
    "self-reference": self_references,
    "inbound foreign key": inbound_keys,
    "extended statistics": statistics,
    "row type": row_types,
    "function": functions,
    "view": views,
    "materialized view": materialized_views,
    "policy": policies,
    "rule": rules,
    "trigger": triggers,
    "publication": publications,
}
"""In the order in which they can be made."""


@st.composite
def worlds(draw: Any, version: int, kinds: tuple[str, ...]) -> World:
    """A table with a random part of ``kinds``."""
    chance = Chance(draw)
    world = World(chance.pick(*NAMES), chance.pick(*FORMS), version)
    parts = [BASE, *columns(chance, world), f"CONSTRAINT the_key PRIMARY KEY ({world.key})"]
    form = FORMS[world.form].format(s=world.schema, t=world.table)
    statements = [f"CREATE TABLE {world.table} ({', '.join(parts)}){form}"]
    for name in kinds:
        statements += KINDS[name](chance, world)
    world.statements = world.on(statements)
    return world
