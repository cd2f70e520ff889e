"""Writing: what is done to the mount is done at the server, and nobody sees anything else meanwhile."""

import contextlib
import errno
import fcntl
import mmap
import multiprocessing
import os
import pathlib
import stat
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import files, larder
from harness.case import Case, main
from harness.ganesha import Export
from harness.larder import Larder
from harness.loopfs import LoopFs
from harness.mounted_case import MountedCase
from harness.processes import TookTooLong, wait_until
from harness.users import as_user
from harness.writable_case import WritableCase

_KIB, _MIB = 1 << 10, 1 << 20
_ALICE, _BOB, _GROUP = 61001, 61002, 62000


def _write(path, content):
    path.write_bytes(content)


def _append_records(path, letter, count):
    """`count` lines, each by one write(2), to a file that others append to as well."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        for number in range(count):
            os.write(fd, b"%c %05d\n" % (letter, number))
    finally:
        os.close(fd)


class Everything:
    """Each operation, with the server's directory compared. `self.mounted` is a view of `self.export`."""

    is_root = True  # the server may make devices and give files away

    def make_old(self):
        """What the tests begin with."""
        self.content = self.random.randbytes(300_000)
        (self.export / "old").write_bytes(self.content)
        (self.export / "small").write_bytes(b"small")
        (self.export / "directory").mkdir()

    def assert_same(self):
        self.assert_same_tree(self.export, self.mounted)

    def test_each_kind_of_file_is_made(self):
        mounted = self.mounted
        (mounted / "new").write_bytes(b"text")
        (mounted / "new directory").mkdir(mode=0o750)
        (mounted / "new directory/inner").write_bytes(self.content)
        os.symlink("../some where", mounted / "link")
        os.link(mounted / "old", mounted / "directory/second")
        os.mkfifo(mounted / "fifo", 0o640)
        os.mknod(mounted / "socket", stat.S_IFSOCK | 0o600)
        if self.is_root:
            os.mknod(mounted / "character", stat.S_IFCHR | 0o600, os.makedev(240, 7))
            os.mknod(mounted / "block", stat.S_IFBLK | 0o600, os.makedev(241, 1000))
        os.mknod(mounted / "regular", stat.S_IFREG | 0o400)
        self.assertEqual((self.export / "new").read_bytes(), b"text")
        self.assertEqual((self.export / "new directory/inner").read_bytes(), self.content)
        self.assertEqual(os.stat(mounted / "old").st_nlink, 2)
        self.assert_same()

    def test_what_is_there_is_not_made_again(self):
        for make in (lambda path: os.mkdir(path), lambda path: os.symlink("x", path),
                     lambda path: os.mkfifo(path), lambda path: os.link(self.mounted / "old", path),
                     lambda path: os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR))):
            with self.assertRaises(FileExistsError):
                make(self.mounted / "small")
        os.close(os.open(self.mounted / "small", os.O_CREAT | os.O_RDWR))
        self.assertEqual((self.export / "small").read_bytes(), b"small")

    def test_names_go_and_move(self):
        mounted = self.mounted
        os.rename(mounted / "small", mounted / "directory/moved")
        self.assertEqual((mounted / "directory/moved").read_bytes(), b"small")
        self.assertFalse((mounted / "small").exists())
        (mounted / "new").write_bytes(b"new")
        os.rename(mounted / "new", mounted / "directory/moved")
        self.assertEqual((mounted / "directory/moved").read_bytes(), b"new")
        self.assertEqual(os.listdir(self.export / "directory"), ["moved"])
        with self.assertRaises(OSError) as raised:
            os.rmdir(mounted / "directory")
        self.assertEqual(raised.exception.errno, errno.ENOTEMPTY)
        os.unlink(mounted / "directory/moved")
        os.rmdir(mounted / "directory")
        self.assertEqual(os.listdir(self.export), ["old"])
        with self.assertRaises(FileNotFoundError):
            os.unlink(mounted / "directory")
        self.assert_same()

    def write_somewhere(self, fd):
        """Random bytes at a random place, also behind the end; `content` follows."""
        offset = self.random.randrange(len(self.content) + 5000)
        data = self.random.randbytes(self.random.choice([1, 100, 4096, 70_000]))
        self.assertEqual(os.pwrite(fd, data, offset), len(data))
        self.content = self.content.ljust(offset, b"\0")
        self.content = self.content[:offset] + data + self.content[offset + len(data):]

    def test_what_write_answered_everybody_here_sees(self):
        with open(self.mounted / "old", "r+b", buffering=0) as file, \
             open(self.mounted / "old", "rb", buffering=0) as other:
            for _ in range(50):
                self.write_somewhere(file.fileno())
                self.assertEqual(os.stat(self.mounted / "old").st_size, len(self.content))
                self.assertEqual(os.pread(other.fileno(), len(self.content) + 1, 0), self.content)
            os.pwrite(file.fileno(), b"last", 0)
            self.content = b"last" + self.content[4:]
            wait_until(lambda: (self.export / "old").read_bytes() == self.content, 20, "the bytes to go by themselves")
        self.assertEqual((self.export / "old").read_bytes(), self.content)

    def test_what_was_answered_arrives_though_the_connection_is_cut(self):
        fd = os.open(self.mounted / "old", os.O_RDWR)
        try:
            os.pwrite(fd, b"not synced", 0)
            larder.abort_fuse(self.mounted)
        finally:
            with self.assertRaises(OSError):
                os.close(fd)
        self.content = b"not synced" + self.content[10:]
        wait_until(lambda: (self.export / "old").read_bytes() == self.content, 20, "the bytes to be there")

    def test_bytes_are_at_the_server_when_a_synchronous_write_returns(self):
        with open(os.open(self.mounted / "old", os.O_RDWR | os.O_SYNC), "r+b", buffering=0) as file:
            for _ in range(50):
                self.write_somewhere(file.fileno())
                self.assertEqual((self.export / "old").read_bytes(), self.content)
                self.assertEqual(os.fstat(file.fileno()).st_size, len(self.content))
            self.assertEqual(os.pread(file.fileno(), len(self.content) + 1, 0), self.content)
            os.fsync(file.fileno())
        self.assertEqual((self.mounted / "old").read_bytes(), self.content)
        larder.drop_page_cache()
        self.assertEqual((self.mounted / "old").read_bytes(), self.content)

    def test_many_megabytes_arrive(self):
        content = self.random.randbytes(20 * _MIB + 12_345)
        (self.mounted / "large").write_bytes(content)
        self.assertEqual((self.export / "large").read_bytes(), content)
        larder.drop_page_cache()
        self.assertEqual((self.mounted / "large").read_bytes(), content)

    def test_two_processes_append_without_losing_a_line(self):
        (self.mounted / "log").write_bytes(b"")
        count = 200
        children = []
        for letter in b"ab":
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    _append_records(self.mounted / "log", letter, count)
                    status = 0
                finally:
                    os._exit(status)
            children.append(child)
        for child in children:
            self.assertEqual(os.waitpid(child, 0)[1], 0)
        lines = (self.export / "log").read_bytes().splitlines()
        self.assertEqual(sorted(lines), sorted(b"%c %05d" % (letter, number)
                                               for letter in b"ab" for number in range(count)))
        self.assertEqual((self.mounted / "log").read_bytes().splitlines(), lines)

    def test_a_file_is_cut_and_stretched(self):
        with open(self.mounted / "old", "r+b", buffering=0) as file:
            os.ftruncate(file.fileno(), 100_001)
            self.assertEqual((self.export / "old").read_bytes(), self.content[:100_001])
            os.ftruncate(file.fileno(), 200_000)
            expected = self.content[:100_001].ljust(200_000, b"\0")
            self.assertEqual((self.export / "old").read_bytes(), expected)
            self.assertEqual(os.pread(file.fileno(), 300_000, 0), expected)
        os.truncate(self.mounted / "old", 5)
        self.assertEqual((self.mounted / "old").read_bytes(), self.content[:5])
        open(self.mounted / "old", "wb").close()
        self.assertEqual((self.export / "old").read_bytes(), b"")
        self.assert_same()

    def test_attributes_are_set_to_the_nanosecond(self):
        path = self.mounted / "old"
        os.chmod(path, 0o604)
        if self.is_root:
            os.chown(path, _ALICE, _GROUP)
        os.utime(path, ns=(1_000_000_000_123_456_789, 1_100_000_000_987_654_321))
        for side in (self.mounted, self.export):
            status = os.stat(side / "old")
            self.assertEqual(stat.S_IMODE(status.st_mode), 0o604)
            if self.is_root:
                self.assertEqual((status.st_uid, status.st_gid), (_ALICE, _GROUP))
            self.assertEqual((status.st_atime_ns, status.st_mtime_ns),
                             (1_000_000_000_123_456_789, 1_100_000_000_987_654_321))
        self.assertEqual(path.read_bytes(), self.content)
        os.utime(path)
        self.assertGreater(os.stat(path).st_mtime, 1_200_000_000)
        os.chmod(self.mounted / "directory", 0o1777)
        self.assert_same()

    def test_suid_goes_when_somebody_without_the_right_writes(self):
        # A server that does not take them off by itself lets only the owner do it.
        path, writer = self.mounted / "old", _ALICE if self.is_root else _BOB
        if self.is_root:
            os.chown(path, _ALICE, _ALICE)
        for name, change in (("append", self._append_as), ("cut", self._cut_as)):
            os.chmod(path, 0o6777)
            self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o6777)
            as_user(writer, writer, [], change, path)
            self.assertEqual(stat.S_IMODE(os.stat(self.export / "old").st_mode), 0o777, name)
            self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o777, name)

    @staticmethod
    def _append_as(path):
        with open(path, "ab") as file:
            file.write(b"more")

    @staticmethod
    def _cut_as(path):
        os.truncate(path, 10)

    def test_an_open_file_outlives_its_name(self):
        with open(self.mounted / "old", "r+b", buffering=0) as file:
            os.unlink(self.mounted / "old")
            self.assertFalse((self.mounted / "old").exists())
            self.assertEqual(os.pread(file.fileno(), 400_000, 0), self.content)
            os.pwrite(file.fileno(), b"still", 0)
            self.assertEqual(os.pread(file.fileno(), 10, 0), b"still" + self.content[5:10])
        self.assert_nothing_hidden()

    def test_a_file_that_was_renamed_over_is_read_on(self):
        with open(self.mounted / "old", "rb", buffering=0) as file:
            self.assertEqual(os.pread(file.fileno(), 10, 0), self.content[:10])
            (self.mounted / "new").write_bytes(b"new")
            os.rename(self.mounted / "new", self.mounted / "old")
            self.assertEqual((self.mounted / "old").read_bytes(), b"new")
            larder.drop_clean_pages()
            self.assertEqual(os.pread(file.fileno(), 400_000, 0), self.content)
        self.assert_nothing_hidden()

    def assert_nothing_hidden(self):
        """After the last close no .nfs... name is left; RELEASE comes a moment after close(2)."""
        wait_until(lambda: not list(self.export.glob(".nfs*")), 10, "the hidden name to go")

    def test_what_a_mapping_changes_arrives(self):
        with open(self.mounted / "old", "r+b") as file, mmap.mmap(file.fileno(), 0) as view:
            view[100_000:100_004] = b"here"
            view[0:5] = b"there"
            view.flush()
            expected = bytearray(self.content)
            expected[100_000:100_004] = b"here"
            expected[0:5] = b"there"
            self.assertEqual((self.export / "old").read_bytes(), bytes(expected))
            view[7:8] = b"!"
            expected[7:8] = b"!"
        with open(self.mounted / "old", "rb") as file:
            os.fsync(file.fileno())
        self.assertEqual((self.export / "old").read_bytes(), bytes(expected))

    def test_a_reader_sees_what_a_writer_wrote(self):
        with open(self.mounted / "small", "rb", buffering=0) as reader, \
                open(self.mounted / "small", "r+b", buffering=0) as writer:
            for number in range(100):
                line = b"%05d" % number
                os.pwrite(writer.fileno(), line, 0)
                self.assertEqual(os.pread(reader.fileno(), 5, 0), line)

    def test_who_reads_from_the_cache_keeps_what_he_opened(self):
        self.assertEqual((self.mounted / "old").read_bytes(), self.content)  # into the cache
        with open(self.mounted / "old", "rb", buffering=0) as reader:
            with open(self.mounted / "old", "r+b", buffering=0) as writer:
                os.pwrite(writer.fileno(), b"changed", 0)
                seen = os.pread(reader.fileno(), 7, 0)
                self.assertIn(seen, (b"changed", self.content[:7]))
            self.assertEqual((self.mounted / "old").read_bytes()[:7], b"changed")

    def test_direct_io_arrives(self):
        buffer = mmap.mmap(-1, 3 * _MIB)
        buffer[:] = content = self.random.randbytes(3 * _MIB)
        fd = os.open(self.mounted / "direct", os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_DIRECT)
        try:
            self.assertEqual(os.write(fd, buffer), len(content))
            self.assertEqual(os.write(fd, buffer), len(content))
        finally:
            os.close(fd)
        self.assertEqual((self.export / "direct").read_bytes(), content + content)

    def test_what_nfs_does_not_have(self):
        with open(self.mounted / "old", "r+b", buffering=0) as file:
            os.posix_fallocate(file.fileno(), 0, 400_000)  # which writes where it must
            self.assertEqual(os.fstat(file.fileno()).st_size, 400_000)
            self.assertEqual(os.lseek(file.fileno(), 0, os.SEEK_HOLE), 400_000)
            with open(self.mounted / "copy", "wb", buffering=0) as copy:
                self.assertEqual(os.copy_file_range(file.fileno(), copy.fileno(), 1000, 0), 1000)
        self.assertEqual((self.export / "copy").read_bytes(), self.content[:1000])

    def test_locks_exclude(self):
        with open(self.mounted / "small", "r+b") as first, open(self.mounted / "small", "r+b") as second:
            fcntl.flock(first, fcntl.LOCK_EX)
            with self.assertRaises(BlockingIOError):
                fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def test_threads_write_their_own_parts(self):
        parts = [self.random.randbytes(_MIB) for _ in range(8)]
        fd = os.open(self.mounted / "parts", os.O_CREAT | os.O_RDWR)

        def write(number):
            for start in range(0, _MIB, 64 * _KIB):
                os.pwrite(fd, parts[number][start:start + 64 * _KIB], number * _MIB + start)

        try:
            threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            os.fsync(fd)
        finally:
            os.close(fd)
        self.assertEqual((self.export / "parts").read_bytes(), b"".join(parts))


