"""Where embedded servers keep their files, and who owns which.

    <temporary folder>/restructure-<uid>/
        lock                    held while a folder below is made or removed
        binaries/<digest>/      programs, copied where their own place is closed to the account
        servers/<id>/           one server: owner, data/, socket/, log, its two settings files

``owner`` is locked by the process that owns the server for as long as it lives. The kernel
drops the lock with the process, however it ends, and no other process number can inherit it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
import stat
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from restructure.demo.account import Account
from restructure.demo.binaries import WHEEL
from restructure.errors import RestructureError

_SOCKET_PATH_LIMIT = 100
"""sun_path holds 108 bytes on Linux and 104 on macOS."""


def home_of(account: Account) -> Path:
    """Return (and make, once) the folder under which all our servers live.

    Refuses a folder that somebody else prepared under that name. Raises RestructureError.
    """
    for parent in (Path("/var/tmp"), Path(tempfile.gettempdir()), Path("/tmp")):
        if _fit(parent, account):
            return own_folder(parent / f"restructure-{os.geteuid()}", account)
    raise RestructureError(
        "no temporary folder is fit to hold a database server",
        hint="/var/tmp must exist, be writable with the sticky bit set, and allow programs to run.",
    )


def own_folder(path: Path, account: Account) -> Path:
    """Make a folder that only we can write, or take the one we made before.

    A borrowed account may pass through it but not list it.
    """
    mode = 0o711 if account.borrowed else 0o700
    path.mkdir(mode=0o700, exist_ok=True)
    entry = path.lstat()
    if not stat.S_ISDIR(entry.st_mode) or entry.st_uid != os.geteuid() or entry.st_mode & 0o022:
        raise RestructureError(
            f"{path} is not ours alone, so no server is started there",
            hint="Somebody else made it. Have it removed, then try again.",
        )
    if stat.S_IMODE(entry.st_mode) != mode:
        path.chmod(mode)
    return path


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """Hold the lock under which folders are made and removed."""
    handle = os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


class Claim:
    """A server's folder, ours until :meth:`release` or until this process ends."""

    def __init__(self, folder: Path, handle: int) -> None:
        self.folder = folder
        self._handle = handle
        _claims.add(self)

    def release(self) -> None:
        """Remove the folder with all that is in it."""
        remove_tree(self.folder)
        self.forget()

    def forget(self) -> None:
        """Close our handle on the owner file; the lock ends with the last one."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


_claims: weakref.WeakSet[Claim] = weakref.WeakSet()


def _let_go_after_fork() -> None:
    """A forked child shares our lock: without this it would own our servers after our death."""
    for claim in list(_claims):
        claim.forget()


os.register_at_fork(after_in_child=_let_go_after_fork)


def claim_folder(home: Path, account: Account) -> Claim:
    """Make a folder for one server, locked in our name."""
    servers = own_folder(home / "servers", account)
    with alone(home):
        folder = own_folder(servers / secrets.token_hex(4), account)
        handle = os.open(folder / "owner", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX)
        os.write(handle, f"{os.getpid()}\n".encode())
    return Claim(folder, handle)


def is_owned(folder: Path) -> bool:
    """Whether a living process holds the folder. Call it under :func:`alone` only."""
    try:
        handle = os.open(folder / "owner", os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def reachable(binaries: Path, home: Path, account: Account) -> Path:
    """Return a folder with the same programs that the account can run: this one, or a copy.

    The copy is made once per content and kept, so that neither the clone nor the virtual
    environment has to be opened to anybody.
    """
    if _runs(binaries, account):
        return binaries
    digest = hashlib.sha256((binaries / "postgres").read_bytes()).hexdigest()[:16]
    store = own_folder(home / "binaries", account)
    kept = store / digest
    inside = place_in_copy(binaries)
    with alone(home):
        for left_over in store.glob("new-*"):
            remove_tree(left_over)
        if not _is_whole(kept, binaries):
            remove_tree(kept)
            fresh = own_folder(store / f"new-{secrets.token_hex(4)}", account)
            for source, target in parts_of(binaries):
                shutil.copytree(source, fresh / target, symlinks=True)
            _open_for_reading(fresh)
            fresh.rename(kept)
    if not _runs(kept / inside, account):
        raise RestructureError(
            f"the account {account.name} cannot run PostgreSQL from {kept}",
            hint=f"Remove {kept} and try again; the file system must allow programs to run.",
        )
    return kept / inside


def remove_tree(folder: Path) -> None:
    """Remove a folder, also while the last processes of a dying server leave it."""
    for _ in range(5):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
    shutil.rmtree(folder)


def place_in_copy(binaries: Path) -> Path:
    """Where the programs are in a copy, relative to it."""
    install = binaries.parent
    return Path(WHEEL, install.name, "bin") if install.parent.name == WHEEL else Path("bin")


def parts_of(binaries: Path) -> Iterator[tuple[Path, Path]]:
    """Which folders a copy needs, and where in it.

    The wheel's programs look for their libraries three folders up, beside its package.
    """
    install = binaries.parent
    if install.parent.name != WHEEL:
        for part in install.iterdir():
            if part.is_dir():
                yield part, Path(part.name)
        return
    yield install, Path(WHEEL, install.name)
    libraries = install.parent.with_name(f"{WHEEL}.libs")
    if libraries.is_dir():
        yield libraries, Path(libraries.name)


def _is_whole(copy: Path, binaries: Path) -> bool:
    """Whether no file is missing: systems remove old files from temporary folders."""
    return copy.exists() and all(
        os.path.lexists(copy / target / path.relative_to(source))
        for source, target in parts_of(binaries)
        for path in source.rglob("*")
    )


def _open_for_reading(folder: Path) -> None:
    """Our fresh copy alone: the files came with whatever mode the clone's umask gave them."""
    for where, _, files in os.walk(folder):
        os.chmod(where, 0o755)
        for name in files:
            path = Path(where, name)
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)


def _runs(binaries: Path, account: Account) -> bool:
    try:
        return account.run([binaries / "initdb", "--version"]).returncode == 0 and (
            account.run([binaries / "postgres", "--version"]).returncode == 0
        )
    except OSError:
        return False


def _fit(parent: Path, account: Account) -> bool:
    """Safe against others (sticky, or closed to them), executable, short, open to the account."""
    try:
        entry = parent.stat()
        flags = os.statvfs(parent).f_flag
    except OSError:
        return False
    if entry.st_uid not in (0, os.geteuid()):
        return False
    if entry.st_mode & 0o022 and not entry.st_mode & stat.S_ISVTX:
        return False
    if flags & getattr(os, "ST_NOEXEC", 0) or not os.access(parent, os.W_OK | os.X_OK):
        return False
    longest = parent / f"restructure-{os.geteuid()}/servers/00000000/socket/.s.PGSQL.65535.lock"
    if len(os.fsencode(longest)) > _SOCKET_PATH_LIMIT:
        return False
    chain = (parent.resolve(), *parent.resolve().parents)
    return not account.borrowed or all(folder.stat().st_mode & 0o001 for folder in chain)
