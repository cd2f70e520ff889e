"""Stalls: a call that the server does not answer stops only who needs it; a lost answer changes nothing twice."""

import contextlib
import errno
import os
import pathlib
import signal
import stat
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness.case import main
from harness.job import Job
from harness.processes import wait_until
from harness.writable_case import WritableCase

_MIB = 1 << 20


def write_synchronously(path):
    with open(os.open(path, os.O_WRONLY | os.O_SYNC), "wb", buffering=0) as file:
        file.write(b"written")


def write_pieces_and_sync(path):
    """More than one piece: so that a COMMIT is needed."""
    with open(path, "r+b", buffering=0) as file:
        file.write(bytes(3 * _MIB))
        os.fsync(file.fileno())


def make_exclusively(path):
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640))


def list_with_attributes(path):
    with os.scandir(path) as listing:
        return sorted((entry.name, entry.stat(follow_symlinks=False).st_size) for entry in listing)


def read_bytes(path):
    return path.read_bytes()


# What stalls: the procedure, and what a program does in a directory of its own that waits for it.
_STALLING = {
    "WRITE": lambda held: write_synchronously(held / "file"),
    "WRITE of close": lambda held: (held / "file").write_bytes(b"written"),
    "COMMIT": lambda held: write_pieces_and_sync(held / "file"),
    "CREATE": lambda held: os.close(os.open(held / "new", os.O_CREAT | os.O_WRONLY)),
    "CREATE exclusive": lambda held: make_exclusively(held / "new"),
    "MKDIR": lambda held: os.mkdir(held / "new"),
    "SYMLINK": lambda held: os.symlink("to", held / "new"),
    "MKNOD": lambda held: os.mkfifo(held / "new"),
    "LINK": lambda held: os.link(held / "file", held / "new"),
    "REMOVE": lambda held: os.unlink(held / "file"),
    "RMDIR": lambda held: os.rmdir(held / "empty"),
    "RENAME": lambda held: os.rename(held / "file", held / "new"),
    "SETATTR": lambda held: os.chmod(held / "file", 0o600),
    "SETATTR of size": lambda held: os.truncate(held / "file", 3),
    "READ": lambda held: read_bytes(held / "file"),
    "READDIRPLUS": lambda held: list_with_attributes(held),
    "READLINK": lambda held: os.readlink(held / "link"),
    "LOOKUP": lambda held: (held / "not there").exists(),
    "ACCESS": lambda held: os.close(os.open(held / "file", os.O_RDONLY)),
    "FSSTAT": os.statvfs,
}


class StallCase(WritableCase):
    """Directories of their own for each thing that is held; one for those who are not to wait."""

    def fill(self):
        self.large, self.small = self.random.randbytes(2 * _MIB), self.random.randbytes(3000)
        self.write("cached/large", self.large)
        self.write("cached/small", self.small)
        self.write("others/file", b"before")
        for number in range(2 * len(_STALLING)):
            self.write(f"held{number}/file", b"content " * 20_000)
            (self.export / f"held{number}/empty").mkdir()
            os.symlink("to", self.export / f"held{number}/link")

    def setUp(self):
        super().setUp()
        self.settle()
        for _ in range(2):
            self.read("cached/large")
            self.read("cached/small")
        self.again = self.larder.mount(self.proxy.url(), self.directory / "again")
        os.listdir(self.again)

    # What nobody else's stall may stop.

    def read_cached(self):
        self.assertTrue(self.read("cached/large") == self.large)
        self.assertTrue(self.read("cached/small") == self.small)

    def change_files(self, others):
        path = others / f"made{time.monotonic_ns()}"
        path.write_bytes(b"first")
        with open(path, "r+b", buffering=0) as file:
            file.write(b"FIRST")
            os.fsync(file.fileno())
            os.ftruncate(file.fileno(), 3)
        self.assertEqual(path.read_bytes(), b"FIR")
        os.chmod(path, 0o600)
        os.unlink(path)

    @staticmethod
    def change_names(others):
        directory = others / f"directory{time.monotonic_ns()}"
        directory.mkdir()
        (directory / "a").touch()
        os.rename(directory / "a", directory / "b")
        os.link(directory / "b", directory / "c")
        os.symlink("c", directory / "d")
        list_with_attributes(directory)
        for name in "bcd":
            os.unlink(directory / name)
        directory.rmdir()

    def assert_others_proceed(self):
        jobs = [Job("reading what is cached", self.read_cached),
                Job("changing files", self.change_files, self.mounted / "others"),
                Job("changing names", self.change_names, self.mounted / "others"),
                Job("statvfs", os.statvfs, self.mounted),
                Job("changing files on another mount", self.change_files, self.again / "others"),
                Job("changing names on another mount", self.change_names, self.again / "others"),
                Job("reading on another mount", read_bytes, self.again / "cached/large")]
        for job in jobs:
            job.result()


