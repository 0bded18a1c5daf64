"""A real SLURM on this machine, without systemd: four nodes with two imagined GPUs each, accounts, short timers."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "slurmdbd", "sbatch", "munged", "mariadbd", "mariadb-install-db")
NODES = ("n1", "n2", "n3", "n4")
PATIENCE_SECONDS = 60.0


def missing() -> str:
    """Why there can be no SLURM here; empty when there can."""
    os.environ["PATH"] = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"SLURM is not installed here ({absent[0]} is missing): `.ci/packages` installs it."
    return "" if os.geteuid() == 0 else "Bringing up SLURM takes root."


def until(condition: Callable[[], object], what: str | Callable[[], str], seconds: float = PATIENCE_SECONDS) -> None:
    """Wait for a condition; ``what`` says what it is, or what there is instead."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"Waited {seconds:.0f} s in vain: {what if isinstance(what, str) else what()}.")
        time.sleep(0.05)


class Cluster:
    """munge, MariaDB, slurmdbd, slurmctld and four slurmd below one folder; a context manager.

    Partitions: ``main`` (the default), and ``high``, whose jobs preempt those of ``main``. Inside the block the
    environment leads `sbatch` and the others here.
    """

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        self.settings = dict(settings or {})
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Cluster:
        self.path = Path(tempfile.mkdtemp(prefix="prove-slurm-"))  # short: socket paths end at 107 characters
        self.path.chmod(0o755)
        self.before = os.environ.get("SLURM_CONF")
        self.environment = {**os.environ, "SLURM_CONF": str(self.path / "slurm.conf")}
        try:
            self._configure()
            os.environ["SLURM_CONF"] = str(self.path / "slurm.conf")
            self._bring_up()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError, subprocess.SubprocessError):
            subprocess.run(["scancel", "--user=root"], capture_output=True, timeout=10)
            until(lambda: not self.ask("squeue", "-h"), "the last jobs end", 20)
        for name in reversed(list(self.daemons)):
            self.kill(name, signal.SIGTERM)
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.path, ignore_errors=True)
        if self.before is None:
            os.environ.pop("SLURM_CONF", None)
        else:
            os.environ["SLURM_CONF"] = self.before

    # What it is asked and told

    def ask(self, *command: str) -> str:
        """What a command says; CalledProcessError when it fails."""
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
        if answer.returncode:
            error = subprocess.CalledProcessError(answer.returncode, command)
            error.add_note(answer.stdout + answer.stderr)
            raise error
        return answer.stdout.strip()

    def start(self, name: str) -> None:
        """Start a daemon: ``slurmctld``, ``slurmdbd`` or one of `NODES`."""
        command = {"slurmctld": ["slurmctld", "-D", "-i"], "slurmdbd": ["slurmdbd", "-D"]}
        self._launch(name, command.get(name, ["slurmd", "-D", "-N", name]))

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """End a daemon; what jobs it had go on."""
        daemon = self.daemons.pop(name, None)
        if daemon is None:
            return
        daemon.send_signal(number)
        try:
            daemon.wait(20)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    def node_states(self) -> dict[str, str]:
        """State of each node, such as ``idle`` or ``down*``."""
        return dict(line.split() for line in self.ask("sinfo", "-h", "-N", "-p", "main", "-o", "%N %T").splitlines())

    def usable(self) -> bool:
        """Whether every node takes jobs."""
        with suppress(subprocess.SubprocessError):
            states = self.node_states()
            return set(states) == set(NODES) and set(states.values()) <= {"idle", "mixed", "allocated"}
        return False

    def heal(self) -> None:
        """Start what does not run, and give back nodes that were taken out, until every node takes jobs."""
        for name in ("slurmdbd", "slurmctld", *NODES):
            if name not in self.daemons or self.daemons[name].poll() is not None:
                self.start(name)

        def healed() -> bool:
            with suppress(subprocess.SubprocessError):
                out = {name for name, state in self.node_states().items() if state.startswith(("dr", "down"))}
                for name in out:
                    subprocess.run(["scontrol", "update", f"nodename={name}", "state=resume"], capture_output=True)
                return not out and self.usable()
            return False

        until(healed, "all nodes take jobs")

    def processes(self) -> list[int]:
        """Processes that this cluster has started, or its jobs, by what their environment says."""
        marker = f"SLURM_CONF={self.path}/".encode()
        found = []
        for entry in os.listdir("/proc"):
            if not entry.isdigit() or int(entry) == os.getpid():
                continue
            with suppress(OSError):
                if marker in (Path("/proc") / entry / "environ").read_bytes():
                    found.append(int(entry))
        return found

    # How it comes up

    def _bring_up(self) -> None:
        self._launch("munged", ["munged", "-F", "--force", f"--socket={self.path}/munge.socket", *self._munge_files()])
        data = self.path / "mysql"
        own = [f"--datadir={data}", "--user=root"]
        quick = ["--skip-name-resolve", "--innodb-log-file-size=8M"]
        self.ask("mariadb-install-db", "--no-defaults", *own, *quick, "--auth-root-authentication-method=normal")
        quick += [
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-buffer-pool-size=32M",
            "--innodb-lock-wait-timeout=900",
        ]
        server = [f"--socket={data}/s", f"--port={self.ports['mysql']}", "--bind-address=127.0.0.1", *quick]
        self._launch("mariadbd", ["mariadbd", "--no-defaults", *own, *server, f"--pid-file={data}/pid"])
        admin = ["mariadb", "--no-defaults", f"--socket={data}/s", "-uroot"]
        until(
            lambda: subprocess.run([*admin, "-e", "SELECT 1"], capture_output=True).returncode == 0, "MariaDB answers"
        )
        grant = "CREATE USER slurm@'127.0.0.1' IDENTIFIED BY 'p'; GRANT ALL ON slurm.* TO slurm@'127.0.0.1';"
        self.ask(*admin, "-e", grant)
        until(lambda: (self.path / "munge.socket").exists(), "munge answers")
        self.start("slurmdbd")
        until(lambda: self._answers(self.ports["slurmdbd"]), "slurmdbd answers")
        self.ask("sacctmgr", "-i", "add", "cluster", "test")
        self.ask("sacctmgr", "-i", "add", "account", "lab", "cluster=test")
        self.ask("sacctmgr", "-i", "add", "user", "root", "account=lab", "cluster=test")
        self.start("slurmctld")
        self.heal()

    def _configure(self) -> None:
        names = ["mysql", "slurmdbd", "slurmctld", *NODES]
        sockets = [socket.socket() for _ in names]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        self.ports = {name: each.getsockname()[1] for name, each in zip(names, sockets, strict=True)}
        for each in sockets:
            each.close()
        for folder in ("state", "spool", "log", "mysql"):
            (self.path / folder).mkdir()
        (self.path / "munge.key").write_bytes(secrets.token_bytes(1024))
        (self.path / "munge.key").chmod(0o600)
        host = socket.gethostname()
        auth = f"socket={self.path}/munge.socket"
        settings = {
            "ClusterName": "test",
            "SlurmctldHost": f"{host}(127.0.0.1)",
            "SlurmctldPort": self.ports["slurmctld"],
            "SlurmUser": "root",
            "AuthInfo": f"{auth},cred_expire=5",  # also how long a requeued job waits
            "StateSaveLocation": self.path / "state",
            "SlurmdSpoolDir": self.path / "spool/%n",
            "SlurmctldPidFile": self.path / "slurmctld.pid",
            "SlurmdPidFile": self.path / "%n.pid",
            "SlurmctldLogFile": self.path / "log/slurmctld",
            "SlurmdLogFile": self.path / "log/%n",
            "ProctrackType": "proctrack/linuxproc",
            "TaskPlugin": "task/none",
            "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_Core_Memory",
            "AccountingStorageType": "accounting_storage/slurmdbd",
            "AccountingStorageHost": "127.0.0.1",
            "AccountingStoragePass": self.path / "munge.socket",
            "AccountingStoragePort": self.ports["slurmdbd"],
            "AccountingStorageEnforce": "associations,limits,qos",
            "JobAcctGatherType": "jobacct_gather/none",
            "GresTypes": "gpu",
            "PreemptType": "preempt/partition_prio",
            "PreemptMode": "REQUEUE",
            "ReturnToService": 2,
            "SlurmdParameters": "config_overrides",
            "SchedulerParameters": "sched_interval=1,sched_min_interval=100000,bf_interval=1,batch_sched_delay=0",
            "KillWait": 5,
            "SlurmdTimeout": 8,
            "MessageTimeout": 6,
            "InactiveLimit": 0,
            "MinJobAge": 10,
            "JobRequeue": 1,
            "MpiDefault": "none",
            **self.settings,
        }
        nodes = [
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={self.ports[name]} CPUs=8 RealMemory=4000 "
            "Gres=gpu:2"
            for name in NODES
        ]
        shared = f"Nodes={','.join(NODES)} MaxTime=INFINITE State=UP DefMemPerCPU=100"
        partitions = [
            f"PartitionName=main Default=YES PriorityTier=1 {shared}",
            f"PartitionName=high PriorityTier=10 PreemptMode=OFF {shared}",
        ]
        lines = [*(f"{name}={value}" for name, value in settings.items()), *nodes, *partitions]
        (self.path / "slurm.conf").write_text("\n".join(lines) + "\n")
        (self.path / "gres.conf").write_text(f"Name=gpu File={self.path}/nvidia[0-1]\n")
        for device in (0, 1):
            (self.path / f"nvidia{device}").touch()
        dbd = {
            "AuthType": "auth/munge",
            "AuthInfo": auth,
            "DbdHost": "localhost",
            "DbdAddr": "127.0.0.1",
            "DbdPort": self.ports["slurmdbd"],
            "SlurmUser": "root",
            "LogFile": self.path / "log/slurmdbd",
            "PidFile": self.path / "slurmdbd.pid",
            "StorageType": "accounting_storage/mysql",
            "StorageHost": "127.0.0.1",
            "StoragePort": self.ports["mysql"],
            "StorageUser": "slurm",
            "StoragePass": "p",
            "StorageLoc": "slurm",
        }
        (self.path / "slurmdbd.conf").write_text("".join(f"{name}={value}\n" for name, value in dbd.items()))
        (self.path / "slurmdbd.conf").chmod(0o600)

    def _munge_files(self) -> Sequence[str]:
        places = {"key-file": "munge.key", "pid-file": "munge.pid", "log-file": "log/munge", "seed-file": "munge.seed"}
        return [f"--{name}={self.path / place}" for name, place in places.items()]

    def _launch(self, name: str, command: list[str]) -> None:
        with open(self.path / "log" / f"{name}.out", "ab") as log:
            self.daemons[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig=KILL", *command],  # also a killed pytest leaves none of them
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                start_new_session=True,
            )

    @staticmethod
    def _answers(port: int) -> bool:
        with socket.socket() as each:
            return each.connect_ex(("127.0.0.1", port)) == 0
