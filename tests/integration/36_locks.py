"""Locks: flock(2) and fcntl(2) between processes do on a mount what they do on a local disk, for each file."""

import collections
import contextlib
import ctypes
import errno
import fcntl
import multiprocessing
import os
import pathlib
import signal
import sqlite3
import struct
import sys
import time
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness.case import Case, main
from harness.files import let_pages_go
from harness.larder import abort_fuse
from harness.mounted_case import MountedCase
from harness.processes import wait_until

_FLOCK = struct.Struct("hhqqi")  # struct flock
_Lock = collections.namedtuple("_Lock", "type start length pid")
_KINDS = {fcntl.F_RDLCK: "shared", fcntl.F_WRLCK: "exclusive", fcntl.F_UNLCK: "none"}
_LARGE = 400_000  # more than what is kept in the page cache alone
_WAIT = 0.3  # who waits so long waits
_LOCK_CALLS = ("72", "73")  # fcntl and flock, by their numbers on x86-64


# ---- What workers do: functions of what they have open by name.


def open_file(files, key, path, flags=os.O_RDWR):
    files[key] = os.open(path, flags)


def close(files, key):
    os.close(files.pop(key))


def duplicate(files, key, copy):
    files[copy] = os.dup(files[key])


def record(files, key, mode, start=0, length=0, wait=False):
    """Of fcntl(2); `mode` as lockf() takes it."""
    fcntl.lockf(files[key], mode | (0 if wait or mode == fcntl.LOCK_UN else fcntl.LOCK_NB), length, start)


def flock(files, key, mode, wait=False):
    fcntl.flock(files[key], mode | (0 if wait or mode == fcntl.LOCK_UN else fcntl.LOCK_NB))


def open_record(files, key, kind, start=0, length=0):
    """Of the open file instead of the process."""
    fcntl.fcntl(files[key], fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, start, length, 0))


def in_the_way(files, key, kind=fcntl.F_WRLCK, start=0, length=0, command=fcntl.F_GETLK):
    answer = fcntl.fcntl(files[key], command, _FLOCK.pack(kind, os.SEEK_SET, start, length, 0))
    kind, _, start, length, pid = _FLOCK.unpack(answer[:_FLOCK.size])
    return None if kind == fcntl.F_UNLCK else _Lock(_KINDS[kind], start, length, pid)


def write(files, key, data, offset=0):
    return os.pwrite(files[key], data, offset)


def read(files, key, length, offset=0):
    return os.pread(files[key], length, offset)


def wait_once(files, key, restart):
    """A wait by the plain system call, which Python does not repeat; its errno. SIGALRM is handled meanwhile."""
    seen = []
    signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
    signal.siginterrupt(signal.SIGALRM, not restart)
    libc = ctypes.CDLL(None, use_errno=True)
    lock = ctypes.create_string_buffer(_FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0), _FLOCK.size)
    done = libc.fcntl(files[key], fcntl.F_SETLKW, lock)
    return (0 if done == 0 else ctypes.get_errno()), len(seen)


def wait_for_flock_once(files, key):
    signal.signal(signal.SIGALRM, lambda *_: None)
    libc = ctypes.CDLL(None, use_errno=True)
    return 0 if libc.flock(files[key], fcntl.LOCK_EX) == 0 else ctypes.get_errno()


def close_and_try(_, path, times):
    """How often a lock was still held when its descriptor had been closed."""
    held = 0
    for turn in range(times):
        first, second = os.open(path, os.O_RDWR), os.open(path, os.O_RDWR)
        files = {"first": first, "second": second}
        act, mode = ((flock, fcntl.LOCK_EX), (open_record, fcntl.F_WRLCK))[turn % 2]
        act(files, "first", mode)
        os.close(first)
        try:
            act(files, "second", mode)
        except BlockingIOError:
            held += 1
        os.close(second)
    return held


