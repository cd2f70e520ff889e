"""Cleanup: what was begun is undone in reverse order, also after an exception or a signal to end."""

import atexit
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import traceback

from harness import paths, processes

_live = []


class Cleanup:
    """A stack of things to undo. One that fails does not keep the others from being undone."""

    def __init__(self):
        self._stack = []
        _live.append(self)

    def defer(self, function, *arguments):
        self._stack.append((function, arguments))

    def run(self):
        """Undoes everything; returns the exceptions that this met."""
        errors = []
        while self._stack:
            function, arguments = self._stack.pop()
            try:
                function(*arguments)
            except Exception as error:  # the rest must still be undone
                traceback.print_exc()
                errors.append(error)
        if self in _live:
            _live.remove(self)
        return errors


def mounts_under(directory):
    """Mount points under `directory`, the last mounted first."""
    prefix = os.fsencode(str(directory)) + b"/"
    points = []
    for line in pathlib.Path("/proc/self/mountinfo").read_bytes().splitlines():
        point = line.split(b" ")[4].decode("unicode_escape").encode("latin-1")
        if point.startswith(prefix):
            points.append(os.fsdecode(point))
    return points[::-1]


def loop_devices_under(directory):
    found = []
    for device in pathlib.Path("/sys/block").glob("loop*"):
        try:
            backing = (device / "loop/backing_file").read_text().strip()
        except OSError:
            continue
        if backing.startswith(f"{directory}/"):
            found.append(f"/dev/{device.name}")
    return found


def own_namespaces():
    return [name for name in _namespace_names() if name.startswith(f"larder-{os.getpid()}-")]


def _namespace_names():
    directory = pathlib.Path("/run/netns")
    return sorted(os.listdir(directory)) if directory.is_dir() else []


def leftovers():
    """What tests of this process left behind, as sentences; an empty list is the only good answer."""
    root = paths.temporary_root()
    found = [f"mounted: {point}" for point in mounts_under(root)]
    found += [f"running: {pid} {processes.command_line(pid)}"
              for pid in processes.descendants(os.getpid())]
    found += [f"loop device: {device}" for device in loop_devices_under(root)]
    found += [f"network namespace: {name}" for name in own_namespaces()]
    return found


def lasting_leftovers(seconds=3):
    """leftovers() that stay: the kernel detaches loop devices, and processes end, a moment later."""
    deadline = time.monotonic() + seconds
    while (left := leftovers()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def remove_leftovers():
    """The last resort: takes away by force what leftovers() reports, and only that."""
    root = paths.temporary_root()
    for point in mounts_under(root):
        subprocess.run(["umount", "--lazy", point], check=False)
    for pid in processes.descendants(os.getpid()):
        processes.kill_and_reap(pid)
    for device in loop_devices_under(root):
        subprocess.run(["losetup", "--detach", device], check=False)
    for name in own_namespaces():
        subprocess.run(["ip", "netns", "delete", name], check=False)


def _undo_everything():
    for cleanup in reversed(_live[:]):
        cleanup.run()
    left = lasting_leftovers()
    if left:
        print("left behind and removed by force:", *left, sep="\n  ", file=sys.stderr)
        remove_leftovers()
    paths.remove_temporary_root()


def _interrupt(number, _frame):
    signal.signal(number, signal.SIG_IGN)  # once is enough: undoing must not be interrupted
    raise KeyboardInterrupt(f"signal {number}")


def install():
    """Call once in the main thread of a test program, before anything is begun."""
    processes.adopt_orphans()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _interrupt)
    atexit.register(_undo_everything)


def remove_tree(directory):
    shutil.rmtree(directory, ignore_errors=True)