class OnNfs(Everything, MountedCase):

    def fill(self):
        self.make_old()

    def test_nothing_is_asked_again_that_the_answers_told(self):
        with self.proxy.counting() as seen:
            (self.mounted / "new").write_bytes(b"x" * 100_000)
        self.assertEqual(seen["CREATE"], 1)
        self.assertEqual(seen["WRITE"] + seen["COMMIT"], 1, "one call that needs no other")
        self.assertLessEqual(seen["GETATTR"] + seen["LOOKUP"] + seen["ACCESS"], 4)

    def test_what_close_confirmed_survives_the_server(self):
        content = self.random.randbytes(3 * _MIB)
        (self.mounted / "new").write_bytes(content)
        self.server.restart()
        self.assertEqual((self.export / "new").read_bytes(), content)
        self.assertEqual((self.mounted / "new").read_bytes(), content)

    def test_writing_goes_on_after_the_server_restarted(self):
        first, second = self.random.randbytes(_MIB), self.random.randbytes(_MIB)
        go_on, is_written = multiprocessing.Event(), multiprocessing.Event()

        # In a process of its own: each start of a program closes copies of all descriptors, and
        # that of the server would wait for the server.
        def write():
            with open(self.mounted / "new", "wb", buffering=0) as file:
                file.write(first)
                is_written.set()
                go_on.wait()
                file.write(second)

        writer = multiprocessing.get_context("fork").Process(target=write)
        writer.start()
        self.assertTrue(is_written.wait(20))
        self.server.restart()
        go_on.set()
        writer.join(30)
        self.assertEqual(writer.exitcode, 0)
        self.assertEqual((self.export / "new").read_bytes(), first + second)


