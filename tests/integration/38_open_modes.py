"""Open modes: what one process of a machine sees of what another one does to a file that both have open."""

import contextlib
import errno
import functools
import mmap
import multiprocessing
import os
import pathlib
import shutil
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import files, larder
from harness.case import main
from harness.loopfs import LoopFs
from harness.processes import wait_until
from harness.writable_case import WritableCase

_fork = multiprocessing.get_context("fork")
_SIZES = {"small": 5_000, "partial": 1 << 20, "complete": 1 << 20}


class ModesCase(WritableCase):
    """Files whose open mode is known: small, large and partly cached, large and in passthrough."""

    def counts(self):
        return self.larder.status()["mounts"][0]

    def assert_opens_in_passthrough(self, path, seconds=60):
        """From now on; the cache's disk must have taken the whole file first."""
        def opens_so():
            files.let_pages_go(path)  # else nobody asks the engine for what it does not have
            before = self.counts()
            if before["passthrough_trouble"]:
                self.skipTest(before["passthrough_trouble"])
            path.read_bytes()
            return self.counts()["opens_passthrough"] > before["opens_passthrough"]

        wait_until(opens_so, seconds, f"{path.name} to be opened in passthrough")

    def bring_into(self, kind, *paths):
        """Requires that nothing of the export is young."""
        for path in paths:
            with open(path, "rb", buffering=0) as file:
                if kind == "partial":
                    os.pread(file.fileno(), 4096, _SIZES[kind] // 2)
                else:
                    files.read_all(file.fileno())
        if kind == "complete":
            for path in paths:
                self.assert_opens_in_passthrough(path)

    def bear_a_slow_disk(self, what, begin_again):
        """Does it once more where the cache's disk took over 5 s for what was put into a version that somebody holds:
        he is left with what he has then, as docs/writing.md says."""
        before = self.counts()["holders_left_behind"]
        try:
            what()
        except AssertionError:
            if self.counts()["holders_left_behind"] == before:
                raise
            begin_again()
            what()

    def assert_nothing_hidden(self):
        """After the last close no .nfs... name is left; RELEASE comes a moment after close(2)."""
        wait_until(lambda: not list(self.export.glob(".nfs*")), 10, "the hidden name to go")


class Reader:
    """Has a file open, and perhaps mapped; `seen()` is what it would find there now."""

    def __init__(self, path, by_mapping):
        self._fd = os.open(path, os.O_RDONLY)
        self._view = mmap.mmap(self._fd, 0, prot=mmap.PROT_READ) if by_mapping else None

    def size(self):
        return os.fstat(self._fd).st_size

    def end(self):
        return os.lseek(self._fd, 0, os.SEEK_END)

    def all_seen(self):
        """Of a mapping whose file was closed, and is as long as it was."""
        return self._view[:]

    def close_file(self):
        os.close(self._fd)
        self._fd = None

    def seen(self):
        if self._view is None:
            return files.read_all(self._fd)
        return self._view[:min(len(self._view), self.size())]  # behind the end there is SIGBUS

    def of(self, content):
        """What `seen()` is if the file holds this: a mapping does not grow."""
        return content if self._view is None else content[:len(self._view)]

    def let_pages_go(self):
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self):
        if self._view is not None:
            self._view.close()
        if self._fd is not None:
            self.close_file()


class Change:
    """Opens with `flags`; `apply(fd, old, new_bytes)` returns what the file holds afterwards."""

    def __init__(self, name, flags, apply):
        self.name, self.flags, self.apply = name, flags, apply


