"""Larder: the product, driven by its command line as a user drives it."""

import errno
import json
import os
import pathlib
import shutil
import signal
import subprocess

from harness import paths, processes
from harness.processes import wait_until

_CONNECTIONS = pathlib.Path("/sys/fs/fuse/connections")


class Refused(AssertionError):
    """The command failed; `sentence` is what it said."""

    def __init__(self, command, status, sentence):
        super().__init__(f"{' '.join(command)} ended with {status}: {sentence}")
        self.status = status
        self.sentence = sentence


class Larder:
    """A keeper and an engine with a runtime directory of their own; started by the first mount."""

    def __init__(self, directory, cache_directory=None):
        self.directory = pathlib.Path(directory)
        self.runtime_directory = self.directory / "run"
        self.cache_directory = pathlib.Path(cache_directory or self.directory / "cache")
        self.runtime_directory.mkdir(parents=True)
        self.mountpoints = []

    def run(self, *words, seconds=60, prefix=()):
        """One command, behind the words of `prefix`; returns what it prints, raises Refused if it fails."""
        command = [*prefix, str(paths.LARDER), "--runtime-dir", str(self.runtime_directory),
                   *map(str, words)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False,
                              text=True, errors="replace", timeout=seconds)
        if done.returncode != 0:
            raise Refused(command, done.returncode, done.stderr.strip())
        return done.stdout

    def refusal(self, *words, prefix=()):
        """The sentence with which the command is refused; succeeding is the failure."""
        try:
            self.run(*words, prefix=prefix)
        except Refused as refused:
            return refused.sentence
        raise AssertionError(f"{words} should have been refused")

    def mount_words(self, source, mountpoint, options=""):
        return ["mount", "--cache", self.cache_directory, source, mountpoint,
                *(["-o", options] if options else [])]

    def mount(self, source, mountpoint=None, options=""):
        """Mounts at a directory, made if it is missing; returns it."""
        mountpoint = pathlib.Path(mountpoint or self.directory / f"mnt{len(self.mountpoints)}")
        mountpoint.mkdir(parents=True, exist_ok=True)
        if mountpoint not in self.mountpoints:
            self.mountpoints.append(mountpoint)
        self.run(*self.mount_words(source, mountpoint, options))
        return mountpoint

    def umount(self, mountpoint):
        self.run("umount", mountpoint)
        self.mountpoints.remove(pathlib.Path(mountpoint))

    def flush(self, path):
        self.run("flush", path)

    def status(self):
        return json.loads(self.run("status", "--json"))

    def log(self):
        """The log, or why it cannot be had."""
        try:
            return self.run("log", seconds=10)
        except (Refused, OSError, subprocess.TimeoutExpired) as error:
            return str(error)

    def engine_pid(self):
        return self.status()["engine"]["pid"]

    def keeper_pid(self):
        return self.status()["keeper"]["pid"]

    def kill_engine(self):
        """kill -9; returns when it is dead. The keeper may start another at once."""
        self._kill(self.engine_pid())

    def kill_keeper(self):
        self._kill(self.keeper_pid())

    def restart(self):
        """Everything ends in order; the next mount starts a new keeper and engine."""
        for mountpoint in self.mountpoints[:]:
            if not is_mounted(mountpoint):
                self.mountpoints.remove(mountpoint)  # a mount that failed, or somebody unmounted it
            else:
                self.umount(mountpoint)
        self.run("stop")
        self._wait_for_end()

    def forget_dead_mounts(self):
        """After keeper and engine were killed: takes away what is left of their mounts."""
        for mountpoint in self.mountpoints:
            abort_fuse(mountpoint)
            if _device_of(mountpoint) is not None:
                subprocess.run(["umount", "--lazy", mountpoint], check=True)
        self.mountpoints.clear()

    def stop(self):
        """Ends everything, by force where it does not end by itself."""
        if not self.mountpoints and not self._own_processes():
            return  # never begun, or ended already
        try:
            self.restart()
        except (Refused, subprocess.TimeoutExpired, processes.TookTooLong):
            self._end_by_force()
            raise

    @staticmethod
    def _kill(pid):
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not processes.is_running(pid), 10, f"{pid} to die")

    def _own_processes(self):
        """Keepers with our runtime directory, of those that descend from the test, and their engines."""
        keepers = [pid for pid in processes.descendants(os.getpid())
                   if f"--runtime-dir {self.runtime_directory} " in processes.command_line(pid) + " "]
        found = []
        for pid in dict.fromkeys(each for keeper in keepers
                                 for each in (keeper, *processes.descendants(keeper))):
            try:
                program = os.readlink(f"/proc/{pid}/exe")
            except OSError:
                continue
            if program.removesuffix(" (deleted)") in (str(paths.LARDER), str(paths.ENGINE)):
                found.append(pid)
        return found

    def _wait_for_end(self):
        wait_until(lambda: not self._own_processes(), 20, "keeper and engine to end")

    def _end_by_force(self):
        for mountpoint in self.mountpoints:
            abort_fuse(mountpoint)
            subprocess.run(["umount", "--lazy", mountpoint], check=False, capture_output=True)
        self.mountpoints.clear()
        for pid in self._own_processes():
            processes.kill_and_reap(pid)


def abort_fuse(mountpoint):
    """Ends the FUSE connection mounted there, and only that; everything that hangs in it gets an error."""
    device = _device_of(mountpoint)
    if device is None:
        return
    minor = device.split(":")[1]
    if any(_CONNECTIONS.iterdir()):
        _write_abort(_CONNECTIONS / minor)
        return
    private = paths.temporary_root() / "fusectl"
    private.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "fusectl", "none", private], check=True)
    try:
        _write_abort(private / minor)
    finally:
        subprocess.run(["umount", private], check=True)


def _write_abort(connection):
    if connection.exists():
        (connection / "abort").write_text("1")


def is_mounted(mountpoint):
    return _mount_fields(mountpoint) is not None


def _mount_fields(mountpoint):
    """The topmost line of mountinfo for it, or None; without touching the mount, which may hang."""
    found = None
    for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split(" ")
        if fields[4] == str(mountpoint):
            found = fields
    return found


def _device_of(mountpoint):
    """MAJOR:MINOR of a fuse mount, or None."""
    fields = _mount_fields(mountpoint)
    if fields is None or not fields[fields.index("-") + 1].startswith("fuse"):
        return None
    return fields[2]


def drop_page_cache():
    """What is read next comes from the engine, a disk or a server."""
    os.sync()
    drop_clean_pages()


def drop_clean_pages():
    """As drop_page_cache(), without the sync(2), which waits for every disk of the machine."""
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("3\n")


def remove_cache(cache_directory):
    """Also one that an engine is putting files into."""
    wait_until(lambda: _is_removed(cache_directory), 10, "the cache to be removed between two of the engine's files")


def _is_removed(directory):
    try:
        shutil.rmtree(directory)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.ENOENT):
            raise
    return not directory.exists()