class BesideMappings(WritableCase):
    """Linux clears the rest of a page when it writes back what a mapping changed, up to where it takes the file to end."""

    ROUNDS = 10

    def append_and_read(self, fd, data):
        os.write(fd, data)
        self.seen = os.pread(fd, 1 << 20, 0)

    def both_are_held(self, path):
        """An append, and behind it the page of the mapping. False: the kernel wrote the page back by itself before."""
        with open(path, "r+b", buffering=0) as file, mmap.mmap(file.fileno(), 100) as view:
            fd = os.open(path, os.O_RDWR | os.O_APPEND)
            self.addCleanup(os.close, fd)
            view[0:3] = b"map"
            self.proxy.hold_calls("WRITE")
            appender = threading.Thread(target=self.append_and_read, args=(fd, b"y" * 8000))
            flusher = threading.Thread(target=files.write_back, args=(file.fileno(), 100))
            try:
                appender.start()
                wait_until(lambda: self.proxy.held() == 1, 10, "the appended bytes to be on their way")
                flusher.start()
                wait_until(lambda: self.proxy.held() == 2, 3, "the page to be on its way, too")
                return True
            except TookTooLong:
                return False
            finally:
                self.proxy.heal()  # before the file is closed, which waits for the page
                self.proxy.release()
                appender.join(20)
                if flusher.ident is not None:
                    flusher.join(20)

    def test_what_is_appended_while_a_page_is_written_back_is_there_at_once(self):
        rounds = 0
        for attempt in range(4 * self.ROUNDS):
            path = self.mounted / f"file{attempt}"
            path.write_bytes(b"x" * 100)
            rounds += self.both_are_held(path)
            self.assertEqual(self.seen, b"map" + b"x" * 97 + b"y" * 8000)
            self.assertEqual((self.export / path.name).read_bytes(), self.seen)
            if rounds == self.ROUNDS:
                return
        self.fail(f"the kernel wrote the page back before in all but {rounds} attempts")


