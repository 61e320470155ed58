"""The plan file: what is read, what is refused, and where an error points."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restructure.errors import PlanError, UsageError
from restructure.plan.load import load_plan, parse_plan
from restructure.plan.model import Plan
from restructure.plan.units import format_duration, format_size, parse_duration, parse_size

WHOLE = """\
name: orders-bigint               # job name
table: public.orders
alter:
  - ALTER COLUMN id TYPE bigint
  - ADD COLUMN amount_cents bigint NOT NULL
columns:
  amount_cents: (amount * 100)::bigint
  kind: |
    CASE WHEN amount > 0
      THEN 'in' ELSE 'out' END
  nothing: NULL
  one: 1
reverse:
  amount: amount_cents / 100.0
drop: [legacy_flag, null]
where: status <> 'purged'
stream: {kind: pgoutput}
copy: {workers: 2, chunk_target: 250ms}
throttle: {replica_lag: 10s, wal_retained: 20GB, wal_limit: 1TB, query: "SELECT true"}
verify: {mode: sample}
cutover: {lock_timeout: 300ms, lock_budget: 1s, attempts: 60, terminate_blockers: true}
"""
LEAST = "name: a\ntable: t\nalter: []\n"


def test_a_whole_plan_is_read() -> None:
    plan = parse_plan(WHOLE).plan
    assert plan.alter == (
        "ALTER COLUMN id TYPE bigint",
        "ADD COLUMN amount_cents bigint NOT NULL",
    )
    assert plan.columns["nothing"] == "NULL" and plan.columns["one"] == "1"
    assert plan.drop == ("legacy_flag", "null")
    assert plan.copy_.chunk_target == timedelta(milliseconds=250)
    assert plan.throttle.wal_retained == 20 * 1024**3
    assert plan.throttle.wal_limit == 1024**4
    assert plan.cutover.terminate_blockers is True


def test_a_plan_goes_through_the_catalog_and_comes_back_the_same() -> None:
    plan = parse_plan(WHOLE).plan
    assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize(
    ("written", "hours"), [("0", 0), ("0s", 0), ("24h", 24), ("7d", 168)], ids=str
)
def test_a_way_back_may_be_kept_for_any_time_and_for_none(written: str, hours: int) -> None:
    plan = parse_plan(LEAST + f"cutover: {{revert_window: {written}}}\n").plan
    assert plan.cutover.revert_window == timedelta(hours=hours)
    assert Plan.from_json(plan.to_json()) == plan


def test_an_empty_alter_is_a_plan_that_only_makes_the_table_anew() -> None:
    assert parse_plan(LEAST).plan.alter == ()


def test_yaml_is_1_2_where_no_is_a_word() -> None:
    assert parse_plan(LEAST + "columns: {no: yes, on: off}").plan.columns == {
        "no": "yes",
        "on": "off",
    }


def test_the_digest_is_of_the_meaning() -> None:
    """Layout, comments, order of keys and tuning do not change it; the shape does."""
    first = parse_plan(WHOLE).digest
    tuned = WHOLE.replace("workers: 2", "workers: 3").replace("# job name", "")
    assert parse_plan(tuned).digest == first
    lines = WHOLE.splitlines(keepends=True)
    assert parse_plan("".join([lines[1], lines[0], *lines[2:]])).digest == first
    assert parse_plan(WHOLE.replace("* 100", "* 1000")).digest != first


def test_places_point_at_keys_items_and_inside_of_expressions() -> None:
    loaded = parse_plan(WHOLE, "p.yaml")
    assert str(loaded.place("alter", 1)) == "p.yaml:5:5"
    assert str(loaded.place("columns", "amount_cents")) == "p.yaml:7:3"
    assert str(loaded.place("columns", "not there")) == "p.yaml:6:1"
    assert str(loaded.inside(("columns", "amount_cents"), 1)) == "p.yaml:7:18"
    at = loaded.plan.columns["kind"].index("THEN")
    assert str(loaded.inside(("columns", "kind"), at)) == "p.yaml:10:7"
    assert str(loaded.inside(("throttle", "query"), 7)) == "p.yaml:19:81"


REFUSED = {
    "empty": ("", "1:1", "the plan is empty"),
    "only a comment": ("# nothing\n", "1:1", "the plan is empty"),
    "a list": ("- a\n", "1:1", "a mapping"),
    "a word": ("hello", "1:1", "a mapping"),
    "not YAML": ("name: [a\n", "2:1", "not YAML"),
    "an open quote": ('name: "a\n', "2:1", "not YAML"),
    "a tab": ("name: a\n\ttable: t\n", "2:1", "a tab"),
    "a tab before a list": ("name: a\nalter:\n\t- x\n", "3:1", "a tab"),
    "two documents": (LEAST + "---\nname: b\n", "4:1", "another document"),
    "a NUL": ("name: a\x00", "1:8", "control character"),
    "a surrogate": ('name: "\\ud800"\n', "1:7", "no character"),
    "a tag": ("name: !!python/object:os.system x\n", "1:7", "tag"),
    "an alias": ("name: &x a\ntable: *x\n", "2:1", "alias"),
    "a recursive alias": ("name: &x [*x]\n", "1:7", "alias"),
    "a merge key": ("<<: {name: a}\n", "1:1", "merge key"),
    "a key that is no word": ("? [a]\n: b\n", "1:3", "must be a word"),
    "deep nesting": ("a: " + "[" * 5000, "1:1", "not readable"),
    "a key twice": (LEAST + "name: b\n", "4:1", "key 'name' is named twice, first on line 1"),
    "an unknown key": (LEAST + "colums: {}\n", "4:1", "did you mean 'columns'?"),
    "an unknown inner key": (LEAST + "copy: {worker: 3}\n", "4:8", "did you mean 'workers'?"),
    "the inner name of a key": (LEAST + "copy_: {}\n", "4:1", "unknown key"),
    "a column twice": (
        LEAST + "columns:\n  a: b\n  a: c\n",
        "6:3",
        "column 'a' is named twice, first on line 5",
    ),
    "a reverse column twice": (LEAST + "reverse:\n  a: b\n  a: c\n", "6:3", "named twice"),
    "a dropped column twice": (
        LEAST + "drop:\n- a\n- a\n",
        "6:3",
        "column 'a' is named twice, first on line 5",
    ),
    "no name": ("table: t\nalter: []\n", "1:1", "name is missing"),
    "no table": ("name: a\nalter: []\n", "1:1", "table is missing"),
    "an empty table": ("name: a\ntable: ''\nalter: []\n", "2:1", "nothing is written"),
    "a bad name": ("name: A!\ntable: t\nalter: []\n", "1:1", "not usable"),
    "a long name": (f"name: {'a' * 60}\ntable: t\nalter: []\n", "1:1", "60 characters"),
    "a long column": (LEAST + f"drop: [{'é' * 32}]\n", "4:8", "no column can have this name"),
    "alter and create": (LEAST + "create: CREATE TABLE t ()\n", "4:1", "exclude each other"),
    "neither": ("name: a\ntable: t\n", "2:1", "one of alter and create"),
    "alter as text": ("name: a\ntable: t\nalter: ADD a int\n", "3:1", "alter"),
    "an empty clause": ("name: a\ntable: t\nalter: ['', b]\n", "3:9", "nothing is written"),
    "an empty expression": (LEAST + "columns:\n  a:\n", "5:3", "valid string"),
    "an empty where": (LEAST + "where: ' '\n", "4:1", "nothing is written"),
    "a bare duration": (LEAST + "copy: {chunk_target: 500}\n", "4:8", "needs its unit"),
    "an odd duration": (LEAST + "copy: {chunk_target: soon}\n", "4:8", "a number and a unit"),
    "a zero duration": (LEAST + "cutover: {lock_timeout: 0s}\n", "4:11", "greater than"),
    "an endless duration": (LEAST + "cutover: {lock_budget: 9999d}\n", "4:11", "at most"),
    "a bare size": (LEAST + "throttle: {wal_retained: 20}\n", "4:12", "needs its unit"),
    "a time of going back without its unit": (
        LEAST + "cutover: {revert_window: 5}\n",
        "4:11",
        "needs its unit",
    ),
    "a try for the lock that waits for ever": (
        LEAST + "cutover: {lock_timeout: 0s}\n",
        "4:11",
        "lock_timeout",
    ),
    "an odd size": (LEAST + "throttle: {wal_retained: 20 boxes}\n", "4:12", "a number and a unit"),
    "a limit below": (
        LEAST + "throttle: {wal_retained: 2GB, wal_limit: 1GB}\n",
        "4:31",
        "below wal_retained",
    ),
    "a limit without query": (LEAST + "throttle: {query_limit: 2}\n", "4:12", "without query"),
    "too many workers": (LEAST + "copy: {workers: 99}\n", "4:8", "less than or equal to 16"),
    "workers as text": (LEAST + "copy: {workers: '2'}\n", "4:8", "integer"),
    "a word for a boolean": (LEAST + "cutover: {terminate_blockers: yes}\n", "4:11", "boolean"),
    "an unknown mode": (LEAST + "verify: {mode: half}\n", "4:10", "'full', 'sample' or 'off'"),
    "a stream without kind": (LEAST + "stream: {}\n", "4:1", "kind is missing"),
    "a stream of another kind": (LEAST + "stream: {kind: kafka}\n", "4:10", "no stream of that"),
    "a stream option": (LEAST + "stream: {kind: pgoutput, x: 1}\n", "4:26", "unknown key 'x'"),
    "a stream's time without a unit": (
        LEAST + "stream: {kind: pgoutput, slot_timeout: 30}\n",
        "4:26",
        "a number and a unit",
    ),
    "a feed": (LEAST + "feed: {kind: subscription}\n", "4:1", "does not have"),
    "a runbook": (LEAST + "runbook: []\n", "4:1", "does not have"),
    "a file that is no plan": (" " * (1 << 20) + "a", "1:1", "too long"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_plan_is_refused_at_its_place(case: str) -> None:
    text, place, words = REFUSED[case]
    with pytest.raises(PlanError) as caught:
        parse_plan(text, "p.yaml")
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"p.yaml:{place}: ")


def test_all_complaints_about_values_come_at_once_in_the_order_of_the_file() -> None:
    with pytest.raises(PlanError) as caught:
        parse_plan(LEAST + "verify: {mode: x}\ncopy: {workers: 0}\nfoo: 1\n", "p")
    starts = [line.split(" ")[0] for line in str(caught.value).splitlines()]
    assert starts == ["p:4:10:", "p:5:8:", "p:6:1:"]


@pytest.mark.parametrize(
    "line",
    [
        "# postgresql://me:hunter2@db/prod",
        "where: a = 'postgres://me:hunter2@db/prod'",
        'throttle: {query: "host=db password=hunter2"}',
        "dsn: hunter2",
        "password: hunter2",
        "copy: {db_password: hunter2}",
        "stream: {kind: pgoutput, api-key: hunter2}",
        "throttle: {token: hunter2}",
    ],
)
def test_a_secret_is_refused_and_not_repeated(line: str) -> None:
    with pytest.raises(PlanError) as caught:
        parse_plan(LEAST + line + "\n", "p")
    assert str(caught.value).startswith("p:4:")
    assert "secret" in str(caught.value)
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"


def test_a_column_may_be_called_password() -> None:
    plan = parse_plan(LEAST + "columns: {password: upper(password)}\nwhere: password = 'x'\n").plan
    assert list(plan.columns) == ["password"]


@pytest.mark.parametrize("value", ["hunter2", "[hunter2]", "{hunter2: hunter2}"])
@pytest.mark.parametrize("key", ["copy", "throttle", "verify", "cutover", "alter", "stream"])
def test_no_complaint_repeats_a_value(key: str, value: str) -> None:
    text = "name: a\ntable: t\n" + ("" if key == "alter" else "alter: []\n") + f"{key}: {value}\n"
    try:
        parse_plan(text)
    except PlanError as error:
        assert "hunter2" not in str(error).replace("unknown key 'hunter2'", "")


def test_a_file_is_read_as_utf8_with_or_without_a_mark(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + LEAST.encode() + "where: name = 'é'\r\n".encode())
    assert load_plan(file).plan.where == "name = 'é'"


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_another_encoding_is_refused_at_its_place(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "p.yaml"
    file.write_bytes((LEAST + "where: name = 'é'\n").encode(encoding))
    with pytest.raises(PlanError, match="not UTF-8") as caught:
        load_plan(file)
    assert caught.value.place is not None
    assert caught.value.place.line == (4 if encoding == "latin-1" else 1)


def test_a_missing_file_and_a_folder_are_usage_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path, "a\x00b"):
        with pytest.raises(UsageError):
            load_plan(path)


@given(st.integers(min_value=1, max_value=366 * 86400 * 1000))
def test_durations_are_read_back_as_written(milliseconds: int) -> None:
    duration = timedelta(milliseconds=milliseconds)
    assert parse_duration(format_duration(duration)) == duration


@given(st.integers(min_value=0, max_value=1 << 60))
def test_sizes_are_read_back_as_written(size: int) -> None:
    assert parse_size(format_size(size)) == size


@given(st.text(max_size=200))
def test_any_text_is_a_plan_or_a_plan_error(text: str) -> None:
    try:
        parse_plan(text)
    except PlanError as error:
        assert error.place is not None