class OneCall(StallCase):

    def stalled(self, hold):
        """For each kind of call: it is held, the others proceed, it goes on and ends well."""
        for number, (what, action) in enumerate(_STALLING.items()):
            with self.subTest(what):
                procedure, held = what.split()[0], self.mounted / f"held{number}"
                # Known beforehand, so that the call in question is the first one.
                os.listdir(self.mounted)
                for name in ("file", "empty", "link"):
                    if what != "READDIRPLUS":
                        os.lstat(held / name)
                hold(procedure, count=1)
                job = Job(what, action, held)
                try:
                    self.proxy.wait_until_held(1)
                    self.assert_others_proceed()
                    self.assertFalse(job.is_over(), "it should wait")
                    self.assertEqual(self.proxy.held(), 1)
                finally:
                    self.proxy.release()
                job.result()
                self.assert_same_tree(self.export / held.name, held)

    def test_a_call_that_does_not_arrive(self):
        self.stalled(self.proxy.hold_calls)

    def test_an_answer_that_does_not_come(self):
        self.stalled(self.proxy.hold_replies)

    def test_gathered_bytes_that_do_not_arrive_stop_nobody(self):
        """write(2) was answered: its program can go on, also to other places of the file."""
        content = (self.export / "held0/file").read_bytes()
        with open(self.mounted / "held0/file", "r+b", buffering=0) as file:
            self.proxy.hold_calls("WRITE", count=1)
            os.pwrite(file.fileno(), b"new", 0)
            self.proxy.wait_until_held(1)
            self.assert_others_proceed()
            writing = Job("writing elsewhere in the file", os.pwrite, file.fileno(), b"next", 100_000)
            self.assertEqual(writing.result(), 4)
            self.proxy.release()
        self.assertTrue((self.export / "held0/file").read_bytes()
                        == b"new" + content[3:100_000] + b"next" + content[100_004:])


class ManyCalls(StallCase):

    EACH = 18

    def test_many_that_wait_hold_up_nobody_who_does_not(self):
        """More than the engine has threads, of several kinds at once."""
        kinds = {"WRITE": "WRITE of close", "MKDIR": "MKDIR", "SETATTR": "SETATTR", "REMOVE": "REMOVE"}
        directories = [f"many{number}" for number in range(self.EACH * len(kinds))]
        for name in directories:
            self.write(f"{name}/file", b"before")
        for name in directories:
            os.lstat(self.mounted / name / "file")
        remaining, jobs = list(directories), []
        try:
            for procedure, what in kinds.items():
                self.proxy.hold_calls(procedure, count=self.EACH)
                for _ in range(self.EACH):
                    jobs.append(Job(what, _STALLING[what], self.mounted / remaining.pop()))
                # Before the next kind is held: who writes cuts the file off first, by a SETATTR.
                self.proxy.wait_until_held(len(jobs), 30)
            for _ in range(3):
                self.assert_others_proceed()
            self.assertEqual([job.name for job in jobs if job.is_over()], [])
        finally:
            self.proxy.release()
        for job in jobs:
            job.result()
        for name in directories:
            self.assert_same_tree(self.export / name, self.mounted / name)


_WAITING = """
import os, sys
path = sys.argv[2]
print("begun", flush=True)
if sys.argv[1] == "MKDIR":
    os.mkdir(path + "/new")
elif sys.argv[1] == "REMOVE":
    os.unlink(path + "/file")
elif sys.argv[1] == "CREATE":
    os.open(path + "/new", os.O_CREAT | os.O_WRONLY)
else:
    fd = os.open(path + "/file", os.O_WRONLY)
    os.write(fd, b"written")
    os.fsync(fd)
"""