class OnALocalDirectory(Everything, Case):
    """The engine works with its own rights there: the directory belongs to its user."""

    is_root = False

    def setUp(self):
        super().setUp()
        self.export = self.directory / "export"
        self.export.mkdir()
        self.make_old()
        self.larder = self.begin(Larder(self.directory / "larder"))
        self.mounted = self.larder.mount(str(self.export), self.directory / "mnt")
        engine = os.stat(f"/proc/{self.larder.engine_pid()}")
        for path in (self.export, *self.export.iterdir()):
            os.chown(path, engine.st_uid, engine.st_gid)
        self.larder.umount(self.mounted)  # what it was told of the owners is out of date
        self.larder.mount(str(self.export), self.mounted)

    def test_what_was_just_written_is_not_fetched(self):
        sizes = (100, 60_000, 3 * _MIB)

        def fetched():
            return self.larder.status()["mounts"][0]["bytes_from_server"]

        def fetched_of_new_files(attempt):
            contents = {f"new{attempt}.{size}": self.random.randbytes(size) for size in sizes}
            for name, content in contents.items():
                (self.mounted / name).write_bytes(content)
            time.sleep(0.3)  # for the cache's disk; but in two seconds the server is asked once more
            before = fetched()
            for name, content in contents.items():
                self.assertEqual((self.mounted / name).read_bytes(), content)
            return fetched() - before

        # A machine that is slow now will not be so each time.
        self.assertTrue(any(fetched_of_new_files(attempt) == 0 for attempt in range(10)))


