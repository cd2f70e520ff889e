"""Two clients: what one of them wrote and closed the other one sees at its next open, whatever it has cached."""

import contextlib
import errno
import mmap
import multiprocessing
import os
import pathlib
import stat
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import files
from harness.case import main
from harness.larder import Larder
from harness.processes import wait_until
from harness.users import as_user
from harness.writable_case import WritableCase

_SIZES = {"small": 5_000, "large": 1 << 20, "partial": 4 << 20}
_ALICE = 61001
_ACTIMEO = 2
_fork = multiprocessing.get_context("fork")


class Holder:
    """Another process, which has a file open for as long as it lives."""

    def __init__(self, path):
        self._ours, theirs = _fork.Pipe()
        self._process = _fork.Process(target=self._hold, args=(path, theirs), daemon=True)
        self._process.start()
        theirs.close()
        if not self._ours.poll(20) or self._ours.recv() != "open":
            raise AssertionError(f"{path} cannot be held open")

    @staticmethod
    def _hold(path, commands):
        fd = os.open(path, os.O_RDONLY)
        commands.send("open")
        with contextlib.suppress(EOFError):
            while commands.recv() == "read":
                commands.send((os.fstat(fd).st_size, files.read_all(fd)))
        os._exit(0)  # nothing of the test's own is to be undone here

    def size_and_content(self):
        self._ours.send("read")
        if not self._ours.poll(30):
            raise AssertionError("a file that is held open cannot be read")
        return self._ours.recv()

    def stop(self):
        if self._process.is_alive():
            self._ours.send("end")
            self._process.join(10)
        self._ours.close()


class TwoClients(WritableCase):
    """`self.mounted` is the first client, `self.other` the second: an engine, a keeper and a cache of its own."""

    def setUp(self):
        super().setUp()
        self.second = self.begin(Larder(self.directory / "second"))
        self.other = self.second.mount(self.server.url(), self.directory / "other", self.options)
        self.sides = (self.mounted, self.other)

    def in_both_directions(self):
        """Yields (who changes, who looks, a word for the names of both)."""
        for word, changing, looking in (("first", self.mounted, self.other), ("second", self.other, self.mounted)):
            with self.subTest(changes=word):
                yield changing, looking, word


# Changes of what a file holds, each with its last close: (path, the bytes before, others) -> the bytes after.

