"""Worker: a process that does operations on both sides, as the user that it is told to be."""

import dataclasses
import multiprocessing
import os
import signal
import sys
import time
import traceback

from model.side import Side, where_they_differ


@dataclasses.dataclass(frozen=True)
class User:
    uid: int
    gid: int
    groups: tuple

    def __str__(self):
        groups = " ".join(map(str, self.groups if len(self.groups) < 5 else [*self.groups[:2], "...", *self.groups[-2:]]))
        return f"uid {self.uid} gid {self.gid}" + (f" groups {groups}" if groups else "")


FIRST_UID = 61000
GROUPS = (62000, 62001)
_SECONDS_TO_DIE = 5


def users(count, first=0):
    """Beginning with the given one: root, and others who share groups in every way; the fourth has more groups than an NFS call holds."""
    if os.geteuid() != 0:
        return [User(os.getuid(), os.getgid(), tuple(os.getgroups()))]
    found = [User(0, 0, ())]
    for number in range(1, count):
        groups = [group for bit, group in enumerate(GROUPS) if number >> bit & 1]
        if number == 3:
            groups = [*range(63000, 63020), *groups]
        found.append(User(FIRST_UID + number, FIRST_UID + number, tuple(groups)))
    first %= len(found)
    return found[first:] + found[:first]


def become(user):
    """The effective and real identity; root stays in the saved one, to come back by."""
    if os.getresuid()[2] != 0:
        return  # a test without root has one user
    os.setresuid(-1, 0, -1)
    os.setgroups(user.groups)
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, 0)


class Hung(Exception):
    """No answer in time."""


class Died(Exception):
    """The worker's process ended."""


class Worker:
    """The coordinator's end: one request at a time."""

    def __init__(self, number, systems, seconds):
        """`systems` are the System of each side, by its name."""
        self.number = number
        self._seconds = seconds
        self._connection, theirs = multiprocessing.Pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _close_all_but(theirs.fileno())
            _serve(theirs, {name: Side(system) for name, system in systems.items()})
        theirs.close()

    def begin(self, roots, user):
        """Forgets all, and goes on in these directories."""
        return self._ask("begin", roots, user)

    def become(self, user):
        return self._ask("become", user)

    def do(self, side, operation):
        """The result, and what was to be seen after it."""
        return self._ask("do", side, operation)

    def do_both(self, operation, unless):
        """The subject's result and view, and the model's, or None if the subject's error is one of `unless`."""
        return self._ask("do both", operation, unless)

    def end(self, side):
        """The errors of closing what is open."""
        return self._ask("end", side)

    def _ask(self, *question):
        try:
            self._connection.send(question)
            if not self._connection.poll(self._seconds):
                raise Hung(f"worker {self.number} (pid {self.pid}) did not answer for"
                           f" {self._seconds} s to {question}")
            answer = self._connection.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise Died(f"worker {self.number} died of {question}") from None
        if isinstance(answer, str):
            raise Died(answer)
        return answer

    def stop(self):
        """Also if it hangs in the subject, where even SIGKILL may wait."""
        self._connection.close()
        deadline = time.monotonic() + _SECONDS_TO_DIE
        try:
            os.kill(self.pid, signal.SIGKILL)
            while os.waitpid(self.pid, os.WNOHANG)[0] == 0 and time.monotonic() < deadline:
                time.sleep(0.001)
        except (ProcessLookupError, ChildProcessError):
            pass


def _close_all_but(fd):
    os.closerange(3, fd)
    os.closerange(fd + 1, os.sysconf("SC_OPEN_MAX") if fd > 4096 else 4096)


def _serve(connection, sides):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        while True:
            connection.send(_answer(sides, *connection.recv()))
    except (EOFError, OSError):
        pass  # the coordinator ended
    except BaseException:  # whatever it is: the coordinator reports it
        connection.send(traceback.format_exc())
    os._exit(0)


def _answer(sides, what, *arguments):
    if what == "do":
        side, operation = arguments
        return _do(sides[side], operation)
    if what == "do both":
        operation, unless = arguments
        subject, seen = _do(sides["subject"], operation)
        if subject[0] == "error" and subject[1] in unless:
            return subject, seen, None, None
        model, expected = _do(sides["model"], operation)
        data = [sides[name].data_read for name in ("subject", "model")]
        if subject != model and None not in data:
            subject[1].append(where_they_differ(*data))
        return subject, seen, model, expected
    if what == "end":
        return sides[arguments[0]].end()
    if what == "become":
        become(arguments[0])
    elif what == "begin":
        roots, user = arguments
        os.umask(0)
        become(user)
        for name, root in roots.items():
            sides[name].end()
            sides[name].begin(root)
    return True


def _do(side, operation):
    if operation["op"] == "umask":  # of the process: both sides have it
        os.umask(operation["mask"])
        return ["ok", None], {}
    return side.do(operation)