class ReadOnly(MountedCase):

    options = "ro"

    def fill(self):
        self.write("file", b"content")

    def test_every_change_is_refused(self):
        file, new = self.mounted / "file", self.mounted / "new"
        ways = [lambda: open(file, "r+b").close(), lambda: open(new, "wb").close(),
                lambda: os.truncate(file, 0), lambda: os.mkdir(new), lambda: os.unlink(file),
                lambda: os.rename(file, new), lambda: os.symlink("x", new), lambda: os.link(file, new),
                lambda: os.mkfifo(new), lambda: os.chmod(file, 0o777), lambda: os.utime(file),
                lambda: os.chown(file, 1, 1)]
        for number, way in enumerate(ways):
            with self.subTest(number), self.assertRaises(OSError) as raised:
                way()
            self.assertEqual(raised.exception.errno, errno.EROFS)
        self.assertEqual(self.read("file"), b"content")
        self.assertTrue(os.statvfs(self.mounted).f_flag & os.ST_RDONLY)


class FullServer(MountedCase):

    def setUp(self):
        self._disk = None
        super().setUp()

    def fill(self):
        self._disk = self.begin(LoopFs(self.directory / "disk", 16 * _MIB))
        self.export.rmdir()
        self.export.symlink_to(self._disk.mountpoint)

    def serve(self, *exports, **options):
        return super().serve(Export(self._disk.mountpoint), **options)

    def test_a_full_disk_is_told_by_write_or_close(self):
        (self.mounted / "kept").write_bytes(b"kept")
        with self.assertRaises(OSError) as raised:
            with open(self.mounted / "large", "wb", buffering=0) as file:
                for _ in range(32):
                    file.write(bytes(_MIB))
        self.assertEqual(raised.exception.errno, errno.ENOSPC)
        os.unlink(self.mounted / "large")
        (self.mounted / "after").write_bytes(b"after")
        self.assertEqual((self._disk.mountpoint / "after").read_bytes(), b"after")
        self.assertEqual(self.read("kept"), b"kept")