def _write(fd, old, some):
    new = bytearray(old)
    for offset in (0, len(old) // 2 - 3, len(old) - len(some) // 2):
        os.pwrite(fd, some, offset)
        new[offset:offset + len(some)] = some
    return bytes(new)


def _store(fd, old, some):
    new = bytearray(old)
    with mmap.mmap(fd, 0) as view:
        for offset in (0, len(old) // 2 - 3):
            view[offset:offset + len(some)] = some
            new[offset:offset + len(some)] = some
        view.flush()
    return bytes(new)


def _cut(fd, old, _):
    os.ftruncate(fd, len(old) // 3)
    return old[:len(old) // 3]


def _stretch(fd, old, _):
    os.ftruncate(fd, len(old) + 70_001)
    return old + bytes(70_001)


def _replace(fd, _, some):
    os.write(fd, some)
    return some


def _append(fd, old, some):
    os.write(fd, some)
    os.write(fd, some)
    return old + some + some


_CHANGES = (Change("write", os.O_RDWR, _write), Change("store", os.O_RDWR, _store),
            Change("cut", os.O_RDWR, _cut), Change("stretch", os.O_RDWR, _stretch),
            Change("replace", os.O_WRONLY | os.O_TRUNC, _replace),
            Change("append", os.O_WRONLY | os.O_APPEND, _append))


class ReaderAndWriter(ModesCase):
    """Each way to read against each way to change, for each kind of file, whoever is first.

    A reader sees each change at once, whenever he opened: both in one page cache, or the reader in passthrough, where
    the change is made to the file that he reads.
    """

    def fill(self):
        self.content = {kind: self.random.randbytes(size) for kind, size in _SIZES.items()}

    def each_cell(self, kind):
        cells = [(f"{kind}-{way}-{change.name}", way == "mapped", change)
                 for way in ("read", "mapped") for change in _CHANGES]
        for name, _, _ in cells:
            self.write(name, self.content[kind])
        self.settle()
        self.bring_into(kind, *(self.mounted / name for name, _, _ in cells))
        for name, by_mapping, change in cells:
            with self.subTest(name):
                yield name, by_mapping, change

    def assert_sees(self, reader, expected, who):
        for pages in ("pages kept", "pages dropped"):
            self.assertEqual(reader.size(), len(expected), f"size, {who}, {pages}")
            self.assertTrue(reader.seen() == reader.of(expected), f"bytes, {who}, {pages}")
            reader.let_pages_go()

    def change_under(self, reader, name, change, kind):
        """The change, with what all see at once, and after the last close; `reader` is None if he comes second."""
        path, old, some = self.mounted / name, self.content[kind], self.random.randbytes(100)
        by_mapping = "-mapped-" in name
        before = reader
        with contextlib.ExitStack() as at_end:
            writer = os.open(path, change.flags)
            closing = at_end.enter_context(contextlib.ExitStack())
            closing.callback(os.close, writer)
            if reader is None and not change.flags & os.O_TRUNC:  # of nothing there are no mappings
                before = Reader(path, by_mapping)
                self.assert_sees(before, old, "the second before the change")
            if before is not None:
                at_end.callback(before.close)
            new = change.apply(writer, old, some)
            if before is not None:
                self.assert_sees(before, new, "the one before the change")
            late = Reader(path, by_mapping)
            at_end.callback(late.close)
            self.assert_sees(late, new, "the one after the change")
            self.assertTrue(path.read_bytes() == new, "who opens beside the writer")
            closing.close()
            self.assert_sees(late, new, "the one after the change, after the close")
            if before is not None:
                self.assert_sees(before, new, "the one before, after the close")
        self.assertTrue(path.read_bytes() == new, "who opens after all closed")
        self.assertTrue((self.export / name).read_bytes() == new, "the server")

    def reader_first(self, kind):
        for name, by_mapping, change in self.each_cell(kind):
            self.bear_a_slow_disk(lambda: self.first_reader(name, by_mapping, change, kind),
                                  lambda: self.begin_again(kind, name))

    def begin_again(self, kind, name):
        self.write(name, self.content[kind])
        self.settle()
        self.bring_into(kind, self.mounted / name)

    def first_reader(self, name, by_mapping, change, kind):
        before = self.counts()
        with contextlib.closing(Reader(self.mounted / name, by_mapping)) as reader:
            self.assertEqual(self.counts()["opens_passthrough"] - before["opens_passthrough"], kind == "complete")
            self.assert_sees(reader, self.content[kind], "the first before the writer")
            self.change_under(reader, name, change, kind)
        self.assertEqual(self.counts()["bytes_shared"] > before["bytes_shared"],
                         kind == "complete" and change.name not in ("cut", "stretch"))

    def writer_first(self, kind):
        for name, _, change in self.each_cell(kind):
            self.bear_a_slow_disk(lambda: self.change_under(None, name, change, kind),
                                  lambda: self.begin_again(kind, name))

    def test_a_reader_of_a_small_file_sees_what_a_writer_does(self):
        self.reader_first("small")

    def test_a_reader_of_a_partly_cached_file_sees_what_a_writer_does(self):
        self.reader_first("partial")

    def test_a_reader_in_passthrough_sees_what_a_writer_does(self):
        """He reads the cache's file by himself: what is written is put there before write(2) returns."""
        self.reader_first("complete")

    def test_who_opens_a_small_file_beside_its_writer_sees_what_he_does(self):
        self.writer_first("small")

    def test_who_opens_a_partly_cached_file_beside_its_writer_sees_what_he_does(self):
        self.writer_first("partial")

    def test_who_opens_a_complete_file_beside_its_writer_sees_what_he_does(self):
        self.writer_first("complete")


class Writer:
    """Another process, which does to the file at `path` what it is told, and says what became of it."""

    def __init__(self, path):
        self._ours, theirs = _fork.Pipe()
        self._process = _fork.Process(target=self._serve, args=(path, theirs), daemon=True)
        self._process.start()
        theirs.close()

    @staticmethod
    def _serve(path, commands):
        fd = None
        with contextlib.suppress(EOFError):
            while True:
                name, *arguments = commands.recv()
                if name == "end":
                    break
                if name == "open":
                    fd = os.open(path, *arguments)
                elif name == "store":
                    offset, data = arguments
                    with mmap.mmap(fd, 0) as view:
                        view[offset:offset + len(data)] = data
                        view.flush()
                elif name == "truncate":
                    os.truncate(path, *arguments)
                else:
                    getattr(os, name)(fd, *arguments)
                commands.send("done")
        os._exit(0)  # nothing of the test's own is to be undone here

    def do(self, *command):
        """A function of `os` by the open file, or one of the above."""
        self._ours.send(command)
        if not self._ours.poll(60) or self._ours.recv() != "done":
            raise AssertionError(f"{command[0]} is not over")

    def stop(self):
        if self._ours.closed:
            return
        self._ours.send(("end",))
        self._process.join(10)
        self._ours.close()


def _bearing_a_slow_disk(test):
    """For tests without subtests, whose failures are not raised."""
    @functools.wraps(test)
    def twice_at_most(self):
        self.bear_a_slow_disk(lambda: test(self), self.begin_again)
    return twice_at_most


class ReaderInPassthrough(ModesCase):
    """He reads the cache's file by himself, and sees what another process writes, when write(2) returns."""

    def fill(self):
        self.content = self.random.randbytes(_SIZES["complete"])
        self.write("file", self.content)

    def setUp(self):
        super().setUp()
        self.path = self.mounted / "file"
        self.readers = []
        self._cleanup.defer(self.close_readers)
        self.open_all()

    def open_all(self):
        self.settle()
        self.bring_into("complete", self.path)
        self.writer = self.begin(Writer(self.path))  # has none of what is open from here on
        self.before = self.counts()
        self.readers = [Reader(self.path, by_mapping) for by_mapping in (False, True)]
        self.assertEqual(self.counts()["opens_passthrough"] - self.before["opens_passthrough"], 2)

    def begin_again(self):
        self.close_readers()
        self.writer.stop()
        self.write("file", self.content)
        self.open_all()

    def assert_nobody_was_left_behind(self):
        self.assertEqual(self.counts()["holders_left_behind"], self.before["holders_left_behind"])

    def close_readers(self):
        while self.readers:
            self.readers.pop().close()

    def assert_all_see(self, expected, after=""):
        for reader in self.readers:
            self.assertEqual(reader.size(), len(expected), after)
            self.assertEqual(reader.end(), len(expected), after)
            self.assertTrue(reader.seen() == reader.of(expected), after)

    def assert_all_see_the_server(self):
        self.assert_all_see((self.export / "file").read_bytes())

    @_bearing_a_slow_disk
    def test_each_way_to_change_a_file_is_seen(self):
        some = self.random.randbytes(70_000)
        steps = (("open", os.O_RDWR), ("pwrite", b"first", 0), ("pwrite", some, 500_000),
                 ("pwrite", some, len(self.content) - 10), ("store", 5000, some), ("ftruncate", 800_001),
                 ("ftruncate", 900_001), ("close",),
                 ("open", os.O_WRONLY | os.O_APPEND), ("write", some), ("write", b"last"), ("close",),
                 ("truncate", 300_003), ("truncate", 1_500_000),
                 ("open", os.O_WRONLY | os.O_TRUNC), ("write", some), ("write", some), ("fsync",), ("close",))
        for step in steps:
            self.writer.do(*step)
            self.assert_all_see((self.export / "file").read_bytes(), step[0])
        self.assertGreater(self.counts()["bytes_shared"] - self.before["bytes_shared"], 5 * len(some))
        self.assert_nobody_was_left_behind()

    @_bearing_a_slow_disk
    def test_random_writes_are_seen_each_by_each(self):
        expected = bytearray(self.content)
        self.writer.do("open", os.O_RDWR)
        for number in range(150):
            data = self.random.randbytes(self.random.choice((1, 700, 4096, 50_000, 300_000)))
            offset = self.random.randrange(len(expected) + 10_000)
            if number % 10 == 9:
                size = self.random.randrange(200_000, 1_200_000)
                self.writer.do("ftruncate", size)
                expected = expected[:size].ljust(size, b"\0")
            else:
                self.writer.do("pwrite", data, offset)
                expected = expected.ljust(offset, b"\0")
                expected[offset:offset + len(data)] = data
            self.assert_all_see(bytes(expected))
            if number % 50 == 49:  # another one goes on
                self.writer.do("close")
                self.assertTrue((self.export / "file").read_bytes() == expected)
                self.writer.do("open", os.O_RDWR)
        self.assert_nobody_was_left_behind()

    @_bearing_a_slow_disk
    def test_a_mapping_whose_file_was_closed_goes_on_to_see(self):
        self.readers.pop(0).close()
        mapping = self.readers[0]
        mapping.close_file()
        expected = bytearray(self.content)
        for seconds in (0, 12):  # while the file is registered still, and when it is not
            time.sleep(seconds)
            for offset in (0, 70_000):
                self.writer.do("open", os.O_RDWR)
                self.writer.do("pwrite", b"%d seconds later" % seconds, offset)
                self.writer.do("close")
                expected[offset:offset + len(b"%d seconds later" % seconds)] = b"%d seconds later" % seconds
                self.assertTrue(mapping.all_seen() == expected)

    def test_who_only_had_it_open_holds_up_no_writer(self):
        self.close_readers()
        self.writer.do("open", os.O_RDWR)
        self.writer.do("pwrite", b"first", 0)
        before = self.counts()["writes_gathered"]
        self.writer.do("pwrite", b"second", 0)
        self.assertEqual(self.counts()["writes_gathered"], before + 1)
        self.assert_nobody_was_left_behind()

    def test_the_version_of_before_another_clients_change_is_left_alone(self):
        self.write("file", self.random.randbytes(_SIZES["complete"]))
        self.writer.do("open", os.O_RDWR)
        self.writer.do("pwrite", b"ours", 10)
        self.assert_all_see(self.content)
        self.assertEqual(self.counts()["bytes_shared"], 0)

    def test_another_clients_change_between_ours_leaves_them_with_what_they_saw(self):
        for close_between in (False, True):
            with self.subTest(close_between=close_between):
                self.writer.do("open", os.O_RDWR)
                self.writer.do("pwrite", b"ours", 10)
                seen = self.readers[0].seen()
                if not close_between:
                    self.assert_all_see_the_server()
                else:
                    self.writer.do("close")
                self.write("file", self.random.randbytes(_SIZES["complete"]))
                if close_between:
                    self.writer.do("open", os.O_RDWR)
                self.writer.do("pwrite", b"ours again", 100_000)
                self.writer.do("close")
                self.assert_all_see(seen)

    def test_the_cache_has_nothing_of_it_afterwards(self):
        """Nor does it come back with the next engine."""
        self.writer.do("open", os.O_RDWR)
        self.writer.do("pwrite", b"new", 0)
        self.close_readers()
        self.writer.do("close")
        self.write("file", self.content)
        os.utime(self.export / "file", ns=(0, 0))
        self.assertTrue(self.path.read_bytes() == self.content)
        self.remount()
        self.assertTrue(self.path.read_bytes() == self.content)


class ReaderOnAFullDisk(ModesCase):
    """The cache's disk has no room for what is written: the write counts, readers in passthrough go on as they are."""

    def cache_directory(self):
        self.disk = self.begin(LoopFs(self.directory / "disk", 64 << 20))
        return self.disk.mountpoint / "cache"

    def fill(self):
        self.content = self.random.randbytes(_SIZES["complete"])
        self.write("file", self.content)

    def test_no_write_fails(self):
        self.settle()
        path = self.mounted / "file"
        self.bring_into("complete", path)
        reader = Reader(path, by_mapping=False)
        try:
            with open(path, "r+b", buffering=0) as writer:
                os.pwrite(writer.fileno(), b"in its place", 0)
                seen = b"in its place" + self.content[12:]
                self.assertTrue(reader.seen() == seen)
                self.disk.fill()
                more = self.random.randbytes(8 << 20)
                os.pwrite(writer.fileno(), more, len(seen))
                os.pwrite(writer.fileno(), b"later", 0)
                self.assertTrue(path.read_bytes() == b"later" + seen[5:] + more)
            self.assertTrue((self.export / "file").read_bytes() == b"later" + seen[5:] + more)
            kept = reader.seen()
            self.assertEqual(len(kept), reader.size())
            self.assertTrue((seen + more).startswith(kept) and kept.startswith(seen))
            self.assertEqual(self.counts()["holders_left_behind"], 1)
        finally:
            reader.close()


class ByPath(ModesCase):
    """Changes without a descriptor, of a file that somebody has open."""

    def fill(self):
        self.content = {kind: self.random.randbytes(size) for kind, size in _SIZES.items()}
        for kind, content in self.content.items():
            self.write(kind, content)
            self.write(f"{kind}-mapped", content)

    def setUp(self):
        super().setUp()
        self.settle()
        for kind in _SIZES:
            self.bring_into(kind, self.mounted / kind, self.mounted / f"{kind}-mapped")

    def truncated_under(self, size):
        for kind, old in self.content.items():
            with self.subTest(kind):
                reader = Reader(self.mounted / kind, by_mapping=False)
                try:
                    self.assertEqual(reader.seen(), old)
                    os.truncate(self.mounted / kind, size)
                    new = old[:size].ljust(size, b"\0")
                    self.assertEqual((reader.size(), reader.seen() == new), (len(new), True))
                    self.assertTrue((self.mounted / kind).read_bytes() == new, "who opens afterwards")
                    self.assertEqual(os.stat(self.mounted / kind).st_size, size)
                finally:
                    reader.close()
                self.assertTrue((self.mounted / kind).read_bytes() == new, "who opens after the last close")

    def test_a_file_that_is_read_is_cut(self):
        self.truncated_under(1234)

    def test_a_file_that_is_read_is_stretched(self):
        self.truncated_under(3_000_000)

    def test_a_file_that_is_read_or_mapped_is_removed(self):
        for kind, old in self.content.items():
            for name in (kind, f"{kind}-mapped"):
                with self.subTest(name):
                    opens = self.counts()["opens_passthrough"]
                    reader = Reader(self.mounted / name, by_mapping=name != kind)
                    self.assertEqual(self.counts()["opens_passthrough"] - opens, kind == "complete")
                    os.unlink(self.mounted / name)
                    self.assertFalse((self.mounted / name).exists())
                    reader.let_pages_go()
                    larder.drop_clean_pages()
                    self.assertTrue(reader.seen() == old)
                    reader.close()
                    self.assert_nothing_hidden()
        self.assertEqual(os.listdir(self.export), [])

    def opened_again_after_a_rename_over(self, kind):
        """/proc/PID/fd leads to the file that is open, also where its name leads elsewhere."""
        with open(self.mounted / kind, "rb", buffering=0) as held:
            (self.mounted / "new").write_bytes(b"new " * 1000)
            os.rename(self.mounted / "new", self.mounted / kind)
            by_descriptor = pathlib.Path(f"/proc/{os.getpid()}/fd/{held.fileno()}")
            for _ in range(3):
                self.assertTrue(by_descriptor.read_bytes() == self.content[kind])
                self.assertEqual((self.mounted / kind).read_bytes(), b"new " * 1000)
        self.assert_nothing_hidden()

    def test_the_version_that_somebody_holds_is_opened_again_by_its_descriptor(self):
        for kind in ("small", "partial"):
            with self.subTest(kind):
                self.opened_again_after_a_rename_over(kind)

    def test_a_file_held_in_passthrough_is_opened_again_after_a_write(self):
        new = b"new" + self.content["complete"][3:]
        with open(self.mounted / "complete", "rb", buffering=0) as held:
            with open(self.mounted / "complete", "r+b", buffering=0) as writer:
                os.pwrite(writer.fileno(), b"new", 0)
            by_descriptor = pathlib.Path(f"/proc/{os.getpid()}/fd/{held.fileno()}")
            for _ in range(3):
                self.assertTrue(by_descriptor.read_bytes() == new)
                self.assertTrue((self.mounted / "complete").read_bytes() == new)

    def test_a_mode_changed_by_path_is_seen_by_who_has_it_open(self):
        for kind in _SIZES:
            with self.subTest(kind), open(self.mounted / kind, "rb") as held:
                os.chmod(self.mounted / kind, 0o640)
                self.assertEqual(os.fstat(held.fileno()).st_mode & 0o7777, 0o640)
                self.assertEqual(os.stat(self.mounted / kind).st_mode & 0o7777, 0o640)


class ReopenWithoutAttributeTimes(ModesCase):
    """As ByPath; but the kernel asks for a file's attributes before each OPEN."""

    options = "acregmin=0,acregmax=0"

    def fill(self):
        self.content = self.random.randbytes(_SIZES["complete"])
        self.write("complete", self.content)

    # The OPEN is answered ESTALE once, and its repetition by the same thread is known for a reopen: also behind
    # the kernel's GETATTR, which comes where it has dropped the attributes, as of a file just renamed over.
    def test_the_version_held_in_passthrough_is_opened_again_by_its_descriptor(self):
        self.settle()
        self.bring_into("complete", self.mounted / "complete")
        with open(self.mounted / "complete", "rb", buffering=0) as held:
            (self.mounted / "new").write_bytes(b"new")
            os.rename(self.mounted / "new", self.mounted / "complete")
            by_descriptor = pathlib.Path(f"/proc/{os.getpid()}/fd/{held.fileno()}")
            for _ in range(3):
                self.assertTrue(by_descriptor.read_bytes() == self.content)
                self.assertEqual((self.mounted / "complete").read_bytes(), b"new")


class WhoGetsPassthrough(ModesCase):

    def fill(self):
        self.content = self.random.randbytes(_SIZES["complete"])
        self.write("complete", self.content)

    def setUp(self):
        super().setUp()
        self.settle()
        self.path = self.mounted / "complete"
        self.bring_into("complete", self.path)

    def test_no_handle_that_can_write_does(self):
        for held_by_reader in (False, True):
            reader = os.open(self.path, os.O_RDONLY) if held_by_reader else None
            for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND, os.O_RDWR | os.O_CREAT):
                with self.subTest(flags=flags, held_by_reader=held_by_reader):
                    before = self.counts()
                    fd = os.open(self.path, flags)
                    after = self.counts()
                    os.close(fd)
                    self.assertEqual(after["opens_passthrough"], before["opens_passthrough"])
                    self.assertEqual(after["opens_page_cache"], before["opens_page_cache"] + 1)
            if reader is not None:
                self.assertTrue(files.read_all(reader) == self.content)
                os.close(reader)

    def test_no_reader_does_while_somebody_can_write(self):
        writer = os.open(self.path, os.O_RDWR)
        try:
            before = self.counts()
            self.assertTrue(self.path.read_bytes() == self.content)
            after = self.counts()
            self.assertEqual(after["opens_passthrough"], before["opens_passthrough"])
        finally:
            os.close(writer)

    def test_what_was_written_gets_it_again_when_it_is_old(self):
        with open(self.path, "r+b") as file:
            file.write(b"new")
        self.settle()
        self.assert_opens_in_passthrough(self.path)
        self.assertTrue(self.path.read_bytes() == b"new" + self.content[3:])
        wait_until(lambda: self.counts()["backing_ids"] <= 1, 20, "the old backing id to go")

    def test_a_shared_mapping_that_writes_leaves_the_cache_alone(self):
        """Its stores go to the server: a backing file that they reached would be served to the next reader."""
        with open(self.path, "r+b") as file, mmap.mmap(file.fileno(), 0) as view:
            view[4096:4099] = b"new"
            view.flush()
        expected = self.content[:4096] + b"new" + self.content[4099:]
        self.assertTrue((self.export / "complete").read_bytes() == expected)
        self.write("complete", self.content)  # what the server has counts
        self.assertTrue(self.path.read_bytes() == self.content)


class Programs(ModesCase):
    """Files that are being executed."""

    def fill(self):
        for name in ("small", "complete"):
            shutil.copy("/bin/cat", self.write(name, b""))
            os.chmod(self.export / name, 0o755)
        self.assertLess(os.path.getsize("/bin/cat"), 64 << 10, "it should be a small file")
        with open(self.export / "complete", "ab") as file:
            file.write(bytes(_SIZES["complete"]))  # behind an ELF file may be anything
        shutil.copy("/bin/true", self.write("other", b""))
        os.chmod(self.export / "other", 0o755)

    def setUp(self):
        super().setUp()
        self.settle()
        self.bring_into("complete", self.mounted / "complete")
        self.mounted.joinpath("small").read_bytes()

    def start(self, name):
        child = subprocess.Popen([self.mounted / name], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(self.end, child)
        child.stdin.write(b"begin\n")
        child.stdin.flush()
        self.assertEqual(child.stdout.readline(), b"begin\n")
        return child

    @staticmethod
    def end(child):
        if child.poll() is None:
            child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()

    def assert_goes_on(self, child):
        larder.drop_clean_pages()
        self.assertEqual(child.communicate(b"still here\n", timeout=60)[0], b"still here\n")
        self.assertEqual(child.returncode, 0)

    def test_a_program_that_is_replaced_by_rename_runs_on(self):
        for name in ("small", "complete"):
            with self.subTest(name):
                child = self.start(name)
                shutil.copy(self.mounted / "other", self.mounted / "new")
                os.rename(self.mounted / "new", self.mounted / name)
                again = subprocess.run([self.mounted / name], input=b"x", capture_output=True, check=True)
                self.assertEqual(again.stdout, b"")  # true says nothing
                self.assert_goes_on(child)
        self.assert_nothing_hidden()

    def test_a_program_that_is_removed_runs_on(self):
        for name in ("small", "complete"):
            with self.subTest(name):
                child = self.start(name)
                os.unlink(self.mounted / name)
                self.assert_goes_on(child)
        self.assert_nothing_hidden()

    def assert_busy(self, name):
        with self.assertRaises(OSError) as raised:
            os.close(os.open(self.mounted / name, os.O_WRONLY))
        self.assertEqual(raised.exception.errno, errno.ETXTBSY)

    def test_a_small_program_that_runs_is_busy(self):
        child = self.start("small")
        self.assert_busy("small")
        self.assert_goes_on(child)
        os.close(os.open(self.mounted / "small", os.O_WRONLY))

    def test_a_complete_program_that_runs_is_busy(self):
        child = self.start("complete")
        self.assert_busy("complete")
        self.assert_goes_on(child)

    def test_a_program_that_is_written_cannot_be_run(self):
        for name in ("small", "complete"):
            with self.subTest(name), open(self.mounted / name, "r+b"):
                with self.assertRaises(OSError) as raised:
                    subprocess.run([self.mounted / name], stdin=subprocess.DEVNULL, check=True)
                self.assertEqual(raised.exception.errno, errno.ETXTBSY)

    def test_a_program_that_was_just_written_runs(self):
        """As a linker leaves it, and a configure script tries it at once."""
        for number in range(20):
            path = self.mounted / f"made{number}"
            shutil.copy(self.mounted / "other", path)
            subprocess.run([path], check=True)


if __name__ == "__main__":
    main()