class Worker:
    """A process that does one thing after the other. `stop()` kills it."""

    def __init__(self):
        self._pipe, theirs = multiprocessing.Pipe()
        self.pid = os.fork()
        if self.pid == 0:
            self._pipe.close()
            self._serve(theirs)
        theirs.close()
        self._reaped = False

    @staticmethod
    def _serve(pipe):
        files = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        try:
            while True:
                function, arguments = pipe.recv()
                try:
                    answer = ("value", function(files, *arguments))
                except OSError as error:
                    answer = ("errno", error.errno)
                pipe.send(answer)
        except EOFError:
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)

    def begin(self, function, *arguments):
        self._pipe.send((function, arguments))

    def is_waiting(self, seconds=_WAIT):
        """Whether it asks for its lock, and is not answered for so long."""
        wait_until(lambda: self.has_outcome() or self._is_in_a_lock_call(), 20, f"{self.pid} to ask for its lock")
        return not self._pipe.poll(seconds)

    def has_outcome(self):
        return self._pipe.poll(0)

    def _is_in_a_lock_call(self):
        return pathlib.Path(f"/proc/{self.pid}/syscall").read_text().split()[0] in _LOCK_CALLS

    def outcome(self, seconds=10):
        """What it returned; an OSError is raised here again."""
        if not self._pipe.poll(seconds):
            raise AssertionError(f"worker {self.pid} waits still")
        kind, value = self._pipe.recv()
        if kind == "errno":
            raise OSError(value, os.strerror(value))
        return value

    def do(self, function, *arguments):
        self.begin(function, *arguments)
        return self.outcome()

    def can(self, function, *arguments):
        """Whether it is done, or refused with EAGAIN."""
        try:
            self.do(function, *arguments)
        except BlockingIOError:
            return False
        return True

    def fork(self):
        """A child of it has what it has open, and waits for ever."""
        return self.do(_fork_sleeper)

    def kill(self, seconds=10):
        """kill -9; it must not be kept by what it waits for."""
        os.kill(self.pid, signal.SIGKILL)
        wait_until(self._is_reaped, seconds, "the killed worker to end")

    def _is_reaped(self):
        self._reaped = self._reaped or os.waitpid(self.pid, os.WNOHANG)[0] != 0
        return self._reaped

    def stop(self):
        self._pipe.close()
        if not self._reaped:
            self.kill()


def _fork_sleeper(files):
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    return child


def end_child(files, child):
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