class Users(MountedCase):

    def fill(self):
        for name, mode in (("alice", 0o600), ("group", 0o660), ("everybody", 0o666), ("to read", 0o644)):
            path = self.write(name, b"before")
            os.chown(path, _ALICE, _GROUP)
            os.chmod(path, mode)
        home = self.export / "home"
        home.mkdir()
        os.chown(home, _ALICE, _ALICE)
        os.chmod(home, 0o755)
        common = self.export / "common"
        common.mkdir()
        os.chmod(common, 0o1777)

    def assert_writes(self, uid, groups, name):
        as_user(uid, uid, groups, _write, self.mounted / name, b"%d" % uid)
        self.assertEqual((self.export / name).read_bytes(), b"%d" % uid)

    def assert_refused(self, uid, groups, function, *arguments):
        with self.assertRaises(PermissionError):
            as_user(uid, uid, groups, function, *arguments)

    def test_modes_decide_who_writes(self):
        self.assert_writes(_ALICE, [], "alice")
        self.assert_refused(_BOB, [], _write, self.mounted / "alice", b"bob")
        self.assert_refused(_BOB, [], _write, self.mounted / "to read", b"bob")
        self.assert_refused(_BOB, [], _write, self.mounted / "group", b"bob")
        self.assert_writes(_BOB, [_GROUP], "group")
        self.assert_writes(_BOB, [], "everybody")
        self.assertEqual((self.export / "alice").read_bytes(), b"%d" % _ALICE)

    def test_what_is_made_belongs_to_who_made_it(self):
        as_user(_BOB, _BOB, [], _write, self.mounted / "common/file", b"bob's")
        as_user(_BOB, _BOB, [], os.mkdir, self.mounted / "common/directory")
        as_user(_BOB, _BOB, [], os.symlink, "x", self.mounted / "common/link")
        for name in ("file", "directory", "link"):
            for side in (self.export, self.mounted):
                status = os.lstat(side / "common" / name)
                self.assertEqual((status.st_uid, status.st_gid), (_BOB, _BOB), name)
        self.assert_refused(_ALICE, [], os.unlink, self.mounted / "common/file")  # sticky

    def test_directories_and_owners_decide_about_names_and_attributes(self):
        self.assert_refused(_BOB, [], _write, self.mounted / "home/file", b"bob")
        self.assert_refused(_BOB, [], os.chmod, self.mounted / "everybody", 0o777)
        self.assert_refused(_BOB, [], os.chown, self.mounted / "everybody", _BOB, _BOB)
        as_user(_ALICE, _ALICE, [], os.chmod, self.mounted / "everybody", 0o640)
        self.assert_refused(_BOB, [], _write, self.mounted / "everybody", b"bob")
        as_user(_ALICE, _ALICE, [], _write, self.mounted / "home/file", b"alice's")
        self.assertEqual((self.export / "home/file").read_bytes(), b"alice's")

    def test_what_is_removed_while_open_goes_though_its_remover_has_lost_the_right_to(self):
        common = self.mounted / "common"
        as_user(_ALICE, _ALICE, [], _write, common / "file", b"alice's")
        with open(common / "file", "rb"):
            os.chmod(common, 0o777)
            as_user(_BOB, _BOB, [], os.unlink, common / "file")
            os.chmod(common, 0o1777)  # and not his any more
        wait_until(lambda: not list((self.export / "common").iterdir()), 10, "the hidden name to go")

    def test_who_makes_a_file_that_he_may_not_open_writes_to_it(self):
        def make_and_write(path):
            fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o400)
            os.write(fd, b"once")
            os.close(fd)

        as_user(_ALICE, _ALICE, [], make_and_write, self.mounted / "home/once")
        self.assertEqual((self.export / "home/once").read_bytes(), b"once")


