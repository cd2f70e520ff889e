"""KernelGuest: a real Linux with CacheFiles, NFS and our daemon, in processes of ours: Debian's User-Mode Linux.

It needs neither an image nor virtualisation: its root is the host's, read-only. Its first process is
tests/kernel/guest.py, which does what is asked for here.
"""

import ctypes
import json
import os
import pathlib
import platform
import select
import shutil
import subprocess
import sys
import time

from harness import paths
from harness.processes import Process, TookTooLong

_GUEST = paths.REPOSITORY / "tests/kernel/guest.py"
_MEMORY_BYTES = 256 << 20
_PTRACE_TRACEME = 0


def forbidden():
    """Why this machine cannot run such a kernel; "" where it can."""
    if platform.machine() != "x86_64":
        return f"User-Mode Linux is for x86_64, this is {platform.machine()}"
    child = os.fork()
    if child == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        os._exit(0 if libc.ptrace(_PTRACE_TRACEME, 0, None, None) == 0 else ctypes.get_errno())
    refused = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return f"User-Mode Linux needs ptrace(2), which fails here: {os.strerror(refused)}" if refused else ""


def _kernel():
    kernel = shutil.which("linux.uml")
    if kernel is None:
        raise AssertionError("linux.uml is not installed: tools/install_dependencies.sh test")
    return pathlib.Path(kernel).resolve()


def _place_for_memory(otherwise):
    """Its memory is a file that is mapped and executed; containers often have a /dev/shm that cannot hold it."""
    try:
        space = os.statvfs("/dev/shm")
    except OSError:
        return otherwise
    fits = space.f_bavail * space.f_frsize >= 2 * _MEMORY_BYTES
    return pathlib.Path("/dev/shm") if fits and not space.f_flag & os.ST_NOEXEC else otherwise


class KernelGuest:
    """Begun by its constructor. Whatever it runs ends with it, also if the test is killed."""

    def __init__(self, directory, disk_bytes):
        directory = pathlib.Path(directory)
        directory.mkdir(parents=True)
        self.log = directory / "console.log"
        kernel, disk = _kernel(), directory / "disk"
        with open(disk, "wb") as file:
            file.truncate(disk_bytes)
        subprocess.run(["mkfs.ext4", "-q", "-b", "4096", "-m", "0", disk], check=True)
        to_guest, self._requests = os.pipe()
        self._answers, from_guest = os.pipe()
        self._received = b""
        self.process = Process(
            # All its processes end with the first one of their namespace, which is not the kernel: a first
            # process cannot abort itself.
            ["unshare", "--pid", "--fork", "--kill-child", "sh", "-c", '"$@"; exit $?', "sh",
             kernel, f"mem={_MEMORY_BYTES >> 20}M", "root=/dev/root", "rootfstype=hostfs", "rootflags=/",
             "ro", f"ubda={disk}", f"uml_dir={directory}", "quiet", "console=tty0", "con=null",
             "con0=null,fd:1", "ssl=null", f"ssl0=fd:{to_guest},fd:{from_guest}",
             f"init={os.path.realpath(sys.executable)}", "--", _GUEST,
             kernel.parents[1] / "lib/uml/modules", paths.CACHEFILESD],
            self.log, env={"TMPDIR": str(_place_for_memory(directory))}, pass_fds=(to_guest, from_guest))
        os.close(to_guest)
        os.close(from_guest)

    def boot(self):
        """Returns when it serves its export; the release of its kernel."""
        self._receive(60)
        return self.call("begin")

    def call(self, method, *arguments, seconds=60):
        """What this method of tests/kernel/guest.py returns."""
        os.write(self._requests, json.dumps({"do": method, "with": arguments}).encode() + b"\n")
        answer = json.loads(self._receive(seconds))
        if "error" in answer:
            raise AssertionError(f"in the guest: {answer['error']}")
        return answer["value"]

    def _receive(self, seconds):
        deadline = time.monotonic() + seconds
        while b"\n" not in self._received:
            if not select.select([self._answers], [], [], max(0, deadline - time.monotonic()))[0]:
                raise TookTooLong(f"the guest did not answer for {seconds} s")
            received = os.read(self._answers, 65536)
            if not received:
                raise AssertionError(f"the guest has ended:\n{self.process.log_text()}")
            self._received += received
        line, _, self._received = self._received.partition(b"\n")
        return line

    def stop(self):
        self.process.kill()
        os.close(self._requests)
        os.close(self._answers)