def rewrite(path, old, some):
    new = some * (len(old) // len(some) + 2)
    path.write_bytes(new)
    return new


def patch(path, old, some):
    place = len(old) // 2
    with open(path, "r+b", buffering=0) as file:
        os.pwrite(file.fileno(), some, place)
    return old[:place] + some + old[place + len(some):]


def store(path, old, some):
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        view[:len(some)] = some
    return some + old[len(some):]


def append(path, old, some):
    with open(path, "ab", buffering=0) as file:
        file.write(some)
    return old + some


def cut(path, old, _):
    os.truncate(path, len(old) // 3)
    return old[:len(old) // 3]


def stretch(path, old, _):
    with open(path, "r+b") as file:
        file.truncate(len(old) + 70_001)
    return old + bytes(70_001)


def empty(path, _, __):
    os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))
    return b""


_CHANGES = (rewrite, patch, store, append, cut, stretch, empty)


def rename_over(path, _, some):
    beside = path.with_name(path.name + ".new")
    beside.write_bytes(some)
    os.rename(beside, path)
    return some


class CloseToOpen(TwoClients):
    """With attributes believed as long as by default: an open asks all the same."""

    def fill(self):
        self.content = {kind: self.random.randbytes(size) for kind, size in _SIZES.items()}
        for kind, content in self.content.items():
            for change in (*_CHANGES, rename_over):
                self.write(f"{kind}-{change.__name__}", content)

    def cache_all(self, kind):
        """At the second client, nothing of it young."""
        self.settle()
        for change in (*_CHANGES, rename_over):
            path = self.other / f"{kind}-{change.__name__}"
            with open(path, "rb", buffering=0) as file:
                if kind == "partial":
                    self.assertEqual(len(os.pread(file.fileno(), 4096, 2 << 20)), 4096)
                else:
                    self.assertTrue(files.read_all(file.fileno()) == self.content[kind])

    def opens_in_passthrough(self):
        return self.second.status()["mounts"][0]["opens_passthrough"]

    def wait_for_passthrough(self, path):
        def is_so():
            trouble = self.second.status()["mounts"][0]["passthrough_trouble"]
            if trouble:
                self.skipTest(trouble)
            files.let_pages_go(path)  # else nobody asks the engine for what it does not have
            before = self.opens_in_passthrough()
            path.read_bytes()
            return self.opens_in_passthrough() > before
        wait_until(is_so, 60, f"{path.name} to be opened in passthrough")

    def assert_seen(self, path, expected):
        for _ in range(2):
            with open(path, "rb", buffering=0) as file:
                self.assertEqual(os.fstat(file.fileno()).st_size, len(expected))
                self.assertTrue(files.read_all(file.fileno()) == expected, "other bytes")

    def each_change(self, kind, changes=(*_CHANGES, rename_over)):
        self.cache_all(kind)
        for change in changes:
            with self.subTest(change.__name__):
                name, some = f"{kind}-{change.__name__}", self.random.randbytes(1000)
                yield name, lambda: change(self.mounted / name, self.content[kind], some)

    def test_a_small_file_that_is_cached(self):
        for name, change in self.each_change("small"):
            self.assert_seen(self.other / name, change())

    def test_a_large_file_that_is_cached_in_part(self):
        for name, change in self.each_change("partial"):
            self.assert_seen(self.other / name, change())

    def test_a_file_that_is_open_in_the_page_cache_shows_the_new_bytes_after_an_open(self):
        for name, change in self.each_change("small", _CHANGES):
            holder = self.begin(Holder(self.other / name))
            new = change()
            self.assert_seen(self.other / name, new)
            self.assertTrue(holder.size_and_content() == (len(new), new))
            holder.stop()

    def test_a_large_file_in_passthrough_that_another_process_holds_open(self):
        for name, change in self.each_change("large"):
            old = self.content["large"]
            self.wait_for_passthrough(self.other / name)
            before = self.opens_in_passthrough()
            holder = self.begin(Holder(self.other / name))
            self.assertEqual(self.opens_in_passthrough(), before + 1)
            new = change()
            self.assert_seen(self.other / name, new)
            self.assertTrue(holder.size_and_content() == (len(old), old), "who holds it keeps what he opened")
            self.assert_seen(self.other / name, new)
            holder.stop()
            self.assert_seen(self.other / name, new)

    def test_many_versions_in_a_row_with_and_without_the_same_size(self):
        self.settle()
        for kind in ("small", "large"):
            path = f"{kind}-patch"
            for number in range(30):
                changing, looking = self.sides if number % 3 else self.sides[::-1]
                size = _SIZES[kind] - number // 5
                content = bytes([number + 1]) * size
                (changing / path).write_bytes(content)
                self.assertTrue((looking / path).read_bytes() == content, f"{kind} {number}")

    def test_a_change_of_the_reader_itself_is_not_lost_between(self):
        """Both change the same file in turns, other parts of it, and each sees both."""
        expected = bytearray(self.content["large"])
        for number in range(20):
            place, some = self.random.randrange(len(expected) - 100), self.random.randbytes(100)
            with open(self.sides[number % 2] / "large-patch", "r+b", buffering=0) as file:
                os.pwrite(file.fileno(), some, place)
            expected[place:place + 100] = some
            for side in self.sides:
                self.assertTrue((side / "large-patch").read_bytes() == expected, number)

    def test_rewriting_in_turns_at_once_is_never_missed(self):
        """Many changes within a tick of any clock, none of which shows in the size."""
        for turn in range(300):
            content = b"%08d" % turn * 625
            writer, reader = self.sides if turn % 2 else self.sides[::-1]
            with open(writer / "small-patch", "r+b") as file:
                file.write(content)
            self.assertEqual((reader / "small-patch").read_bytes(), content, f"turn {turn}")

    def test_lines_appended_in_turns_all_stay(self):
        (self.mounted / "log").write_bytes(b"")
        lines = []
        for turn in range(60):
            lines.append(b"line %d\n" % turn)
            with open(self.sides[turn % 2] / "log", "ab") as file:
                file.write(lines[-1])
        self.assertEqual((self.export / "log").read_bytes(), b"".join(lines))

    def test_what_is_not_closed_arrives_by_itself(self):
        with open(self.mounted / "small-patch", "r+b", buffering=0) as file:
            file.write(b"not closed, not synced")
            wait_until(lambda: (self.other / "small-patch").read_bytes().startswith(b"not closed"), 6,
                       "the bytes to arrive")

    def test_fsync_and_not_only_close_makes_it_seen(self):
        with open(self.mounted / "small-patch", "r+b", buffering=0) as file:
            os.pwrite(file.fileno(), b"synced", 0)
            os.fsync(file.fileno())
            self.assert_seen(self.other / "small-patch", b"synced" + self.content["small"][6:])

    def test_rights_that_were_taken_away(self):
        path = self.other / "small-patch"
        os.chmod(self.export / "small-patch", 0o644)
        self.assertTrue(as_user(_ALICE, _ALICE, [], pathlib.Path.read_bytes, path) == self.content["small"])
        os.chmod(self.mounted / "small-patch", 0o600)
        with self.assertRaises(PermissionError):
            as_user(_ALICE, _ALICE, [], pathlib.Path.read_bytes, path)


class Races(TwoClients):
    """What only one of two may do: both try at the same moment."""

    ROUNDS = 60

    def fill(self):
        self.write("counter", b"0")
        self.write("source", b"")

    def race(self, attempt):
        """`attempt(side, number)` in a process a client; how many rounds each of them won."""
        barrier, winners = _fork.Barrier(2), _fork.Array("i", self.ROUNDS * 2)

        def run(who):
            for number in range(self.ROUNDS):
                barrier.wait(60)
                try:
                    attempt(self.sides[who], number)
                    winners[number * 2 + who] = 1
                except FileExistsError:
                    pass

        self.at_once(run)
        for number in range(self.ROUNDS):
            self.assertEqual(winners[number * 2] + winners[number * 2 + 1], 1, f"winners of round {number}")
        return [sum(winners[who::2]) for who in (0, 1)]

    def at_once(self, run):
        processes = [_fork.Process(target=run, args=(who,), daemon=True) for who in (0, 1)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(120)
            self.assertEqual(process.exitcode, 0)

    def test_an_exclusive_create_is_won_by_one(self):
        def create(side, number):
            with open(side / f"lock{number}", "xb", buffering=0) as file:
                file.write(side.name.encode())

        won = self.race(create)
        for side, count in zip(self.sides, won):
            for other in self.sides:
                owners = [(other / f"lock{number}").read_bytes() for number in range(self.ROUNDS)]
                self.assertEqual(owners.count(side.name.encode()), count)

    def test_a_directory_is_made_by_one(self):
        self.race(lambda side, number: os.mkdir(side / f"directory{number}"))

    def test_a_link_is_made_by_one(self):
        self.race(lambda side, number: os.link(side / "source", side / f"link{number}"))
        self.assertEqual(os.stat(self.export / "source").st_nlink, self.ROUNDS + 1)

    def test_a_symlink_is_made_by_one(self):
        self.race(lambda side, number: os.symlink(side.name, side / f"symlink{number}"))

    def test_a_counter_under_a_lock_file_loses_no_step(self):
        """The oldest protocol over NFS: O_EXCL is the lock, close-to-open brings the counter."""
        steps = 60

        def count(who):
            side = self.sides[who]
            for _ in range(steps):
                self.take_lock(side / "lock")
                with open(side / "counter", "r+b", buffering=0) as counter:
                    value = int(counter.read())
                    os.pwrite(counter.fileno(), str(value + 1).encode(), 0)
                os.unlink(side / "lock")

        self.at_once(count)
        self.assertEqual((self.export / "counter").read_bytes(), str(2 * steps).encode())

    @staticmethod
    def take_lock(path):
        deadline = time.monotonic() + 60
        while True:
            try:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
                return
            except FileExistsError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.001)


class NamesAndAttributes(TwoClients):
    """With noac nothing that others did may be old: neither names, nor that there is none, nor modes."""

    options = "noac"

    def fill(self):
        for number in range(3):
            self.write(f"file{number}", b"before")
        (self.export / "directory").mkdir()

    def look(self, side):
        """All that can be cached: the listing, the names, that there are no others, the attributes."""
        names = set(os.listdir(side))
        for name in ("file0", "new", "new directory", "renamed"):
            self.assertEqual((side / name).exists(), name in names, name)
        return {name: os.lstat(side / name).st_mode for name in names}

    def assert_seen(self, changing, looking, change):
        self.look(looking)
        change(changing)
        expected = self.look(self.export)
        for _ in range(2):
            self.assertEqual(self.look(looking), expected)
        self.assertEqual(self.look(changing), expected)

    def test_names_come_go_and_move(self):
        changes = (lambda side: (side / "new").write_bytes(b"new"), lambda side: os.unlink(side / "new"),
                   lambda side: os.mkdir(side / "new directory"), lambda side: os.rmdir(side / "new directory"),
                   lambda side: os.rename(side / "file0", side / "renamed"),
                   lambda side: os.rename(side / "renamed", side / "file0"),
                   lambda side: os.symlink("file0", side / "new"), lambda side: os.unlink(side / "new"),
                   lambda side: os.link(side / "file1", side / "renamed"),
                   lambda side: os.unlink(side / "renamed"),
                   lambda side: os.mkfifo(side / "new"), lambda side: os.rename(side / "new", side / "renamed"),
                   lambda side: os.unlink(side / "renamed"))
        for changing, looking, _ in self.in_both_directions():
            for change in changes:
                self.assert_seen(changing, looking, change)

    def test_modes_owners_and_stamps(self):
        for changing, looking, _ in self.in_both_directions():
            for mode in (0o600, 0o644, 0o4755):
                self.assert_seen(changing, looking, lambda side: os.chmod(side / "file1", mode))
            for mode in (0o700, 0o1777, 0o755):
                self.assert_seen(changing, looking, lambda side: os.chmod(side / "directory", mode))
            os.chown(changing / "file1", _ALICE, _ALICE)
            self.assertEqual(os.stat(looking / "file1").st_uid, _ALICE)
            os.utime(changing / "file1", ns=(10**18, 10**18 + 1))
            self.assertEqual(os.stat(looking / "file1").st_mtime_ns, 10**18 + 1)
            os.chown(changing / "file1", 0, 0)

    def test_sizes_without_an_open(self):
        for changing, looking, _ in self.in_both_directions():
            for size in (100_000, 0, 17):
                os.stat(looking / "file1")
                (changing / "file1").write_bytes(bytes(size))
                self.assertEqual(os.stat(looking / "file1").st_size, size)

    def test_a_file_that_was_renamed_over_is_the_new_one(self):
        for changing, looking, word in self.in_both_directions():
            for number in range(10):
                self.assertTrue((looking / "file2").exists())
                rename_over(changing / "file2", b"", b"%d of %s" % (number, word.encode()))
                self.assertEqual((looking / "file2").read_bytes(), b"%d of %s" % (number, word.encode()))

    def test_a_file_that_was_removed_is_gone_for_all_who_open_it(self):
        for changing, looking, word in self.in_both_directions():
            path = looking / f"removed by {word}"
            path.write_bytes(b"here")
            os.unlink(changing / path.name)
            for attempt in (path.read_bytes, path.stat, path.unlink, lambda: os.truncate(path, 0)):
                with self.assertRaises(FileNotFoundError):
                    attempt()
            path.write_bytes(b"another")
            self.assertEqual((changing / path.name).read_bytes(), b"another")
            os.unlink(changing / path.name)

    def test_a_removed_file_that_is_open_is_stale_and_nothing_worse(self):
        (self.mounted / "new").write_bytes(b"x" * 200_000)
        with open(self.other / "new", "rb") as file:
            self.assertEqual(file.read(10), b"x" * 10)
            os.unlink(self.mounted / "new")
            try:
                rest = file.read()
                self.assertEqual(rest, b"x" * len(rest))
            except OSError as error:
                self.assertEqual(error.errno, errno.ESTALE)  # as over NFS
        self.assertFalse((self.other / "new").exists())

    def test_a_directory_that_is_not_empty_any_more_is_not_removed(self):
        for changing, looking, _ in self.in_both_directions():
            self.assertEqual(os.listdir(looking / "directory"), [])
            (changing / "directory/inner").write_bytes(b"")
            with self.assertRaises(OSError) as raised:
                os.rmdir(looking / "directory")
            self.assertEqual(raised.exception.errno, errno.ENOTEMPTY)
            self.assertEqual(os.listdir(looking / "directory"), ["inner"])
            os.unlink(changing / "directory/inner")


class WithinTheAttributeTime(TwoClients):
    """Names and attributes of others may be old for `actimeo` seconds, and not for longer; data may not."""

    options = f"actimeo={_ACTIMEO}"

    def fill(self):
        for name in ("old", "renamed over", "data"):
            self.write(name, b"before")
        self.write("changed mode", b"before")

    def state(self):
        side = self.other
        return {"names": frozenset(os.listdir(side)), "old": (side / "old").exists(), "new": (side / "new").exists(),
                "mode": stat.S_IMODE(os.stat(side / "changed mode").st_mode),
                "size": os.stat(side / "data").st_size, "number": os.stat(side / "renamed over").st_ino}

    def test_what_may_be_old_is_new_when_the_time_is_over(self):
        before = self.state()
        os.unlink(self.mounted / "old")
        (self.mounted / "new").write_bytes(b"new")
        os.chmod(self.mounted / "changed mode", 0o600)
        rename_over(self.mounted / "renamed over", b"", b"after")
        (self.mounted / "data").write_bytes(b"longer than before")
        over = time.monotonic() + _ACTIMEO + 0.3
        after = {"names": frozenset(os.listdir(self.export)), "old": False, "new": True, "mode": 0o600,
                 "size": 18, "number": os.stat(self.export / "renamed over").st_ino}
        while time.monotonic() < over:
            for what, seen in self.state().items():
                self.assertIn(seen, (before[what], after[what]), what)
            time.sleep(0.1)
        self.assertEqual(self.state(), after)
        self.assertEqual((self.other / "renamed over").read_bytes(), b"after")

    def test_an_open_makes_size_and_mode_new_at_once(self):
        self.state()
        (self.mounted / "data").write_bytes(b"longer than before")
        with open(self.other / "data", "rb") as file:
            self.assertEqual(os.fstat(file.fileno()).st_size, 18)
            self.assertEqual(os.stat(self.other / "data").st_size, 18)
            self.assertEqual(file.read(), b"longer than before")

    def test_a_file_that_was_replaced_opens_as_one_of_both(self):
        """Never as an error: the old one is gone at the server, and the name leads to the new one."""
        for number in range(20):
            self.assertIn((self.other / "renamed over").read_bytes(), (b"before", b"%d" % (number - 1)))
            rename_over(self.mounted / "renamed over", b"", b"%d" % number)
            self.assertEqual((self.other / "renamed over").read_bytes(), b"%d" % number)


class PingPong(TwoClients):
    """Random changes by either side; after each, who opens must see the model. LARDER_SEED repeats it."""

    STEPS = 150
    NAMES = ("a", "b", "c", "d")

    def fill(self):
        self.versions = {}  # all that a file ever was
        for name in self.NAMES:
            self.versions[name] = [self.random.randbytes(self.random.choice((0, 10, 5_000, 65_536, 300_000)))]
            self.write(name, self.versions[name][0])
        self.held = []  # (descriptor, name, number of the version that was the last one at its open)

    def change(self, side, name):
        change = self.random.choice(_CHANGES)
        old = self.versions[name][-1]
        some = self.random.randbytes(self.random.choice((1, 1000, 100_000)))
        if change is store or (change is patch and len(old) < 2):
            some = some[:len(old)]  # a mapping ends with its file
        if (change is store and not old) or (change is rewrite and len(old) > 2_000_000):
            change = empty
        if change is rewrite and len(some) < 1000:
            some *= 1000
        self.log(f"{change.__name__} {name} at {side.name} with {len(some)}, {len(old)} before")
        self.versions[name].append(change(side / name, old, some))

    def log(self, line):
        self.steps.append(line)  # shown if the test fails

    def look(self, side, name):
        expected = self.versions[name][-1]
        with open(side / name, "rb", buffering=0) as file:
            self.assertEqual(os.fstat(file.fileno()).st_size, len(expected), f"size of {name} at {side.name}")
            for _ in range(self.random.choice((0, 3))):  # some of it first, in the middle
                place = self.random.randrange(len(expected) + 1)
                self.assertTrue(os.pread(file.fileno(), 5000, place) == expected[place:place + 5000],
                                f"bytes of {name} at {side.name} from {place} on")
            if self.random.random() < 0.8:
                self.assertTrue(files.read_all(file.fileno()) == expected, f"bytes of {name} at {side.name}")

    def hold(self, side, name):
        self.held.append((os.open(side / name, os.O_RDONLY), name, len(self.versions[name]) - 1))
        self.log(f"hold {name} at {side.name}")

    def look_at_held(self, fd, name, opened):
        """A page is of a version not older than the open; of which one, close-to-open leaves open."""
        page = self.random.randrange(len(self.versions[name][opened]) // 4096 + 1) * 4096
        seen = os.pread(fd, 4096, page)
        self.assertTrue(any(version[page:page + 4096].startswith(seen) for version in self.versions[name][opened:]),
                        f"{name}, opened as version {opened}, shows at {page} what it never was since")

    def let_go(self):
        fd, _, _ = self.held.pop(self.random.randrange(len(self.held)))
        os.close(fd)

    def step(self):
        side, name = self.random.choice(self.sides), self.random.choice(self.NAMES)
        what = self.random.random()
        if what < 0.1:
            self.hold(side, name)
        elif what < 0.2 and self.held:
            self.let_go()
        elif what < 0.3:
            for held in self.held:
                self.look_at_held(*held)
        else:
            self.change(side, name)
        for looking in self.random.sample(self.sides, 2):
            self.look(looking, self.random.choice((name, *self.NAMES)))

    def play(self):
        self.steps = []
        self.show_on_failure(lambda: "\n".join(self.steps[-30:]))
        self.addCleanup(lambda: [os.close(held[0]) for held in self.held])
        for _ in range(3):
            self.settle()  # so that files can be complete, and in passthrough
            for side in self.sides:
                for name in self.NAMES:
                    self.look(side, name)
            for _ in range(self.STEPS // 3):
                self.step()

    def test_data_is_as_it_was_at_the_last_close(self):
        self.play()
        for name in self.NAMES:
            self.assertTrue((self.export / name).read_bytes() == self.versions[name][-1])


class PingPongOfNames(PingPong):
    """The same with names that come, go and move, while nobody trusts what he knows of names."""

    options = "noac"

    def step(self):
        side = self.random.choice(self.sides)
        name, other = self.random.sample((*self.NAMES, "e", "f"), 2)
        here, there = name in self.present(), other in self.present()
        what = self.random.random()
        if what < 0.25 and here:
            self.log(f"rename {name} {other} at {side.name}")
            os.rename(side / name, side / other)
            self.versions[other] = [self.versions.pop(name)[-1]]
        elif what < 0.4 and here and not there:
            self.log(f"copy {name} {other} at {side.name}")
            (side / other).write_bytes(self.versions[name][-1])
            self.versions[other] = [self.versions[name][-1]]
        elif what < 0.55 and here and len(self.present()) > 2:
            self.log(f"unlink {name} at {side.name}")
            os.unlink(side / name)
            del self.versions[name]
        elif what < 0.65:
            self.log(f"exclusive {name} at {side.name}")
            self.create(side, name, here)
        elif here:
            self.change(side, name)
        for looking in self.random.sample(self.sides, 2):
            self.look_at_all(looking)

    def present(self):
        return sorted(self.versions)

    def create(self, side, name, exists):
        try:
            with open(side / name, "xb") as file:
                file.write(b"exclusive")
        except FileExistsError:
            self.assertTrue(exists, f"{name} is said to exist")
            return
        self.assertFalse(exists, f"{name} was made although it exists")
        self.versions[name] = [b"exclusive"]

    def look(self, side, name):
        if name in self.versions:
            super().look(side, name)

    def look_at_all(self, side):
        for name in self.random.sample((*self.NAMES, "e", "f"), 3):
            self.assertEqual((side / name).exists(), name in self.versions, f"{name} at {side.name}")
        self.assertEqual(sorted(os.listdir(side)), self.present(), f"names at {side.name}")
        for name in self.present():
            self.look(side, name)

    def test_data_is_as_it_was_at_the_last_close(self):
        self.play()
        self.assertEqual(sorted(os.listdir(self.export)), self.present())
        for name in self.present():
            self.assertTrue((self.export / name).read_bytes() == self.versions[name][-1])


if __name__ == "__main__":
    main()
