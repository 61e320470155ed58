"""Security labels are set again by their provider, or refused by name where it is not loaded.

No provider comes with the server, so labels are written into the catalog by hand.
"""

from __future__ import annotations

import psycopg

from restructure.postgres.script import Script
from restructure.shape.carry import labels
from restructure.shape.carry.kind import Carrying
from restructure.shape.shadow import build_shadow
from restructure.shape.table import read_table
from tests.carry.build import NAMES
from tests.carry.reasons import reasons
from tests.shape_workbench import plan

LABELLED = """
CREATE SCHEMA restructure;
CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a int, b int);
SET allow_system_table_mods = on;
INSERT INTO pg_seclabel (objoid, classoid, objsubid, provider, label) VALUES
    ('t'::regclass, 'pg_class'::regclass, 0, 'p', 'it''s 100%'),
    ('t'::regclass, 'pg_class'::regclass, 2, 'p', 'a'), ('t'::regclass, 'pg_class'::regclass, 3, 'Q', 'b'),
    ('t_id_seq'::regclass, 'pg_class'::regclass, 0, 'p', 'counts');
"""


def test_a_provider_that_is_not_loaded_is_refused_by_name(connection: psycopg.Connection) -> None:
    connection.execute(LABELLED)

    assert reasons(connection, "public.t", "DROP COLUMN b") == [
        'security label of public.t (p): security label provider "p" is not loaded',
        'security label of public.t.a (p): security label provider "p" is not loaded',
        'security label of public.t_id_seq (p): security label provider "p" is not loaded',
    ]
    found = labels.find(connection, read_table(connection, "public.t"))
    assert [one.name for one in found] == ["public.t (Q)", "public.t (p)", "public.t_id_seq (p)"]


def test_each_label_is_set_on_what_takes_the_place(connection: psycopg.Connection) -> None:
    connection.execute(LABELLED)
    source = read_table(connection, "public.t")
    loaded = plan("public.t", alter=["RENAME COLUMN a TO c"])
    with connection.transaction():
        shadow = build_shadow(Script(connection), source, loaded, NAMES)

    part = labels.part(Carrying.of(connection, source, shadow, NAMES))

    assert [step.text for step in part.up] == [
        'SECURITY LABEL FOR "p" ON TABLE "public"."t" IS \'it\'\'s 100%\'',
        'SECURITY LABEL FOR "p" ON COLUMN "public"."t"."c" IS \'a\'',
        'SECURITY LABEL FOR "Q" ON COLUMN "public"."t"."b" IS \'b\'',
        'SECURITY LABEL FOR "p" ON SEQUENCE "public"."t_id_seq" IS \'counts\'',
    ]
