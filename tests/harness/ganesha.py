"""Ganesha: a real NFS server (nfs-ganesha) on loopback or in a namespace, with its own directory."""

import contextlib
import dataclasses
import os
import pathlib
import random
import signal
import socket

from harness import paths
from harness.processes import Process, wait_until

_LEAST_PORT = 10_000
_STARTS = 3  # with ports of its own each
_PLUGINS = "/usr/lib/x86_64-linux-gnu/ganesha"


@dataclasses.dataclass
class Export:
    """A directory that the server shows under the path `name` (which begins with a slash)."""
    directory: os.PathLike
    name: str = "/export"
    read_only: bool = False
    squash: str = "No_Root_Squash"  # or Root_Squash, All_Squash
    fsal: str = "VFS"               # or MEM: contents vanish with the server

    def config(self, number):
        access = "RO" if self.read_only else "RW"
        path = self.directory if self.fsal == "VFS" else self.name
        return (f"EXPORT {{ Export_Id = {number}; Path = {path}; Pseudo = {self.name};"
                f" Protocols = 3, 4; Access_Type = {access}; Squash = {self.squash};"
                f" FSAL {{ Name = {self.fsal}; }} }}\n")


def free_ports(count, address="127.0.0.1"):
    """Ports that nobody uses at the moment, and that the kernel gives to nobody by itself."""
    first_given = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    end = first_given if first_given > 2 * _LEAST_PORT else 65_536
    ports = []
    while len(ports) < count:
        port = random.SystemRandom().randrange(_LEAST_PORT, end)
        with contextlib.suppress(OSError), socket.create_server((address, port)):
            ports += [] if port in ports else [port]
    return ports


class Ganesha:
    """Started by its constructor; file handles of FSAL VFS outlive every restart."""

    def __init__(self, directory, exports, address="127.0.0.1", namespace=None,
                 attribute_seconds=0):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "recovery").mkdir(exist_ok=True)
        self.exports = exports
        self.address = address
        self.log = self.directory / "ganesha.log"
        self._namespace = namespace
        # For how long the server trusts its own memory of attributes: not at all, because tests
        # change files behind its back. Benchmarks give it the default of 60 s.
        self._attribute_seconds = attribute_seconds
        self._process = None
        self.nfs_port, self.mount_port = 2049, 20048
        if namespace is None:
            self._start_at_free_ports()
        else:
            self.start()

    def _start_at_free_ports(self):
        """Another test may be quicker to take them."""
        for last in (*[False] * (_STARTS - 1), True):
            self.nfs_port, self.mount_port = free_ports(2)
            try:
                self.start()
                return
            except AssertionError:
                if last:
                    raise

    @property
    def pid(self):
        return self._process.pid

    def is_running(self):
        return self._process is not None and self._process.is_running()

    def start(self):
        config = self.directory / "ganesha.conf"
        config.write_text(self._config())
        starts = self._ready_lines()
        self._process = Process(
            ["ganesha.nfsd", "-F", "-f", config, "-p", self.directory / "ganesha.pid",
             "-L", self.log, "-N", "EVENT"],
            self.directory / "ganesha.out", env={"LD_PRELOAD": str(paths.NO_PORTMAPPER)},
            namespace=self._namespace)
        try:
            wait_until(lambda: self._ready_lines() > starts or not self._process.is_running(), 20,
                       f"ganesha to be ready ({self.log})")
            if not self._process.is_running():
                raise AssertionError("ganesha ended at its start:\n" + self._log_text())
        except BaseException:
            self.stop()
            raise

    def stop(self):
        if self._process is not None:
            self.thaw()
            self._process.end()
            self._process = None

    def kill9(self):
        self._process.kill()
        self._process = None

    def restart(self):
        """As after a crash: connections break, handles stay valid."""
        self.kill9()
        self.start()

    def freeze(self):
        """The server neither answers nor refuses until thaw()."""
        self._process.freeze()

    def thaw(self):
        if self.is_running():
            self._process.send(signal.SIGCONT)

    def url(self, name="/export", **options):
        """The source as a user types it; `options` are appended to the query."""
        query = {"nfsport": self.nfs_port, "mountport": self.mount_port, **options}
        return (f"nfs://{self.address}{name}?"
                + "&".join(f"{key}={value}" for key, value in query.items()))

    def _log_text(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def _ready_lines(self):
        return self._log_text().count("NFS SERVER INITIALIZED")

    def _config(self):
        # In a namespace the server listens on all addresses: it resolves none there.
        bind = "" if self._namespace else f"Bind_addr = {self.address};"
        exports = "".join(export.config(number) for number, export in enumerate(self.exports, 1))
        return f"""
NFS_CORE_PARAM {{
  Protocols = 3, 4; NFS_Port = {self.nfs_port}; MNT_Port = {self.mount_port}; {bind}
  Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false; NSM_Use_Caller_Name = false;
  fsid_device = true; mount_path_pseudo = true; Plugins_Dir = {_PLUGINS};
}}
NFSv4 {{
  Only_Numeric_Owners = true; Allow_Numeric_Owners = true; Graceless = true; Grace_Period = 5;
  Lease_Lifetime = 5; Minor_Versions = 0, 1, 2; RecoveryBackend = fs;
  RecoveryRoot = "{self.directory}/recovery";
}}
NFS_KRB5 {{ Active_krb5 = false; }}
EXPORT_DEFAULTS {{ SecType = sys; Transports = TCP; 
  Attr_Expiration_Time = {self._attribute_seconds}; }}
LOG {{ Default_Log_Level = EVENT; }}
{exports}"""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
