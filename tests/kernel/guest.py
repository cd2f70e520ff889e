"""Guest: the first process of a Linux under User-Mode Linux, which does what harness/kernel_guest.py asks for.

Its root is the host's, read-only; all it writes lies in memory, below /run, and on the disk that the test gave it, which
is the cache's. It serves /run/export by the kernel's NFS server and mounts that by the kernel's client with `fsc`. What
rpc.mountd would tell the server's kernel is told here, once and for ever. A request is a line of JSON,
{"do": method, "with": arguments}; the answer is one, {"value": value} or {"error": text}.
"""

import contextlib
import ctypes
import json
import os
import pathlib
import random
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import tty

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness.processes import cpu_seconds, is_running, wait_until

_libc = ctypes.CDLL(None, use_errno=True)
_SYS_IOPRIO_GET = 252
_SYS_FINIT_MODULE = 313
_SYS_PIDFD_GETFD = 438
_EXPORT = pathlib.Path("/run/export")
_MOUNTED = pathlib.Path("/run/nfs")
_CACHE = pathlib.Path("/run/cache")
_CONFIG = pathlib.Path("/run/cachefilesd.conf")
_PID_FILE = pathlib.Path("/run/cachefilesd.pid")
_LOG = pathlib.Path("/run/cachefilesd.log")
_FOR_EVER = 2**31 - 1
_INSECURE_PORT, _NO_SUBTREE_CHECK, _HAS_FSID = 0x2, 0x400, 0x2000