class Killed(StallCase):
    """Who waits for a server that does not answer can be killed; nothing is half done then."""

    # A change that nobody waited for any more is seen like another client's: the kernel believes for this long
    # that there is no such name.
    options = "acdirmin=1,acdirmax=1"

    def killed(self, procedure, held):
        self.proxy.hold_calls(procedure, count=1)
        child = subprocess.Popen([sys.executable, "-c", _WAITING, procedure, held], stdout=subprocess.PIPE)
        try:
            self.assertEqual(child.stdout.readline(), b"begun\n")
            self.proxy.wait_until_held(1)
            child.send_signal(signal.SIGKILL)
            wait_until(lambda: child.poll() is not None, 5, "the process to die")
            self.assert_others_proceed()
        finally:
            self.proxy.release()
            child.kill()
            child.wait()
            child.stdout.close()
        wait_until(lambda: self.is_settled(held), 10, "mount and server to agree")

    def is_settled(self, held):
        """The call may have been carried out or not; what is seen is what is there, and changes work."""
        before = self.shows_what_is_there(held)
        self.change_names(held)
        return before and self.shows_what_is_there(held)

    def shows_what_is_there(self, held):
        try:
            return list_with_attributes(held) == list_with_attributes(self.export / held.name)
        except FileNotFoundError:
            return False  # it came meanwhile, and the kernel believes for a moment that it is not there

    def test_who_waits_for_bytes_to_arrive(self):
        self.killed("WRITE", self.mounted / "held0")
        self.assertEqual(len((self.export / "held0/file").read_bytes()), 160_000)

    def test_who_waits_for_a_name_to_be_made(self):
        self.killed("MKDIR", self.mounted / "held1")

    def test_who_waits_for_a_file_to_be_made(self):
        self.killed("CREATE", self.mounted / "held2")

    def test_who_waits_for_a_name_to_be_removed(self):
        self.killed("REMOVE", self.mounted / "held3")


# Changes that must not be done twice: the procedure, the call, and what is then at the server.
_ONCE = {
    "MKDIR": (lambda d: os.mkdir(d / "new", 0o750), lambda d: stat.S_IMODE(os.stat(d / "new").st_mode) == 0o750),
    "RMDIR": (lambda d: os.rmdir(d / "empty"), lambda d: not (d / "empty").exists()),
    "REMOVE": (lambda d: os.unlink(d / "file"), lambda d: not (d / "file").exists()),
    "RENAME": (lambda d: os.rename(d / "file", d / "other"), lambda d: (d / "other").read_bytes() == b"file"
               and not (d / "file").exists()),
    "RENAME to a new name": (lambda d: os.rename(d / "file", d / "new"), lambda d: (d / "new").read_bytes() == b"file"
                             and not (d / "file").exists()),
    "RENAME of a directory": (lambda d: os.rename(d / "empty", d / "new"), lambda d: (d / "new").is_dir()
                              and not (d / "empty").exists()),
    "LINK": (lambda d: os.link(d / "file", d / "new"), lambda d: os.stat(d / "file").st_nlink == 2
             and os.path.samefile(d / "file", d / "new")),
    "SYMLINK": (lambda d: os.symlink("over there", d / "new"), lambda d: os.readlink(d / "new") == "over there"),
    "MKNOD": (lambda d: os.mkfifo(d / "new", 0o640), lambda d: (d / "new").is_fifo()
              and stat.S_IMODE(os.stat(d / "new").st_mode) == 0o640),
    "CREATE": (lambda d: (d / "new").write_bytes(b"made"), lambda d: (d / "new").read_bytes() == b"made"),
    "CREATE exclusive": (lambda d: make_exclusively(d / "new"),
                         lambda d: stat.S_IMODE(os.stat(d / "new").st_mode) == 0o640
                         and os.stat(d / "new").st_size == 0),
}


