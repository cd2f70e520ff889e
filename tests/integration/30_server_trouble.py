"""Trouble with the server: reads come out right or end with a clear error, and nobody else waits."""

import contextlib
import errno
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import files, larder, paths, processes, rpc_proxy, trees
from harness.case import main
from harness.ganesha import Export
from harness.job import Job
from harness.mounted_case import MountedCase
from harness.netns import Namespace
from harness.nfs3_client import Nfs3Client
from harness.processes import wait_until
from harness.tun_delay import SECOND_ADDRESS, TunDelay

_MIB = 1 << 20
_HALF = 12 * _MIB  # of a file, farther than is read ahead of somebody at its start
_OUTAGES = ("swallow", "down")

# stat(2) by ctypes, because Python's own begins again after EINTR.
_STAT_UNDER_SIGNALS = """
import ctypes, os, signal, sys
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
libc = ctypes.CDLL(None, use_errno=True)
if libc.open(sys.argv[1].encode(), os.O_RDONLY) < 0:
    sys.exit(os.strerror(ctypes.get_errno()))
signal.setitimer(signal.ITIMER_REAL, 0)
print(os.stat(sys.argv[1]).st_size)
"""


class HardMount(MountedCase):
    """The default: reads wait until the server is back, and the bytes are right."""

    options = "timeo=10"  # a tenth of a second each, as in mount.nfs

    def fill(self):
        self.content = self.random.randbytes(24 * _MIB + 5)
        self.write("file", self.content)

    def start_reading(self):
        return Job("reading the file", self.read, "file")

    @contextlib.contextmanager
    def in_the_middle_of_a_read(self):
        """The block runs when some megabytes have come, and the read must come out right after it."""
        self.proxy.rate(60, direction="replies")
        reader = self.start_reading()
        wait_until(lambda: self.proxy.counts()["read_bytes"] > 4 * _MIB, 20, "the read to be under way")
        self.assertFalse(reader.is_over())
        yield
        self.proxy.rate(0)
        self.assertTrue(reader.result(90) == self.content, "the bytes differ")

    def test_the_server_is_restarted(self):
        with self.in_the_middle_of_a_read():
            self.server.restart()

    def test_the_server_is_gone_for_seconds(self):
        with self.in_the_middle_of_a_read():
            self.server.kill9()
            self.proxy.refuse()
            time.sleep(3)
            self.proxy.refuse(False)
            self.server.start()

    def test_connections_are_cut(self):
        with self.in_the_middle_of_a_read():
            for _ in range(5):
                self.proxy.cut_all()
                time.sleep(0.1)

    def test_replies_are_cut_at_any_byte(self):
        for size in (1, 3, 4, 5, 30, 120, 127, 128, 129, 50_000):
            self.proxy.cut_reply_after("READ", size)
        self.assertTrue(self.read("file") == self.content, "the bytes differ")

    def test_calls_and_replies_are_lost(self):
        self.proxy.drop_calls("READ", count=2)
        self.proxy.drop_replies("READ", count=2)
        self.assertTrue(self.read("file") == self.content, "the bytes differ")

    def test_metadata_calls_are_lost(self):
        for procedure in ("LOOKUP", "GETATTR", "ACCESS"):
            self.proxy.drop_replies(procedure, count=1)
        self.assertEqual(os.stat(self.mounted / "file").st_size, len(self.content))
        self.assertTrue(self.read("file") == self.content, "the bytes differ")

    def test_replies_are_damaged(self):
        for damage in ("garbage", "short", "xid", "mark"):
            with self.subTest(damage):
                self.proxy.corrupt("READ", damage, count=1)
                self.write("file", self.content)
                self.assertTrue(self.read("file") == self.content, "the bytes differ")

    def test_the_server_asks_to_come_again_later(self):
        for procedure in ("LOOKUP", "READ", "GETATTR"):
            self.proxy.answer_with_error(procedure, rpc_proxy.NFS3ERR_JUKEBOX, count=2)
        self.assertTrue(self.read("file") == self.content, "the bytes differ")

    def test_the_link_is_down_for_seconds(self):
        with self.in_the_middle_of_a_read():
            self.proxy.freeze()
            time.sleep(3)
            self.proxy.thaw()

    def test_a_reader_that_waits_can_be_killed(self):
        self.proxy.swallow()
        for number in (signal.SIGINT, signal.SIGKILL):
            child = subprocess.Popen(["cat", self.mounted / "file"], stdout=subprocess.DEVNULL,
                                     stderr=subprocess.DEVNULL)
            time.sleep(0.5)
            self.assertIsNone(child.poll(), "it should wait")
            child.send_signal(number)
            child.wait(5)

    def test_a_signal_that_is_handled_interrupts_nothing(self):
        """As on a disk: a program with a timer or with children sees no EINTR from stat(2)."""
        self.proxy.delay(1000)
        child = subprocess.Popen(
            [sys.executable, "-c", _STAT_UNDER_SIGNALS, self.mounted / "file"],
            stdout=subprocess.PIPE, text=True)
        self.assertEqual(child.communicate(timeout=30)[0], f"{len(self.content)}\n")

    def test_who_was_signalled_before_can_still_be_killed(self):
        self.proxy.swallow()
        child = subprocess.Popen(
            [sys.executable, "-c", _STAT_UNDER_SIGNALS, self.mounted / "file"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(1)
        self.assertIsNone(child.poll(), "it should wait")
        child.kill()
        child.wait(5)

    def test_a_mount_whose_server_is_gone_can_be_unmounted(self):
        self.proxy.swallow()
        reader = self.start_reading()
        subprocess.run(["umount", "--lazy", self.mounted], check=True, timeout=20)
        self.larder.mountpoints.clear()
        self.larder.run("stop", seconds=30)
        with contextlib.suppress(OSError):
            reader.result(20)

    def test_a_refusing_server_costs_no_processor_time(self):
        self.proxy.cut_all()
        self.proxy.refuse()
        reader = self.start_reading()
        engine = self.larder.engine_pid()
        before = processes.cpu_seconds(engine)
        time.sleep(3)
        self.assertLess(processes.cpu_seconds(engine) - before, 0.5)
        self.proxy.refuse(False)
        self.assertTrue(reader.result(90) == self.content, "the bytes differ")


class IdleMount(MountedCase):
    """Nobody uses it when its server falls silent, for longer than attributes are believed."""

    options = "hard,timeo=10,acdirmin=1,acdirmax=1"

    def fill(self):
        self.write("file", b"content")

    def assert_is_unmounted_at_once(self, command):
        subprocess.run([*command, self.mounted], check=True, timeout=5)
        self.assertFalse(larder.is_mounted(self.mounted))
        self.larder.mountpoints.remove(self.mounted)

    def assert_unmounts(self, *command):
        for trouble in (self.proxy.swallow, self.proxy.freeze):
            with self.subTest(trouble.__name__):
                self.read("file")
                trouble()
                time.sleep(1.2)
                try:
                    self.assert_is_unmounted_at_once(command)
                finally:
                    self.end_trouble()
                self.mount()

    def test_larder_umount_does_not_wait_for_the_server(self):
        self.assert_unmounts(paths.LARDER, "--runtime-dir", self.larder.runtime_directory, "umount")

    def test_umount_as_systemd_calls_it_does_not_wait_for_the_server(self):
        self.assert_unmounts("umount", "--no-canonicalize")

    def test_umount_by_force_does_not_wait_for_the_server(self):
        self.assert_unmounts("umount", "--force")


class SoftMount(MountedCase):

    options = "soft,timeo=20,retrans=1"  # a server or a disk that is merely slow is no trouble yet
    content = b"content" * 10_000

    def fill(self):
        self.write("file", self.content)
        self.large = self.random.randbytes(24 * _MIB)
        self.write("large", self.large)

    def assert_fails_in_time(self):
        start = time.monotonic()
        with self.assertRaises(OSError) as raised:
            self.read("file")
        self.assertIn(raised.exception.errno, (errno.EIO, errno.ETIMEDOUT))
        self.assertLess(time.monotonic() - start, 30)

    def test_a_server_that_does_not_answer_is_an_error_after_the_deadline(self):
        self.proxy.swallow()
        self.assert_fails_in_time()
        self.proxy.swallow(False)
        self.assert_is_back()

    def test_a_server_that_refuses_is_an_error_after_the_deadline(self):
        self.proxy.cut_all()
        self.proxy.refuse()
        self.assert_fails_in_time()
        self.proxy.refuse(False)
        self.assert_is_back()

    def assert_is_back(self):
        """A connection that failed rests before it is made again, and that counts for a call's deadline."""
        wait_until(lambda: self.is_read("file", self.content), 20, "the server to be heard again")

    def is_read(self, name, content):
        try:
            return self.read(name) == content
        except OSError:
            return False

    def read_large(self, file, offset):
        return os.pread(file.fileno(), len(self.large) - offset, offset)

    def assert_fails_in_the_middle(self, trouble):
        """A descriptor that has read something gets an error instead of the rest, and the rest afterwards."""
        with open(self.mounted / "large", "rb", buffering=0) as file:
            self.assertTrue(file.read(_MIB) == self.large[:_MIB])
            trouble()
            with self.assertRaises(OSError) as raised:
                Job("reading on", self.read_large, file, _HALF).result()
            self.assertIn(raised.exception.errno, (errno.EIO, errno.ETIMEDOUT))
            self.proxy.heal()
            wait_until(lambda: self.is_back(file), 20, "the server to be heard again")
            self.assertTrue(self.read_large(file, 0) == self.large, "the bytes differ")

    def is_back(self, file):
        try:
            return self.read_large(file, _HALF) == self.large[_HALF:]
        except OSError:
            return False

    def test_a_server_that_falls_silent_in_the_middle_of_a_file_is_an_error_until_it_is_back(self):
        self.assert_fails_in_the_middle(self.proxy.swallow)

    def test_reads_that_are_lost_in_the_middle_of_a_file_are_errors_although_all_else_is_answered(self):
        self.assert_fails_in_the_middle(lambda: self.proxy.drop_calls("READ"))

    def test_errors_of_the_server_are_told_as_they_are(self):
        self.read("file")
        for status, expected in ((rpc_proxy.NFS3ERR_IO, errno.EIO),
                                 (rpc_proxy.NFS3ERR_ACCES, errno.EACCES)):
            with self.subTest(status):
                self.write("new", b"x")
                self.proxy.answer_with_error("LOOKUP", status)
                with self.assertRaises(OSError) as raised:
                    os.stat(self.mounted / "new")
                self.assertEqual(raised.exception.errno, expected)
                self.proxy.heal()


class SoftMountByUrl(SoftMount):
    """As the query of the source says it."""

    options = ""

    def mount(self, options=None):
        self.mounted = self.larder.mount(self.proxy.url(timeo=20, retrans=1) + "&soft", self.directory / "mnt")


class OverALink(MountedCase):
    """The server is in another network: what is lost between them is lost to TCP as well."""

    def fill(self):
        self.content = self.random.randbytes(24 * _MIB)
        for name in ("cached", "begun0", "begun1", "new0", "new1"):
            self.write(name, self.content)

    def serve(self, *exports, **options):
        self.here, self.there = self.begin(Namespace("here")), self.begin(Namespace("there"))
        self.link = self.begin(TunDelay(self.here, self.there, self.directory / "tun.log", delay_ms=1))
        return super().serve(*exports, address=SECOND_ADDRESS, namespace=self.there, **options)

    def proxy_to(self, server):
        return self.begin(rpc_proxy.RpcProxy(self.directory / "proxy", server, SECOND_ADDRESS, self.there))

    def mount(self, options=None):
        with self.here.entered():
            super().mount(options)

    def end_trouble(self):
        self.link.up()
        super().end_trouble()

    @contextlib.contextmanager
    def outage(self, kind):
        """`swallow` or `down`: packets vanish, or have no way to go."""
        getattr(self.link, kind)()
        try:
            yield
        finally:
            self.link.up()

    def start_reading(self, fd, offset=0):
        """The bytes from there to the end of the file."""
        return Job(f"reading from {offset}", os.pread, fd, len(self.content) - offset, offset)


class HardOverALink(OverALink):

    options = "timeo=10,actimeo=600,nocto"

    def setUp(self):
        super().setUp()
        self.settle()
        self.read_until_cached("cached")

    def test_reads_wait_until_packets_flow_again(self):
        """One had begun before, one opens the file only then."""
        for number, kind in enumerate(_OUTAGES):
            with self.subTest(kind), open(self.mounted / f"begun{number}", "rb", buffering=0) as file:
                self.assertTrue(os.pread(file.fileno(), 4096, 0) == self.content[:4096])
                with self.outage(kind):
                    reading = self.start_reading(file.fileno(), _HALF)
                    opening = Job("reading", self.read, f"new{number}")
                    time.sleep(4)  # several times timeo
                    self.assertFalse(reading.is_over() or opening.is_over(), "it should wait")
                self.assertTrue(reading.result() == self.content[_HALF:], "the bytes differ")
                self.assertTrue(opening.result() == self.content, "the bytes differ")

    def test_a_reader_that_waits_can_be_killed(self):
        for number, kind in enumerate(_OUTAGES):
            with self.subTest(kind), self.outage(kind):
                child = subprocess.Popen(["cat", self.mounted / f"new{number}"], stdout=subprocess.DEVNULL)
                time.sleep(2)
                self.assertIsNone(child.poll(), "it should wait")
                child.kill()
                child.wait(5)

    def test_what_is_cached_and_fresh_is_read_meanwhile(self):
        for number, kind in enumerate(_OUTAGES):
            time.sleep(3.1)  # the answer to an ACCESS is old by then: the next open asks for the reader below as well
            files.let_pages_go(self.mounted / "cached")
            with self.subTest(kind), files.remembered(self.mounted / "cached"), self.outage(kind):
                waiting = Job("reading", self.read, f"new{number}")
                reading = Job("reading what is cached", self.read, "cached")
                self.assertTrue(reading.result(30) == self.content, "the bytes differ")
                self.assertFalse(waiting.is_over(), "it should wait")
            waiting.result()

    def test_what_is_held_open_is_read_meanwhile_with_close_to_open(self):
        self.remount("timeo=10")
        with open(self.mounted / "cached", "rb", buffering=0) as file:
            for kind in _OUTAGES:
                with self.subTest(kind), self.outage(kind):
                    larder.drop_clean_pages()
                    opening = Job("reading", self.read, "cached")
                    self.assertTrue(self.start_reading(file.fileno()).result(30) == self.content, "the bytes differ")
                    self.assertFalse(opening.is_over(), "it should ask the server")
                self.assertTrue(opening.result() == self.content, "the bytes differ")


class SoftOverALink(OverALink):

    options = "soft,timeo=10,retrans=2"

    def assert_times_out(self, job):
        begin = time.monotonic()
        with self.assertRaises(OSError) as raised:
            job.result()
        self.assertIn(raised.exception.errno, (errno.EIO, errno.ETIMEDOUT))
        self.assertLess(time.monotonic() - begin, 30)  # of 2 s for each call; a hard mount waits on

    def test_reads_are_errors_after_the_deadline_until_packets_flow_again(self):
        for number, kind in enumerate(_OUTAGES):
            with self.subTest(kind), open(self.mounted / f"begun{number}", "rb", buffering=0) as file:
                self.assertTrue(os.pread(file.fileno(), 4096, 0) == self.content[:4096])
                with self.outage(kind):
                    reading = self.start_reading(file.fileno(), _HALF)
                    opening = Job("reading", self.read, f"new{number}")
                    time.sleep(1)
                    self.assertFalse(reading.is_over() or opening.is_over(), "it should wait for a while")
                    self.assert_times_out(reading)
                    self.assert_times_out(opening)
                wait_until(lambda: self.is_read(f"new{number}"), 20, "packets to flow again")
                self.assertTrue(os.pread(file.fileno(), len(self.content), 0) == self.content, "the bytes differ")

    def is_read(self, name):
        try:
            return self.read(name) == self.content
        except OSError:
            return False


class Stalls(MountedCase):
    """What the server does not answer holds up only those who asked for it."""

    LOOKUPS, READS = 200, 64
    QUICK = 5  # seconds, on a busy machine; who waits for the server does so until it answers
    READS_UNDER_WAY = 16  # of a MiB each: about as many the client asks for at a time over its two connections

    def fill(self):
        self.cached = self.random.randbytes(4 * _MIB)
        self.write("cached/large", self.cached)
        self.write("cached/small", self.cached[:10_000])
        for number in range(self.LOOKUPS):
            self.write(f"names/n{number}", b"")
        for number in range(self.READS):
            trees.write_file(self.write(f"data/f{number}", b""), 2 * _MIB, self.seed + number)

    def setUp(self):
        super().setUp()
        self.settle()
        self.read_until_cached("cached/large", "cached/small")
        self.stalled = []

    def stall(self, reads=READS):
        """Lookups and reads in threads of their own: as many as the client lets out wait at the proxy."""
        with Nfs3Client(self.server) as client:
            data, _ = client.lookup(client.root, b"data")
            names, _ = client.lookup(client.root, b"names")
            handles = [client.lookup(data, b"f%d" % number)[0] for number in range(reads)]
        for number in range(reads):
            os.stat(self.mounted / f"data/f{number}")
        os.stat(self.mounted / "names")
        self.proxy.hold_calls("LOOKUP", handle=names)
        for handle in handles:
            self.proxy.hold_calls("READ", handle=handle)
        self.start(os.stat, [self.mounted / f"names/n{n}" for n in range(self.LOOKUPS)])
        self.start(pathlib.Path.read_bytes, [self.mounted / f"data/f{n}" for n in range(reads)])
        self.proxy.wait_until_held(self.LOOKUPS + min(reads, self.READS_UNDER_WAY), 20)
        self.wait_until_no_more_come()
        self.assert_all_wait()

    def wait_until_no_more_come(self):
        """There is room for a few reads more, which must not be taken for those of cached files."""
        before, now = 0, self.proxy.held()
        while now != before:
            time.sleep(0.5)
            before, now = now, self.proxy.held()

    def start(self, function, arguments):
        self.stalled += [Job(str(argument), function, argument) for argument in arguments]

    def assert_all_wait(self):
        self.assertEqual([job.name for job in self.stalled if job.is_over()], [], "they should wait")

    @contextlib.contextmanager
    def stalling(self, reads=READS):
        """All of them wait as long as the block runs, and come back after it."""
        self.stall(reads)
        yield
        self.assert_all_wait()
        self.release()

    def release(self):
        self.proxy.release()
        for job in self.stalled:
            job.result(60)

    def seconds_of_reads(self, path, content):
        """Of an open and a read each, with nothing in the page cache."""
        return Job(f"reading {path}", self.time_reads, path, content).result()

    def time_reads(self, path, content):
        seconds = []
        for _ in range(20):
            files.let_pages_go(path)
            start = time.monotonic()
            with open(path, "rb", buffering=0) as file:
                self.assertTrue(os.pread(file.fileno(), len(content), 0) == content)
            seconds.append(time.monotonic() - start)
        return seconds

    def assert_quick(self, path, content):
        self.assertLess(max(self.seconds_of_reads(path, content)), self.QUICK)

    def assert_cached_files_are_read_as_quickly_as_ever(self):
        cached = {self.mounted / "cached/large": self.cached, self.mounted / "cached/small": self.cached[:10_000]}
        quiet = {path: statistics.median(self.seconds_of_reads(path, cached[path])) for path in cached}
        with self.stalling(), self.proxy.counting() as seen:
            for path, content in cached.items():
                seconds = self.seconds_of_reads(path, content)
                self.assertLess(max(seconds), self.QUICK)
                self.assertLess(statistics.median(seconds), 3 * quiet[path] + 0.5)
        self.assertEqual(seen["READ"], 0)

    def test_cached_files_are_read_as_quickly_as_ever(self):
        self.assert_cached_files_are_read_as_quickly_as_ever()

    def test_cached_files_are_read_as_quickly_as_ever_by_the_engine(self):
        self.remount("passthrough=no")
        before = self.larder.status()["mounts"][0]
        self.assert_cached_files_are_read_as_quickly_as_ever()
        after = self.larder.status()["mounts"][0]
        self.assertEqual(after["opens_passthrough"], 0)
        self.assertGreaterEqual(after["bytes_from_cache"] - before["bytes_from_cache"], 40 * len(self.cached))

    def test_uncached_files_that_the_server_answers_for_are_read(self):
        self.write("cached/fresh", self.cached)
        # No more than leaves room for others: the bytes on their way over a connection are bounded.
        with self.stalling(reads=4):
            self.assert_quick(self.mounted / "cached/fresh", self.cached)

    def test_another_mount_does_not_notice(self):
        other = self.directory / "other"
        other.mkdir()
        (other / "file").write_bytes(self.cached)
        server = self.serve(Export(other, "/other"))
        mounted = self.larder.mount(server.url("/other"), self.directory / "mnt-other")
        with self.stalling():
            self.assert_quick(mounted / "file", self.cached)
            self.assertEqual(os.listdir(mounted), ["file"])

    def test_a_held_open_file_is_read_while_the_server_is_frozen(self):
        with open(self.mounted / "cached/large", "rb", buffering=0) as file:
            self.server.freeze()
            try:
                larder.drop_page_cache()
                reading = Job("reading what is cached", os.pread, file.fileno(), len(self.cached), 0)
                self.assertTrue(reading.result() == self.cached)
            finally:
                self.server.thaw()


if __name__ == "__main__":
    main()