class Locking:
    """What holds on a local disk and on a mount. `self.mounted` is where the files are."""

    def make_files(self, directory):
        (directory / "file").write_bytes(b"x" * 1000)
        (directory / "other").write_bytes(b"y" * 1000)
        (directory / "large").write_bytes(self.random.randbytes(_LARGE))
        os.chmod(directory / "large", 0o666)

    def worker(self, *names, flags=os.O_RDWR):
        """With these files of the mount open, by their names."""
        worker = self.begin(Worker())
        for name in names:
            worker.do(open_file, name, self.mounted / name, flags)
        return worker

    def two(self):
        return self.worker("file"), self.worker("file")

    def assert_fails(self, number, act, *arguments):
        with self.assertRaises(OSError) as raised:
            act(*arguments)
        self.assertEqual(errno.errorcode[raised.exception.errno], errno.errorcode[number])

    # ---- Records.

    def test_ranges_exclude_each_other_as_their_modes_say(self):
        first, second = self.two()
        first.do(record, "file", fcntl.LOCK_EX, 100, 50)
        self.assertFalse(second.can(record, "file", fcntl.LOCK_SH, 149, 1))
        self.assertFalse(second.can(record, "file", fcntl.LOCK_EX, 0, 0))
        self.assertTrue(second.can(record, "file", fcntl.LOCK_EX, 150, 50))
        self.assertTrue(second.can(record, "file", fcntl.LOCK_SH, 0, 100))
        self.assertTrue(first.can(record, "file", fcntl.LOCK_SH, 0, 100))
        self.assertFalse(first.can(record, "file", fcntl.LOCK_EX, 0, 1), "the other reads it")
        first.do(record, "file", fcntl.LOCK_UN, 100, 50)
        self.assertTrue(second.can(record, "file", fcntl.LOCK_EX, 100, 50))

    def test_a_lock_that_changes_its_mode_lets_others_in(self):
        first, second = self.two()
        first.do(record, "file", fcntl.LOCK_EX)
        second.begin(record, "file", fcntl.LOCK_SH, 10, 10, True)
        self.assertTrue(second.is_waiting())
        first.do(record, "file", fcntl.LOCK_SH)
        second.outcome()
        self.assertFalse(first.can(record, "file", fcntl.LOCK_EX))
        second.do(record, "file", fcntl.LOCK_UN)
        self.assertTrue(first.can(record, "file", fcntl.LOCK_EX))

    def test_what_is_unlocked_in_the_middle_splits_a_lock(self):
        first, second = self.two()
        first.do(record, "file", fcntl.LOCK_EX)
        first.do(record, "file", fcntl.LOCK_UN, 100, 100)
        self.assertEqual(second.do(in_the_way, "file"), ("exclusive", 0, 100, first.pid))
        self.assertEqual(second.do(in_the_way, "file", fcntl.F_RDLCK, 100, 500), ("exclusive", 200, 0, first.pid))
        self.assertTrue(second.can(record, "file", fcntl.LOCK_EX, 100, 100))
        second.do(record, "file", fcntl.LOCK_UN)
        first.do(record, "file", fcntl.LOCK_EX, 100, 100)
        self.assertEqual(second.do(in_the_way, "file", fcntl.F_RDLCK, 500, 1), ("exclusive", 0, 0, first.pid))

    def test_who_asks_is_told_who_is_in_the_way(self):
        first, second = self.two()
        self.assertIsNone(second.do(in_the_way, "file"))
        first.do(record, "file", fcntl.LOCK_SH, 5, 10)
        self.assertEqual(second.do(in_the_way, "file"), ("shared", 5, 10, first.pid))
        self.assertIsNone(second.do(in_the_way, "file", fcntl.F_RDLCK))
        self.assertIsNone(first.do(in_the_way, "file"), "one's own is in nobody's way")

    def test_waiters_get_it_one_after_the_other(self):
        first, *others = (self.worker("file") for _ in range(6))
        first.do(record, "file", fcntl.LOCK_EX, 0, 10)
        for worker in others:
            worker.begin(record, "file", fcntl.LOCK_EX, 5, 10, True)
            self.assertTrue(worker.is_waiting(0.1))
        first.do(record, "file", fcntl.LOCK_UN)
        for worker in others:
            wait_until(worker.has_outcome, 10, "the next in line")
            worker.outcome()
            self.assertEqual(sum(each.has_outcome() for each in others), 0, "one at a time")
            worker.do(record, "file", fcntl.LOCK_UN)

    def test_many_waiters_leave_the_filesystem_free(self):
        holder = self.worker("file")
        holder.do(record, "file", fcntl.LOCK_EX)
        waiters = [self.worker("file") for _ in range(40)]
        for number, worker in enumerate(waiters):
            worker.begin(record, "file", fcntl.LOCK_SH if number % 2 else fcntl.LOCK_EX, 0, 0, True)
        self.assertTrue(waiters[-1].is_waiting())
        self.assertEqual((self.mounted / "other").read_bytes(), b"y" * 1000)
        (self.mounted / "new").write_bytes(b"new")
        self.assertIn("new", os.listdir(self.mounted))
        holder.kill()
        for _ in range(len(waiters)):
            served = next(worker for worker in _until_one(waiters))
            served.outcome()
            waiters.remove(served)
            served.do(record, "file", fcntl.LOCK_UN)

    def test_a_signal_that_is_handled_ends_a_wait(self):
        first, second = self.two()
        first.do(record, "file", fcntl.LOCK_EX)
        second.begin(wait_once, "file", False)
        self.assertTrue(second.is_waiting())
        os.kill(second.pid, signal.SIGALRM)
        self.assertEqual(second.outcome(), (errno.EINTR, 1))
        first.do(record, "file", fcntl.LOCK_UN)
        self.assertTrue(first.can(record, "file", fcntl.LOCK_EX), "the ended wait left nothing behind")

    def test_a_handler_that_restarts_calls_goes_on_to_wait(self):
        first, second = self.two()
        first.do(record, "file", fcntl.LOCK_EX)
        second.begin(wait_once, "file", True)
        self.assertTrue(second.is_waiting())
        for _ in range(3):
            os.kill(second.pid, signal.SIGALRM)
            self.assertTrue(second.is_waiting(0.1))
        first.do(record, "file", fcntl.LOCK_UN)
        done, handled = second.outcome()
        self.assertEqual(done, 0)
        self.assertGreaterEqual(handled, 1)
        self.assertFalse(first.can(record, "file", fcntl.LOCK_SH))

    def test_who_is_stopped_and_continued_waits_on(self):
        first, second = self.two()
        first.do(record, "file", fcntl.LOCK_EX)
        second.begin(record, "file", fcntl.LOCK_EX, 0, 0, True)
        self.assertTrue(second.is_waiting())
        os.kill(second.pid, signal.SIGSTOP)
        time.sleep(0.1)
        os.kill(second.pid, signal.SIGCONT)
        self.assertTrue(second.is_waiting())
        first.do(record, "file", fcntl.LOCK_UN)
        second.outcome()

    def test_a_waiter_can_be_killed(self):
        first, second = self.two()
        for kind in (record, flock):
            first.do(kind, "file", fcntl.LOCK_EX)
            waiter = self.worker("file")
            waiter.begin(kind, "file", fcntl.LOCK_EX, *((0, 0, True) if kind is record else (True,)))
            self.assertTrue(waiter.is_waiting())
            waiter.kill(3)
            first.do(kind, "file", fcntl.LOCK_UN)
            self.assertTrue(second.can(kind, "file", fcntl.LOCK_EX))
            second.do(kind, "file", fcntl.LOCK_UN)

    def test_a_killed_holder_holds_nothing(self):
        for kind in (record, flock):
            first, second = self.two()
            first.do(kind, "file", fcntl.LOCK_EX)
            second.begin(kind, "file", fcntl.LOCK_EX, *((0, 0, True) if kind is record else (True,)))
            self.assertTrue(second.is_waiting())
            first.kill()
            second.outcome(5)
            second.do(close, "file")

    def test_closing_any_descriptor_ends_the_records_of_a_process(self):
        first, second = self.two()
        first.do(record, "file", fcntl.LOCK_EX)
        first.do(open_file, "again", self.mounted / "file", os.O_RDONLY)
        self.assertFalse(second.can(record, "file", fcntl.LOCK_EX))
        first.do(close, "again")
        self.assertTrue(second.can(record, "file", fcntl.LOCK_EX))

    def test_records_are_not_inherited(self):
        first, second = self.two()
        first.do(record, "file", fcntl.LOCK_EX)
        child = first.fork()
        first.do(end_child, child)
        self.assertFalse(second.can(record, "file", fcntl.LOCK_SH), "the child closed only its own")
        child = first.fork()
        first.do(record, "file", fcntl.LOCK_UN)
        self.assertTrue(second.can(record, "file", fcntl.LOCK_EX))
        first.do(end_child, child)

    def test_who_would_wait_for_himself_is_told(self):
        workers = [self.worker("file", "other") for _ in range(3)]
        places = [("file", 0), ("other", 0), ("file", 10)]
        for worker, (name, start) in zip(workers, places):
            worker.do(record, name, fcntl.LOCK_EX, start, 1)
        for worker, (name, start) in zip(workers[:2], places[1:]):
            worker.begin(record, name, fcntl.LOCK_EX, start, 1, True)
            self.assertTrue(worker.is_waiting())
        self.assert_fails(errno.EDEADLK, workers[2].do, record, "file", fcntl.LOCK_SH, 0, 1, True)
        workers[2].do(record, "file", fcntl.LOCK_UN)
        workers[1].outcome()
        workers[1].do(close, "other")
        workers[0].outcome()

    def test_a_lock_needs_a_descriptor_of_its_mode(self):
        reader, writer = self.worker("file", flags=os.O_RDONLY), self.worker("file", flags=os.O_WRONLY)
        self.assert_fails(errno.EBADF, reader.do, record, "file", fcntl.LOCK_EX)
        self.assert_fails(errno.EBADF, writer.do, record, "file", fcntl.LOCK_SH)
        self.assertTrue(reader.can(flock, "file", fcntl.LOCK_EX), "flock(2) does not mind")

    # ---- Of open files.

    def test_flock_is_of_the_open_file_whoever_has_it(self):
        first, second = self.two()
        first.do(flock, "file", fcntl.LOCK_EX)
        first.do(duplicate, "file", "copy")
        first.do(open_file, "again", self.mounted / "file")
        self.assertFalse(first.can(flock, "again", fcntl.LOCK_SH), "another open of one process")
        child = first.fork()
        first.do(close, "again")
        first.do(close, "file")
        first.do(close, "copy")
        self.assertFalse(second.can(flock, "file", fcntl.LOCK_SH), "the child has it still")
        first.do(end_child, child)
        self.assertTrue(second.can(flock, "file", fcntl.LOCK_EX))

    def test_flock_changes_by_any_copy(self):
        first, second = self.two()
        first.do(flock, "file", fcntl.LOCK_EX)
        first.do(duplicate, "file", "copy")
        first.do(flock, "copy", fcntl.LOCK_SH)
        self.assertTrue(second.can(flock, "file", fcntl.LOCK_SH))
        self.assertFalse(first.can(flock, "file", fcntl.LOCK_EX))
        second.do(flock, "file", fcntl.LOCK_UN)
        first.do(flock, "copy", fcntl.LOCK_UN)
        self.assertTrue(second.can(flock, "file", fcntl.LOCK_EX))

    def test_flock_that_does_not_get_another_mode_has_none(self):
        first, second = self.two()
        third = self.worker("file")
        first.do(flock, "file", fcntl.LOCK_SH)
        second.do(flock, "file", fcntl.LOCK_SH)
        self.assertFalse(first.can(flock, "file", fcntl.LOCK_EX))
        self.assertTrue(second.can(flock, "file", fcntl.LOCK_EX), "the first gave his up")
        self.assertFalse(third.can(flock, "file", fcntl.LOCK_SH))

    def test_flock_and_records_do_not_see_each_other(self):
        first, second = self.two()
        first.do(flock, "file", fcntl.LOCK_EX)
        self.assertTrue(second.can(record, "file", fcntl.LOCK_EX))
        self.assertFalse(second.can(flock, "file", fcntl.LOCK_SH))
        self.assertFalse(first.can(record, "file", fcntl.LOCK_SH))

    def test_a_signal_ends_a_wait_for_flock(self):
        first, second = self.two()
        first.do(flock, "file", fcntl.LOCK_EX)
        second.begin(wait_for_flock_once, "file")
        self.assertTrue(second.is_waiting())
        os.kill(second.pid, signal.SIGALRM)
        self.assertEqual(second.outcome(), errno.EINTR)

    def test_records_of_an_open_file_end_with_it(self):
        first, second = self.two()
        first.do(open_record, "file", fcntl.F_WRLCK, 10, 10)
        first.do(duplicate, "file", "copy")
        first.do(open_file, "again", self.mounted / "file")
        self.assertFalse(first.can(record, "again", fcntl.LOCK_SH, 10, 1), "not even the process itself")
        first.do(close, "again")
        first.do(close, "file")
        self.assertFalse(second.can(open_record, "file", fcntl.F_RDLCK, 10, 1))
        self.assertEqual(second.do(in_the_way, "file").start, 10)
        first.do(close, "copy")
        self.assertTrue(second.can(open_record, "file", fcntl.F_WRLCK, 0, 0))

    def test_a_close_that_returned_has_ended_the_lock(self):
        """Also where the filesystem is told of the last close after that."""
        workers = [self.begin(Worker()) for _ in range(3)]
        for number, worker in enumerate(workers):
            path = self.mounted / f"own {number}"
            path.write_bytes(b"")
            worker.begin(close_and_try, path, 1000)
        for worker in workers:
            # The engine is given 100 ms to hear of the close, which a busy machine can exceed now and then.
            self.assertLessEqual(worker.outcome(100), 5)

    # ---- Programs.

    def test_bytes_that_are_guarded_by_a_lock_are_counted_right(self):
        (self.mounted / "counter").write_bytes(b"0" * 8)
        workers = [self.worker("counter") for _ in range(4)]
        for kind in (count_by_records, count_by_flock):
            before = int((self.mounted / "counter").read_bytes())
            for worker in workers:
                worker.begin(kind, "counter", 50)
            for worker in workers:
                worker.outcome(60)
            self.assertEqual(int((self.mounted / "counter").read_bytes()) - before, 200)

    def test_sqlite_with_several_writers(self):
        for journal in ("delete", "wal"):
            path = self.mounted / f"database {journal}"
            with contextlib.closing(sqlite3.connect(path)) as database:
                self.assertEqual(database.execute(f"pragma journal_mode={journal}").fetchone()[0], journal)
                database.execute("create table t (who integer, number integer)")
                database.execute("create table sum (value integer)")
                database.execute("insert into sum values (0)")
                database.commit()
            workers = [self.begin(Worker()) for _ in range(3)]
            for number, worker in enumerate(workers):
                worker.begin(fill_database, path, number, 25)
            for worker in workers:
                worker.outcome(300)
            with contextlib.closing(sqlite3.connect(path)) as database:
                self.assertEqual(database.execute("select count(*), (select value from sum) from t").fetchone(),
                                 (75, 75))
                self.assertEqual(database.execute("pragma integrity_check").fetchone()[0], "ok")


