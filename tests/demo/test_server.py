"""The embedded server: starts for anybody, opens nothing to anybody, and never stays behind."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from restructure.demo import folders
from restructure.demo.account import find_account
from restructure.demo.binaries import find_binaries
from restructure.demo.orphans import postmaster, stop_process, sweep
from restructure.demo.server import Server
from restructure.errors import RestructureError, UsageError
from tests.fix_server import FreshServer

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root borrows an account")

OWNER = """
import os, sys, time
from restructure.demo.server import Server
with Server() as server:
    child = os.fork() if sys.argv[1:] == ["fork"] else 0
    if child == 0 and sys.argv[1:] == ["fork"]:
        os.close(1)
        time.sleep(600)
    print(server.folder, server.pid, server._process._leash.pid, child, flush=True)
    time.sleep(600)
"""


class Owner:
    """Another process with a server of its own."""

    def __init__(self, *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER, *words], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        folder, *numbers = self.process.stdout.readline().split()
        self.folder = Path(folder)
        self.pid, self.leash, self.child = map(int, numbers)

    def die(self) -> None:
        """By SIGKILL, which no process can answer."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def awaited(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def serves(folder: Path) -> bool:
    return postmaster(folder / "data") is not None


def test_closing_a_server_leaves_neither_process_nor_file(fresh_server: FreshServer) -> None:
    server = fresh_server()
    folder, data, pid = server.folder, server.data, server.pid

    server.close()

    assert pid is not None
    assert server.pid is None
    assert postmaster(data) is None
    assert not folder.exists()


def test_a_server_stops_by_itself_when_its_owner_is_killed() -> None:
    owner = Owner()
    assert serves(owner.folder)

    owner.die()

    assert awaited(lambda: not serves(owner.folder))
    with Server():
        assert not owner.folder.exists()


def test_a_server_that_lost_owner_and_leash_is_stopped_and_removed_by_the_next_start() -> None:
    owner = Owner()
    with folders.alone(owner.folder.parent.parent):  # or another test's start might be the next
        os.kill(owner.leash, signal.SIGKILL)
        owner.die()
        assert serves(owner.folder)

    with Server():
        assert not serves(owner.folder)
        assert not owner.folder.exists()


def test_a_forked_child_of_a_killed_owner_does_not_keep_the_server_alive() -> None:
    owner = Owner("fork")
    os.kill(owner.leash, signal.SIGKILL)
    owner.die()
    try:
        with Server():
            assert not owner.folder.exists()
    finally:
        os.kill(owner.child, signal.SIGKILL)


def test_a_server_whose_owner_lives_is_left_alone() -> None:
    owner = Owner()
    try:
        removed = sweep(owner.folder.parent.parent)

        assert owner.folder not in removed
        assert serves(owner.folder)
    finally:
        owner.die()
        sweep(owner.folder.parent.parent)


