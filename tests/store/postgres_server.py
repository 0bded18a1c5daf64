"""A PostgreSQL server of the tests' own, from the system's package."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def binaries() -> Path | None:
    """The folder with ``initdb`` and ``postgres``; None where there is none."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return versions[-1].parent if versions else None


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """A server on a free port, without care for a power cut; yields a URL that lacks the name of a database."""
    home = binaries()
    assert home is not None
    # The server refuses to be root; its folder must then belong to somebody else, who may not enter pytest's.
    user = _unprivileged()
    place = Path(tempfile.mkdtemp(prefix="prove-postgres-"))
    log = folder / "postgres.log"
    try:
        if user is not None:
            os.chown(place, user.pw_uid, user.pw_gid)
        as_user = {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": ()}
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
        data = place / "data"
        create = [home / "initdb", "-D", data, "-U", "prove", "--auth=trust", "--no-sync", "--encoding=UTF8"]
        done = subprocess.run(
            create, cwd=place, env=environment, capture_output=True, text=True, check=False, **as_user
        )
        assert done.returncode == 0, done.stderr
        port = _free_port()
        serve = [home / "postgres", "-D", data, "-k", place, "-h", "127.0.0.1", "-p", str(port), "-F"]
        with open(log, "wb") as output:
            server = subprocess.Popen(serve, cwd=place, env=environment, stdout=output, stderr=output, **as_user)
        try:
            _wait_until_ready(port, server, log)
            yield f"postgresql+psycopg://prove@127.0.0.1:{port}"
        finally:
            server.send_signal(signal.SIGINT)  # fast: connections are cut
            server.wait(timeout=60)
    finally:
        shutil.rmtree(place)


def _unprivileged() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    return names.get("postgres") or names["nobody"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    import psycopg

    deadline = time.monotonic() + 60
    while True:
        assert server.poll() is None, log.read_text()
        try:
            psycopg.connect(host="127.0.0.1", port=port, user="prove", dbname="postgres").close()
        except psycopg.OperationalError:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        else:
            return