def _until_one(workers):
    """Yields a worker that has an outcome."""
    ready = []

    def find():
        ready.extend(worker for worker in workers if worker.has_outcome())
        return bool(ready)

    wait_until(find, 10, "one of the waiters to be served")
    yield ready[0]


def _count(files, key):
    value = int(os.pread(files[key], 8, 0)) + 1
    os.pwrite(files[key], b"%08d" % value, 0)


def count_by_records(files, key, times):
    for _ in range(times):
        fcntl.lockf(files[key], fcntl.LOCK_EX)
        _count(files, key)
        fcntl.lockf(files[key], fcntl.LOCK_UN)


def count_by_flock(files, key, times):
    for _ in range(times):
        fcntl.flock(files[key], fcntl.LOCK_EX)
        _count(files, key)
        fcntl.flock(files[key], fcntl.LOCK_UN)


def fill_database(_, path, who, times):
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=90)) as database:
        for number in range(times):
            database.execute("begin immediate")
            database.execute("insert into t values (?, ?)", (who, number))
            value = database.execute("select value from sum").fetchone()[0]
            database.execute("update sum set value = ?", (value + 1,))
            database.execute("commit")


class OnALocalDisk(Locking, Case):
    """What the mount is measured by: should one of these fail, the test is wrong."""

    def setUp(self):
        super().setUp()
        self.mounted = self.directory / "local"
        self.mounted.mkdir()
        self.make_files(self.mounted)