class LostAnswers(WritableCase):
    """The server has done it, the answer is lost and the connection breaks: done once, and answered right."""

    def fill(self):
        for number in range(len(_ONCE)):
            self.write(f"{number}/file", b"file")
            self.write(f"{number}/other", b"other")
            (self.export / f"{number}/empty").mkdir()
        self.write("full/directory/inside", b"")
        (self.export / "full/empty").mkdir()
        os.umask(0o022)

    def in_spite_of_trouble(self, procedure, trouble, action, *arguments, meanwhile=None):
        """What `action` returns or raises, although the first answer is lost; and it was sent more than once.

        `meanwhile()` happens at the server before it gets the call.
        """
        with self.proxy.counting() as seen:
            if meanwhile is None:
                struck = self.lose_answer(procedure)
                job = Job(procedure, action, *arguments)
            else:
                self.proxy.hold_calls(procedure, count=1)
                job = Job(procedure, action, *arguments)
                self.proxy.wait_until_held(1)
                meanwhile()
                struck = self.lose_answer(procedure)
                self.proxy.release()
            wait_until(lambda: self.proxy.counts()["struck"] > struck or job.is_over(), 20, "the answer to be lost")
            self.assertFalse(job.is_over(), f"it did not need {procedure}")
            trouble()
            result = job.result()
        self.assertGreaterEqual(seen[procedure], 2)
        return result

    def lose_answer(self, procedure):
        """Of the next such call; how many messages were struck before."""
        self.proxy.drop_replies(procedure, count=1)
        return self.proxy.counts()["struck"]

    def each_once(self, trouble):
        for number, (what, (action, is_done)) in enumerate(_ONCE.items()):
            with self.subTest(what):
                directory = self.mounted / str(number)
                for name in ("file", "other", "empty", "new"):
                    with contextlib.suppress(FileNotFoundError):
                        os.lstat(directory / name)
                names = set(os.listdir(self.export / str(number)))
                self.in_spite_of_trouble(what.split()[0], trouble, action, directory)
                self.assertTrue(is_done(self.export / str(number)), "at the server")
                self.assertTrue(is_done(directory), "on the mount")
                self.assert_same_tree(self.export / str(number), directory)
                changed = names ^ set(os.listdir(self.export / str(number)))
                self.assertLessEqual(changed, {"new", "file", "empty"})

    def test_a_connection_that_breaks(self):
        self.each_once(self.proxy.cut_all)

    def test_a_server_that_restarts_and_has_forgotten_its_answers(self):
        self.each_once(self.server.restart)

    def test_a_removed_file_that_is_open_is_read_on(self):
        """Its name is changed instead: a RENAME, whose answer is lost."""
        with open(self.mounted / "0/file", "rb", buffering=0) as file:
            self.in_spite_of_trouble("RENAME", self.proxy.cut_all, os.unlink, self.mounted / "0/file")
            self.assertFalse((self.mounted / "0/file").exists())
            self.assertEqual(os.pread(file.fileno(), 100, 0), b"file")
        wait_until(lambda: sorted(os.listdir(self.export / "0")) == ["empty", "other"], 10, "the hidden name to go")

    def assert_still_refused(self, procedure, number, action, *arguments, meanwhile=None):
        with self.assertRaises(OSError) as raised:
            self.in_spite_of_trouble(procedure, self.proxy.cut_all, action, *arguments, meanwhile=meanwhile)
        self.assertEqual(raised.exception.errno, number)

    def test_what_the_server_refused_stays_refused(self):
        full, new = self.mounted / "full", self.mounted / "full/new"
        self.assert_still_refused("RMDIR", errno.ENOTEMPTY, os.rmdir, full / "directory")
        self.assertTrue((self.export / "full/directory/inside").exists())
        self.assert_still_refused("RENAME", errno.ENOTEMPTY, os.rename, full / "empty", full / "directory")
        self.assertTrue((self.export / "full/empty").is_dir())
        for procedure, action in (("MKDIR", lambda: os.mkdir(new)), ("SYMLINK", lambda: os.symlink("to", new)),
                                  ("MKNOD", lambda: os.mkfifo(new)), ("CREATE", lambda: make_exclusively(new)),
                                  ("LINK", lambda: os.link(full / "directory/inside", new))):
            with self.subTest(procedure):  # somebody else is faster
                self.assert_still_refused(procedure, errno.EEXIST, action,
                                          meanwhile=lambda: self.write("full/new", b"of somebody else"))
                self.assertEqual(new.read_bytes(), b"of somebody else")
                self.assertEqual((self.export / "full/new").read_bytes(), b"of somebody else")
                os.unlink(new)

    def test_writes_whose_answers_are_lost(self):
        content = self.random.randbytes(5 * _MIB)

        def write():
            with open(self.mounted / "large", "wb", buffering=0) as file:
                file.write(content)
                os.fsync(file.fileno())

        for procedure in ("WRITE", "COMMIT"):
            with self.subTest(procedure):
                self.in_spite_of_trouble(procedure, self.proxy.cut_all, write)
                self.assertTrue((self.export / "large").read_bytes() == content)
                os.unlink(self.mounted / "large")

    def test_appended_lines_stand_once(self):
        def append():
            with open(self.mounted / "0/file", "ab", buffering=0) as file:
                file.write(b"line\n")

        for _ in range(3):
            self.in_spite_of_trouble("WRITE", self.proxy.cut_all, append)
        self.assertEqual((self.export / "0/file").read_bytes(), b"file" + 3 * b"line\n")

    def test_a_truncation_cuts_nothing_that_came_after_it(self):
        def truncate_and_write():
            with open(self.mounted / "0/file", "wb", buffering=0) as file:
                file.write(b"new content")

        self.in_spite_of_trouble("SETATTR", self.proxy.cut_all, truncate_and_write)
        self.assertEqual((self.export / "0/file").read_bytes(), b"new content")


if __name__ == "__main__":
    main()