def _call(function, *arguments):
    """A function of the C library or a system call; an error is raised."""
    result = function(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{os.strerror(ctypes.get_errno())}: {arguments}")
    return result


def _mount(source, target, kind, options=""):
    pathlib.Path(target).mkdir(exist_ok=True)
    _call(_libc.mount, *(os.fsencode(word) for word in (source, target, kind)), 0, options.encode())


def _reaped(pid):
    ended = os.waitpid(pid, os.WNOHANG)
    return ended if ended[0] == pid else None


def _tell(path, text):
    """In one write, as the kernel wants it."""
    with open(path, "wb", buffering=0) as file:
        file.write(text.encode())


def _load_modules(directory, *names):
    lines = (directory / "modules.dep").read_text().splitlines()
    needs = {path: below.split() for path, _, below in (line.partition(":") for line in lines)}
    loaded = set()
    for name in names:
        wanted = next(path for path in needs if pathlib.Path(path).stem == name)
        for path in (*reversed(needs[wanted]), wanted):
            if path not in loaded:
                loaded.add(path)
                with open(directory / path, "rb") as file:
                    _call(_libc.syscall, _SYS_FINIT_MODULE, file.fileno(), b"", 0)


def _serve_export():
    _mount("export", _EXPORT, "tmpfs")
    _mount("nfsd", "/proc/fs/nfsd", "nfsd")
    # Where nothing is noted of earlier clients none has to be waited for: no grace period.
    pathlib.Path("/run/clients").mkdir()
    _tell("/proc/fs/nfsd/nfsv4recoverydir", "/run/clients\n")
    _tell("/proc/fs/nfsd/versions", "-3 +4 +4.2\n")  # the only one that does without a portmapper
    with socket.create_server(("127.0.0.1", 2049)) as listener:
        _tell("/proc/fs/nfsd/portlist", f"{listener.fileno()}\n")
    _tell("/proc/fs/nfsd/threads", "2\n")
    _tell("/proc/net/rpc/auth.unix.ip/channel", f"nfsd 127.0.0.1 {_FOR_EVER} all\n")
    _tell("/proc/net/rpc/nfsd.fh/channel", f"all 1 \\x00000000 {_FOR_EVER} {_EXPORT}\n")
    flags = _INSECURE_PORT | _NO_SUBTREE_CHECK | _HAS_FSID
    _tell("/proc/net/rpc/nfsd.export/channel", f"all {_EXPORT} {_FOR_EVER} {flags} 65534 65534 0\n")
    _tell("/proc/fs/nfsd/v4_end_grace", "Y\n")


class Guest:

    def __init__(self, modules, daemon):
        self._modules = pathlib.Path(modules)
        self._daemon = daemon
        self._contents = {}
        self._held = []
        self._reader = None

    def begin(self):
        """The release of the kernel."""
        _mount("proc", "/proc", "proc")
        _mount("run", "/run", "tmpfs")
        release = os.uname().release
        _load_modules(self._modules / release, "nfsv4", "nfsd", "cachefiles")
        subprocess.run(["/bin/sh", "-c", "PATH=/usr/sbin:/usr/bin:/sbin:/bin ip link set lo up"], check=True)
        _serve_export()
        _mount("/dev/ubda", _CACHE, "ext4")
        _MOUNTED.mkdir()
        return release

    # The export and the mount.

    def write_files(self, prefix, count, size, seed):
        pick = random.Random(seed)
        for number in range(count):
            name = f"{prefix}{number:03}"
            self._contents[name] = pick.randbytes(size)
            (_EXPORT / name).write_bytes(self._contents[name])

    def mount(self):
        _mount("127.0.0.1:/", _MOUNTED, "nfs", "vers=4.2,addr=127.0.0.1,clientaddr=127.0.0.1,fsc")

    def unmount(self):
        """Nothing of the mount is in use in the cache afterwards, as it is said."""
        _call(_libc.umount2, os.fsencode(_MOUNTED), 0)

    def drop_caches(self):
        _tell("/proc/sys/vm/drop_caches", "3\n")

    def read_files(self, prefix):
        """What is wrong, the bytes that came from the server, and the reads of the cache's files."""
        self.drop_caches()
        wrong, server, cache = [], self._server_bytes(), self._cache_reads()
        for name in sorted(self._contents):
            if name.startswith(prefix):
                wrong += self._problem_with(name)
        return {"wrong": wrong, "from_server": self._server_bytes() - server,
                "cache_reads": self._cache_reads() - cache}

    def _problem_with(self, name):
        try:
            same = (_MOUNTED / name).read_bytes() == self._contents[name]
        except OSError as error:
            return [f"{name}: {error}"]
        return [] if same else [f"{name}: wrong bytes"]

    def _server_bytes(self):
        for line in pathlib.Path("/proc/net/rpc/nfsd").read_text().splitlines():
            if line.startswith("io "):
                return int(line.split()[1])
        raise AssertionError("the server does not count its bytes")

    def _cache_reads(self):
        return self._cache_count("IO", "rd")

    def _cache_count(self, line, word):
        for text in pathlib.Path("/proc/fs/fscache/stats").read_text().splitlines():
            if text.partition(":")[0].rstrip() == line:
                return int(text.partition(f" {word}=")[2].split()[0])
        raise AssertionError(f"the kernel does not count {line} {word}")

    def culled(self):
        """Objects, ever."""
        return self._cache_count("NoSpace", "cull")

    def hold(self, name):
        """It stays open."""
        file = open(_MOUNTED / name, "rb")
        file.read(1)
        self._held.append(file)

    def begin_reading(self):
        """All files, again and again, until end_reading() tells what was wrong, and how many were read."""
        self._reader = Reader(self._contents, self._problem_with, self.drop_caches)

    def end_reading(self):
        return self._reader.end()

    # The daemon.

    def configure(self, *lines):
        _CONFIG.write_text("".join(f"{line}\n" for line in (f"dir {_CACHE}", *lines)))

    def start_daemon(self, *options):
        """In the background; returns its status and what it said, once it is online or has failed."""
        with open(_LOG, "ab") as log:
            begin = log.tell()
            done = subprocess.run([self._daemon, "-s", "-d", "-f", _CONFIG, *options], check=False,
                                  stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        return {"status": done.returncode, "said": self.daemon_log()[begin:]}

    def daemon_log(self):
        return _LOG.read_text(errors="replace")

    def signal_daemon(self, name):
        os.kill(self._pid(), getattr(signal, name))

    def end_daemon(self, name):
        """By this signal. The wait status; an orphan's parent is the first process."""
        pid = self._pid()
        os.kill(pid, getattr(signal, name))
        return wait_until(lambda: _reaped(pid), 20, "the daemon to end")[1]

    def daemon(self):
        """What the kernel says of it."""
        pid = self._pid()
        lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
        opened = [os.readlink(path) for path in pathlib.Path(f"/proc/{pid}/fd").iterdir()]
        return {"running": is_running(pid),
                "status": dict(line.split(":\t", 1) for line in lines if ":\t" in line),
                "nice": os.getpriority(os.PRIO_PROCESS, pid),
                "io_class": _call(_libc.syscall, _SYS_IOPRIO_GET, 1, pid) >> 13,
                "devices": [path for path in opened if path.startswith("/dev/") and path != "/dev/null"]}

    def daemon_seconds(self, seconds):
        """The processor time that it takes in so many seconds."""
        before = cpu_seconds(self._pid())
        time.sleep(seconds)
        return cpu_seconds(self._pid()) - before

    def _pid(self):
        return int(_PID_FILE.read_text())

    # The cache.

    def cache_state(self):
        """The kernel's letter for it: A when it is active; "": there is none."""
        lines = pathlib.Path("/proc/fs/fscache/caches").read_text().splitlines()[2:]
        return lines[0].split()[5] if lines else ""

    @contextlib.contextmanager
    def _device(self):
        """The daemon's own descriptor of it, for a moment, as there is no second one to be had."""
        pid = self._pid()
        number = next(int(path.name) for path in pathlib.Path(f"/proc/{pid}/fd").iterdir()
                      if os.readlink(path) == "/dev/cachefiles")
        process = os.pidfd_open(pid)
        try:
            device = _call(_libc.syscall, _SYS_PIDFD_GETFD, process, number, 0)
        finally:
            os.close(process)
        try:
            yield device
        finally:
            os.close(device)

    def is_culling(self):
        """Whether the kernel wants culls; asking changes nothing."""
        with self._device() as device:
            poll = select.poll()
            poll.register(device, select.POLLOUT)
            return any(events & select.POLLOUT for _, events in poll.poll(0))

    def state_line(self):
        """Takes from it what the daemon would have heard of releases."""
        with self._device() as device:
            return os.read(device, 4096).decode()

    def objects(self):
        """Paths of objects, by the file whose bytes they hold."""
        begins = {content[:4096]: name for name, content in self._contents.items()}
        found = {}
        for path in (_CACHE / "cache").glob("I*/@*/*"):
            if path.is_file():
                with open(path, "rb") as file:
                    name = begins.get(file.read(4096))
                if name:
                    found[name] = str(path)
        return found

    def blocks(self):
        return os.statvfs(_CACHE).f_blocks

    def free_part(self):
        space = os.statvfs(_CACHE)
        return space.f_bavail / space.f_blocks

    def leave_free(self, part):
        """Somebody else fills the cache's disk."""
        space = os.statvfs(_CACHE)
        blocks = space.f_bavail - int(space.f_blocks * part)
        with open(_CACHE / "filler", "wb") as file:
            os.posix_fallocate(file.fileno(), 0, blocks * space.f_frsize)

    def give_back(self):
        (_CACHE / "filler").unlink()

    def make_directory(self, path, files):
        """In the place of what is there."""
        path = _CACHE / path
        path.unlink(missing_ok=True)
        path.mkdir(parents=True)
        for number in range(files):
            (path / f"below{number}").mkdir()
            (path / f"below{number}" / "file").touch()

    def exists(self, path):
        return os.path.lexists(_CACHE / path)

    def graveyard(self):
        return os.listdir(_CACHE / "graveyard")


class Reader:

    def __init__(self, names, problem_with, drop_caches):
        self._names = list(names)
        self._problem_with = problem_with
        self._drop_caches = drop_caches
        self._over = threading.Event()
        self._problems = []
        self._reads = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        while not self._over.is_set():
            self._drop_caches()
            for name in self._names:
                self._problems += self._problem_with(name)
                self._reads += 1

    def end(self):
        self._over.set()
        self._thread.join()
        return {"problems": self._problems, "reads": self._reads}


def main():
    guest = Guest(*sys.argv[1:])
    line = os.open("/dev/ttyS0", os.O_RDWR | os.O_NOCTTY)
    tty.setraw(line)
    os.write(line, b"up\n")
    with open(line, "rb", buffering=0, closefd=False) as requests:
        while request := requests.readline():
            asked = json.loads(request)
            try:
                answer = {"value": getattr(guest, asked["do"])(*asked["with"])}
            except Exception:  # the test is to see it, whatever it is
                answer = {"error": traceback.format_exc()}
            left = json.dumps(answer).encode() + b"\n"
            while left:
                left = left[os.write(line, left):]


main()