class OnNfs(Locking, MountedCase):

    def fill(self):
        self.make_files(self.export)

    def test_random_locks_end_as_on_a_local_disk(self):
        local = self.directory / "local"
        local.mkdir()
        self.make_files(local)
        workers = [self.begin(Worker()) for _ in range(4)]
        for worker in workers:
            for name in ("file", "other", "second file"):
                for place, directory in (("mount", self.mounted), ("disk", local)):
                    worker.do(open_file, f"{place} {name}", directory / name.split()[-1])
        for step in range(2500):
            worker, act, words = self.random_step(workers)
            outcomes = []
            for place in ("mount", "disk"):
                name, *rest = words
                try:
                    outcomes.append(worker.do(act, f"{place} {name}", *rest))
                except OSError as error:
                    outcomes.append(errno.errorcode[error.errno])
            self.assertEqual(*outcomes, f"step {step}: {workers.index(worker)} {act.__name__} {words}")
            if act is close:
                for place, directory in (("mount", self.mounted), ("disk", local)):
                    worker.do(open_file, f"{place} {words[0]}", directory / words[0].split()[-1])

    def random_step(self, workers):
        worker, pick = self.random.choice(workers), self.random.choice
        name = pick(["file", "file", "other", "second file"])
        start, length = self.random.randrange(30), self.random.randrange(12)
        mode = pick([fcntl.LOCK_SH, fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_UN])
        kind = pick([fcntl.F_RDLCK, fcntl.F_WRLCK])
        act = self.random.choices([record, flock, in_the_way, close], [60, 15, 25, 5])[0]
        words = {record: (name, mode, start, length), flock: (name, mode), close: (name,),
                 in_the_way: (name, kind, start, length)}
        return worker, act, words[act]

    # ---- Two nodes of one file.

    def open_in_passthrough(self):
        """A worker that has the large file open, and the kernel its bytes from the cache."""
        self.settle()
        status = self.larder.status()["mounts"][0]
        if status["passthrough_trouble"]:
            self.skipTest(status["passthrough_trouble"])
        reader = self.begin(Worker())

        def opens():
            let_pages_go(self.mounted / "large")  # else nobody asks the engine for what it does not have
            (self.mounted / "large").read_bytes()
            before = self.larder.status()["mounts"][0]["opens_passthrough"]
            reader.do(open_file, "large", self.mounted / "large", os.O_RDONLY)
            if self.larder.status()["mounts"][0]["opens_passthrough"] > before:
                return True
            reader.do(close, "large")
            return False

        wait_until(opens, 60, "the file to be open in passthrough")
        return reader

    def test_a_reader_in_passthrough_and_a_writer_lock_one_file(self):
        reader = self.open_in_passthrough()
        reader.do(record, "large", fcntl.LOCK_SH, 0, 100)
        reader.do(flock, "large", fcntl.LOCK_SH)
        writer, late = self.worker("large"), self.worker("large", flags=os.O_RDONLY)
        self.assertFalse(writer.can(record, "large", fcntl.LOCK_EX, 99, 1))
        self.assertTrue(writer.can(record, "large", fcntl.LOCK_EX, 100, 1))
        self.assertFalse(reader.can(record, "large", fcntl.LOCK_SH, 100, 1))
        self.assertEqual(writer.do(in_the_way, "large"), ("shared", 0, 100, reader.pid))
        self.assertEqual(reader.do(in_the_way, "large", fcntl.F_RDLCK), ("exclusive", 100, 1, writer.pid))
        self.assertFalse(writer.can(flock, "large", fcntl.LOCK_EX))
        self.assertTrue(late.can(flock, "large", fcntl.LOCK_SH))
        late.do(close, "large")
        writer.begin(flock, "large", fcntl.LOCK_EX, True)
        self.assertTrue(writer.is_waiting())
        reader.do(close, "large")
        writer.outcome()
        self.assertTrue(writer.can(record, "large", fcntl.LOCK_EX))
        self.assertEqual(writer.do(write, "large", b"written"), 7)

    def test_a_killed_reader_in_passthrough_holds_nothing(self):
        reader = self.open_in_passthrough()
        reader.do(record, "large", fcntl.LOCK_SH)
        writer = self.worker("large")
        writer.begin(record, "large", fcntl.LOCK_EX, 0, 0, True)
        self.assertTrue(writer.is_waiting())
        reader.kill()
        writer.outcome()

    def test_a_deadlock_of_two_nodes_is_found(self):
        reader = self.open_in_passthrough()
        reader.do(record, "large", fcntl.LOCK_SH, 0, 1)
        writer = self.worker("large")
        writer.do(record, "large", fcntl.LOCK_EX, 1, 1)
        reader.begin(record, "large", fcntl.LOCK_SH, 1, 1, True)
        self.assertTrue(reader.is_waiting())
        self.assert_fails(errno.EDEADLK, writer.do, record, "large", fcntl.LOCK_EX, 0, 1, True)

    # ---- Trouble.

    def test_a_lock_does_not_wait_for_the_server_when_its_holder_is_killed(self):
        first, second = self.two()
        first.do(record, "file", fcntl.LOCK_EX)
        self.proxy.hold_calls("WRITE")
        first.do(write, "file", b"not there yet")
        second.begin(record, "file", fcntl.LOCK_EX, 0, 0, True)
        self.assertTrue(second.is_waiting())
        os.kill(first.pid, signal.SIGKILL)
        second.outcome(5)
        self.proxy.wait_until_held(1)
        self.proxy.release("WRITE")

    def test_locks_need_no_server(self):
        first, second = self.two()
        self.server.freeze()
        first.do(record, "file", fcntl.LOCK_EX, 0, 10)
        self.assertFalse(second.can(record, "file", fcntl.LOCK_SH))
        self.assertEqual(second.do(in_the_way, "file").pid, first.pid)
        first.do(record, "file", fcntl.LOCK_UN)
        self.assertTrue(second.can(record, "file", fcntl.LOCK_SH))
        self.server.thaw()

    def test_a_removed_file_is_locked_by_those_who_have_it_open(self):
        first, second = self.two()
        (self.mounted / "file").unlink()
        (self.mounted / "file").write_bytes(b"another")
        third = self.worker("file")
        first.do(record, "file", fcntl.LOCK_EX)
        self.assertFalse(second.can(record, "file", fcntl.LOCK_SH))
        self.assertTrue(third.can(record, "file", fcntl.LOCK_EX))

    def test_a_mount_that_is_aborted_ends_waits(self):
        first, second = self.two()
        first.do(record, "file", fcntl.LOCK_EX)
        second.begin(record, "file", fcntl.LOCK_EX, 0, 0, True)
        self.assertTrue(second.is_waiting())
        abort_fuse(self.mounted)
        with self.assertRaises(OSError):
            second.outcome(5)
        engine = self.larder.engine_pid()
        for worker in (first, second):
            worker.kill()
        self.larder.umount(self.mounted)
        self.mount()
        self.assertEqual(self.larder.engine_pid(), engine, "the engine is the same")
        third = self.worker("file")
        self.assertTrue(third.can(record, "file", fcntl.LOCK_EX))

    def test_the_engine_keeps_nothing_of_locks_that_are_over(self):
        worker, other = self.two()
        for number in range(20_000):
            if number % 2000 == 0:
                worker.do(record, "file", fcntl.LOCK_UN)
            worker.do(record, "file", fcntl.LOCK_EX, 3 * number, 1)
        self.assertFalse(other.can(record, "file", fcntl.LOCK_SH))
        worker.do(close, "file")
        self.assertTrue(other.can(record, "file", fcntl.LOCK_EX))