def test_a_process_that_inherited_a_dead_servers_number_is_not_touched(tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    (tmp_path / "postmaster.pid").write_text(f"{other.pid}\n{tmp_path}\n")

    stop_process(tmp_path)

    assert other.poll() is None
    other.communicate(b"\n")


def test_a_crash_keeps_what_was_committed_and_the_port(fresh_server: FreshServer) -> None:
    server = fresh_server(fsync=True)
    with psycopg.connect(server.dsn) as session:
        session.execute("CREATE TABLE kept AS SELECT 1 AS n")
    dsn = server.dsn

    server.kill()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(dsn)
    server.start()

    assert server.dsn == dsn
    with psycopg.connect(dsn) as session:
        assert session.execute("SELECT n FROM kept").fetchall() == [(1,)]
    assert "automatic recovery in progress" in server.log.read_text()


def test_a_restart_can_change_settings_and_alter_system_can_too(fresh_server: FreshServer) -> None:
    server = fresh_server(work_mem="5MB", max_connections="40")
    with psycopg.connect(server.dsn, autocommit=True) as session:
        session.execute("ALTER SYSTEM SET max_connections = 50")

    server.restart(settings={"work_mem": "6MB"})

    with psycopg.connect(server.dsn) as session:
        shown = session.execute(
            "SELECT current_setting('work_mem'), current_setting('max_connections')"
        ).fetchone()
    assert shown == ("6MB", "50")


def test_without_the_password_neither_tcp_nor_the_socket_lets_anybody_in(server: Server) -> None:
    for host in ("127.0.0.1", str(server.socket)):
        psycopg.connect(server.dsn_of("postgres", host=host)).close()
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(server.dsn_of("postgres", host=host, password="guess"))


def test_the_password_is_not_in_the_process_list_nor_left_on_disk(server: Server) -> None:
    secret = conninfo_to_dict(server.dsn)["password"]
    shown = Path(f"/proc/{server.pid}/cmdline").read_bytes()

    assert str(secret).encode() not in shown
    assert not (server.folder / "password").exists()


def test_a_server_that_cannot_start_says_why_and_leaves_nothing(
    pg_version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []
    claim = folders.claim_folder

    def remember(*words: object) -> folders.Claim:
        claimed = claim(*words)  # type: ignore[arg-type]
        made.append(claimed.folder)
        return claimed

    monkeypatch.setattr("restructure.demo.server.claim_folder", remember)
    with (
        pytest.raises(RestructureError) as failure,
        Server(pg_version, settings={"wal_level": "nonsense"}),
    ):
        pass

    assert "wal_level" in str(failure.value.hint)
    assert [folder.exists() for folder in made] == [False]


def test_two_servers_live_side_by_side(fresh_server: FreshServer) -> None:
    one, two = fresh_server(), fresh_server()

    for server in (one, two):
        psycopg.connect(server.dsn).close()
    assert one.port != two.port
    assert one.folder != two.folder


@as_root
def test_root_runs_the_server_as_an_account_without_rights(server: Server) -> None:
    assert Path(f"/proc/{server.pid}").stat().st_uid == find_account().uid != 0
    status = Path(f"/proc/{server.pid}/status").read_text()
    assert "\nGroups:\t \n" in status


@as_root
def test_programs_that_the_account_cannot_reach_are_run_from_a_copy(
    closed_programs: Path, empty_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = max(find_binaries())
    monkeypatch.setenv(f"PG_BIN_{version}", str(closed_programs))
    chain = (closed_programs, *closed_programs.parents)
    modes = [path.stat().st_mode for path in chain]

    for _ in range(2):
        with Server(version) as server:
            psycopg.connect(server.dsn).close()
            assert server.bin.is_relative_to(empty_home / "binaries")

    assert len(list((empty_home / "binaries").iterdir())) == 1
    assert [path.stat().st_mode for path in chain] == modes


@as_root
def test_a_copy_that_lost_files_is_made_again(closed_programs: Path, empty_home: Path) -> None:
    account = find_account()
    copy = folders.reachable(closed_programs, empty_home, account)
    lost = next(copy.parent.rglob("postgres.bki"))
    lost.unlink()

    assert folders.reachable(closed_programs, empty_home, account) == copy
    assert lost.exists()


@pytest.fixture
def closed_programs(tmp_path: Path) -> Path:
    """A copy of the newest programs in a folder that only we can enter."""
    original = max(find_binaries().items())[1]
    for source, target in folders.parts_of(original):
        shutil.copytree(source, tmp_path / target, symlinks=True)
    tmp_path.chmod(0o700)
    return tmp_path / folders.place_in_copy(original)


@pytest.fixture
def empty_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home of the test's own, which the account that runs servers can enter."""
    account = find_account()
    usual = folders.home_of(account)
    made = Path(tempfile.mkdtemp(prefix="restructure-", dir=usual.parent))
    monkeypatch.setattr("restructure.demo.server.home_of", lambda _: made)
    yield folders.own_folder(made, account)
    shutil.rmtree(made)


def test_a_folder_that_others_can_write_is_refused(tmp_path: Path) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)

    with pytest.raises(RestructureError, match="not ours alone"):
        folders.own_folder(open_to_all, find_account())
    assert stat.S_IMODE(open_to_all.stat().st_mode) == 0o777


def test_a_link_in_the_place_of_our_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(RestructureError, match="not ours alone"):
        folders.own_folder(tmp_path / "link", find_account())


@as_root
def test_a_folder_that_somebody_else_made_is_refused(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o700)
    os.chown(theirs, 65534, 65534)

    with pytest.raises(RestructureError, match="not ours alone"):
        folders.own_folder(theirs, find_account())


def test_a_variable_that_names_other_programs_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PG_BIN_17", str(tmp_path))

    with pytest.raises(UsageError, match="PG_BIN_17"):
        find_binaries()


def test_a_version_that_is_not_here_is_named_with_those_that_are() -> None:
    with pytest.raises(UsageError) as failure:
        Server(14)

    assert "PostgreSQL 14" in failure.value.message
    assert str(max(find_binaries())) in str(failure.value.hint)


def test_a_dsn_can_lead_to_another_database(server: Server) -> None:
    assert server.dsn == server.dsn_of("postgres")
    assert "dbname=other" in server.dsn_of("other")
    assert conninfo_to_dict(server.dsn_of("other")) == {
        **conninfo_to_dict(server.dsn),
        "dbname": "other",
    }
