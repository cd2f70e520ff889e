"""Processes: children with their output in a log file, ended by their own pid."""

import ctypes
import os
import pathlib
import re
import signal
import subprocess
import time

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_POLL_SECONDS = 0.005


class TookTooLong(AssertionError):
    """Something that a test waited for did not happen before its deadline."""


def wait_until(happened, seconds, what):
    """Returns the first true value of `happened()`; `what` says in the error what was waited for."""
    deadline = time.monotonic() + seconds
    while True:
        value = happened()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TookTooLong(f"waited {seconds} s in vain for: {what}")
        time.sleep(_POLL_SECONDS)


def wait_for_file(path, seconds=10):
    wait_until(lambda: os.path.exists(path), seconds, f"{path} to exist")


def adopt_orphans():
    """Daemons that our children start become our children: so they are found, and can be reaped."""
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def _die_with_parent():
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def command_line(pid):
    try:
        words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return "(gone)"
    return b" ".join(words).decode(errors="replace").strip()


def _stat_fields(pid):
    """The fields of /proc/PID/stat from the state on; None if the process is gone."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    return text[text.rindex(")") + 2:].split()


def _all_stopped(pid):
    try:
        states = [stat.read_text().rpartition(")")[2].split()[0]
                  for stat in pathlib.Path(f"/proc/{pid}/task").glob("*/stat")]
    except OSError:
        return False  # a thread that ended meanwhile
    return all(state == "T" for state in states)


def is_running(pid):
    """Whether `pid` is there and not a zombie."""
    fields = _stat_fields(pid)
    return fields is not None and fields[0] != "Z"


def descendants(ancestor):
    """All living processes below `ancestor`, parents before children."""
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            fields = _stat_fields(int(entry))
            if fields is not None and fields[0] != "Z":
                children.setdefault(int(fields[1]), []).append(int(entry))
    found, unvisited = [], [ancestor]
    while unvisited:
        below = sorted(children.get(unvisited.pop(), []))
        found += below
        unvisited += below
    return found


def kill_and_reap(pid, seconds=5):
    """For processes that are children of ours, by birth or adoption."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    try:
        wait_until(lambda: _is_reaped(pid), seconds, f"{pid} to die")
    except ChildProcessError:
        wait_until(lambda: not is_running(pid), seconds, f"{pid} to die")


def _is_reaped(pid):
    return os.waitpid(pid, os.WNOHANG)[0] == pid


def memory_bytes(pid):
    """(private, shared) bytes in memory: heap and stacks; the tables of keeper and engine."""
    fields = dict(line.split(":", 1) for line in
                  pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
    return tuple(int(fields[key].split()[0]) * 1024 for key in ("RssAnon", "RssShmem"))


def thread_count(pid):
    return len(os.listdir(f"/proc/{pid}/task"))


def is_sanitized(pid):
    """Its allocator is a sanitizer's, which keeps what was freed."""
    return re.search(r"/lib[at]san\.so", pathlib.Path(f"/proc/{pid}/maps").read_text()) is not None


def descriptor_count(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


class Footprint:
    """What a process holds at a moment."""

    def __init__(self, pid):
        self.descriptors = descriptor_count(pid)
        self.threads = thread_count(pid)
        self.memory = memory_bytes(pid)[0]
        self.sanitized = is_sanitized(pid)

    def __str__(self):
        return f"{self.descriptors} descriptors, {self.threads} threads, {self.memory / (1 << 20):.1f} MiB"


def cpu_seconds(pid):
    """User and system time that the process has used so far."""
    fields = _stat_fields(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Process:
    """A child process. It dies with the test, and its output goes to `log`."""

    def __init__(self, command, log, env=None, cwd=None, namespace=None, pass_fds=()):
        self.command = [os.fspath(word) for word in command]
        if namespace is not None:
            self.command = namespace.command(self.command)
        self.log = pathlib.Path(log)
        with open(self.log, "ab") as output:
            self._child = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=cwd,
                env={**os.environ, **(env or {})}, preexec_fn=_die_with_parent, pass_fds=pass_fds,
                start_new_session=True)  # ^C is for the test alone, which ends them in order

    @property
    def pid(self):
        return self._child.pid

    def is_running(self):
        return self._child.poll() is None

    def log_text(self):
        return self.log.read_text(errors="replace")

    def wait_for_line(self, pattern, seconds=10):
        """Returns the match of `pattern` in the log; fails at once if the process ends without it."""
        def matched():
            over = not self.is_running()
            match = re.search(pattern, self.log_text(), re.MULTILINE)
            if over and not match:
                raise AssertionError(f"{self.command} ended ({self._child.returncode}) before its log"
                                     f" said {pattern!r}:\n{self.log_text()}")
            return match
        return wait_until(matched, seconds, f"{pattern!r} in {self.log}")

    def wait(self, seconds):
        """The exit status."""
        return self._child.wait(seconds)

    def send(self, number):
        self._child.send_signal(number)

    def freeze(self):
        """Returns when none of its threads runs; SIGCONT lets it go on."""
        self.send(signal.SIGSTOP)
        wait_until(lambda: _all_stopped(self.pid), 10, f"{self.pid} to stop")

    def kill(self):
        self._child.kill()
        self._child.wait()

    def end(self, seconds=10):
        """SIGTERM, and SIGKILL if that does not help in time. Returns whether SIGTERM was enough."""
        if not self.is_running():
            return True
        self._child.terminate()
        self._child.send_signal(signal.SIGCONT)
        try:
            self._child.wait(seconds)
            return True
        except subprocess.TimeoutExpired:
            self.kill()
            return False

    stop = end