class LeftToTheKernel(MountedCase):
    """Mounts whose locks we hear nothing of."""

    make_files, worker = Locking.make_files, Locking.worker
    open_in_passthrough = OnNfs.open_in_passthrough

    def fill(self):
        self.make_files(self.export)

    def assert_locks(self, flags):
        """Processes that have one node of a file open keep each other out."""
        first, second = self.worker("file", flags=flags), self.worker("file", flags=flags)
        first.do(flock, "file", fcntl.LOCK_EX)
        self.assertFalse(second.can(flock, "file", fcntl.LOCK_SH))
        second.begin(flock, "file", fcntl.LOCK_EX, True)
        self.assertTrue(second.is_waiting())
        first.do(close, "file")
        second.outcome()
        return second, self.worker("file", flags=flags)

    def test_a_read_only_mount(self):
        self.larder.umount(self.mounted)
        self.mount("ro")
        first, second = self.assert_locks(os.O_RDONLY)
        first.do(record, "file", fcntl.LOCK_SH)
        self.assertTrue(second.can(record, "file", fcntl.LOCK_SH))
        self.assertIsNone(second.do(in_the_way, "file", fcntl.F_RDLCK))

    def test_a_mount_with_local_lock(self):
        self.larder.umount(self.mounted)
        self.mount("local_lock")
        first, second = self.assert_locks(os.O_RDWR)
        first.do(record, "file", fcntl.LOCK_EX, 0, 10)
        self.assertFalse(second.can(record, "file", fcntl.LOCK_SH))
        self.assertEqual(second.do(in_the_way, "file"), ("exclusive", 0, 10, first.pid))

    def test_with_local_lock_two_nodes_of_a_file_have_locks_of_their_own(self):
        self.larder.umount(self.mounted)
        self.mount("local_lock")
        reader = self.open_in_passthrough()
        reader.do(record, "large", fcntl.LOCK_SH)
        writer = self.worker("large")
        self.assertTrue(writer.can(record, "large", fcntl.LOCK_EX), "what docs/writing.md warns of")

    def test_an_unknown_value_is_refused(self):
        self.larder.umount(self.mounted)
        self.assertIn("local_lock=flock", self.larder.refusal(
            *self.larder.mount_words(self.proxy.url(), self.directory / "mnt", "local_lock=flock")))


if __name__ == "__main__":
    main()