class RemovedWhileOpen(WritableCase):
    """A file that was removed, and is open still when its mount ends."""

    def fill(self):
        self.write("file", b"content")
        self.write("other", b"other")

    def setUp(self):
        super().setUp()
        self.held = open(self.mounted / "file", "rb", buffering=0)  # pylint: disable=consider-using-with
        self.addCleanup(self.close)
        os.unlink(self.mounted / "file")
        self.assertEqual(len(self.hidden()), 1)

    def close(self):
        with contextlib.suppress(OSError):  # its mount is over
            self.held.close()

    def hidden(self):
        return list(self.export.glob(".nfs*"))

    def assert_only_the_other_is_left(self):
        wait_until(lambda: not self.hidden(), 20, "the hidden name to go")
        self.assertEqual(os.listdir(self.export), ["other"])

    def test_the_next_engine_removes_what_a_dead_one_left(self):
        self.larder.kill_engine()
        self.larder.forget_dead_mounts()
        self.assertEqual(len(self.hidden()), 1)
        self.mount()
        self.assert_only_the_other_is_left()

    def test_a_mount_to_read_changes_nothing_at_the_server(self):
        self.larder.kill_engine()
        self.larder.forget_dead_mounts()
        self.mount("ro")
        self.assertEqual(self.read("other"), b"other")
        self.assertEqual(len(self.hidden()), 1)
        self.larder.umount(self.mounted)
        self.mount()
        self.assert_only_the_other_is_left()

    def test_a_mount_beside_it_leaves_it_alone(self):
        self.larder.mount(self.proxy.url(), self.directory / "beside")
        self.assertEqual((self.directory / "beside/other").read_bytes(), b"other")
        self.assertEqual(len(self.hidden()), 1)
        self.assertEqual(os.pread(self.held.fileno(), 100, 0), b"content")

    def test_a_stop_by_force_removes_it(self):
        self.larder.run("stop", "--force")
        self.assert_only_the_other_is_left()
        self.mount()
        self.assertEqual(self.read("other"), b"other")

    def test_lazily_unmounted_it_is_there_until_its_last_close(self):
        self.larder.run("umount", "-l", self.mounted)
        self.assertEqual(os.pread(self.held.fileno(), 100, 0), b"content")
        self.assertEqual(len(self.hidden()), 1)
        self.held.close()
        self.assert_only_the_other_is_left()


class SquashedRoot(MountedCase):

    def fill(self):
        self.write("file", b"before")
        os.chmod(self.export / "file", 0o644)
        os.chmod(self.export, 0o755)

    def serve(self, *exports, **options):
        return super().serve(Export(self.export, squash="Root_Squash"), **options)

    def test_root_is_refused_what_the_server_refuses(self):
        for way in (lambda: (self.mounted / "file").write_bytes(b"root"),
                    lambda: (self.mounted / "new").write_bytes(b"root"),
                    lambda: os.unlink(self.mounted / "file"), lambda: os.mkdir(self.mounted / "new")):
            with self.assertRaises(PermissionError):
                way()
        self.assertEqual((self.export / "file").read_bytes(), b"before")


if __name__ == "__main__":
    main()
