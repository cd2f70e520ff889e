"""Our NFS client without a mount: whatever the link does, a tree's hashes are those of the server."""

import contextlib
import pathlib
import re
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import paths, rpc_proxy, trees
from harness.case import Case, main
from harness.processes import Process, wait_until

_PROBE = paths.BUILD / "tests/tools/nfs_probe"
_MIB = 1 << 20


class Hashes(Case):

    def setUp(self):
        super().setUp()
        self.export = self.directory / "export"
        self.export.mkdir()
        trees.small_files(self.export / "small", 300, sizes=(0, 20_000), seed=self.seed, a_directory=100)
        trees.deep_directories(self.export / "deep", depth=20)
        trees.write_file(self.export / "large", 24 * _MIB + 5, self.seed)
        self.server = self.serve()
        self.proxy = self.proxy_to(self.server)
        local = subprocess.run([_PROBE, "hash-local", self.export], check=True, capture_output=True)
        self.expected = local.stdout.decode().splitlines()

    def start_hashing(self, **options):
        url = self.proxy.url(**{"timeo": 10, **options})
        return self.begin(Process([_PROBE, "hash", url], self.directory / f"hash{len(self._logs)}"))

    def assert_equal_hashes(self, probe=None, seconds=60, **options):
        probe = probe or self.start_hashing(**options)
        self.assertEqual(probe.wait(seconds), 0)
        self.assertEqual(self.hashes(probe), self.expected)

    @staticmethod
    def hashes(probe):
        """What the probe printed, without what it logged."""
        return [line for line in probe.log_text().splitlines() if re.match("[0-9a-f]{16} ", line)]

    @contextlib.contextmanager
    def in_the_middle(self):
        """The block runs while the large file is being read; then the hashes must be right."""
        self.proxy.rate(60, direction="replies")
        probe = self.start_hashing()
        wait_until(lambda: self.proxy.counts()["read_bytes"] > 4 * _MIB, 20, "some megabytes")
        self.assertTrue(probe.is_running())
        yield probe
        self.proxy.rate(0)
        self.assert_equal_hashes(probe)

    def test_a_sound_link(self):
        with self.proxy.counting() as seen:
            self.assert_equal_hashes(timeo=600)  # what is late is not read a second time
        self.assertEqual(seen.read_bytes, 24 * _MIB + 5 + sum(
            path.stat().st_size for path in self.export.rglob("*") if path.is_file()
            and path.name != "large"))

    def test_a_slow_link_with_jitter(self):
        self.proxy.delay(3, 5)
        self.assert_equal_hashes()

    def test_fragments_and_tiny_segments(self):
        self.proxy.fragment(333)
        self.proxy.segment(1000)
        self.assert_equal_hashes()

    def test_a_server_without_readdirplus_or_attributes(self):
        self.proxy.without_readdirplus()
        self.proxy.strip_attributes()
        self.assert_equal_hashes()

    def test_a_restart_in_mid_read(self):
        with self.in_the_middle():
            self.server.restart()

    def test_cuts_in_mid_read(self):
        with self.in_the_middle():
            for _ in range(5):
                self.proxy.cut_all()
                time.sleep(0.1)

    def test_an_outage_of_seconds(self):
        with self.in_the_middle():
            self.server.kill9()
            self.proxy.refuse()
            time.sleep(2)
            self.proxy.refuse(False)
            self.server.start()

    def test_a_link_that_stands_still_for_seconds(self):
        with self.in_the_middle():
            self.proxy.freeze()
            time.sleep(3)
            self.proxy.thaw()

    def test_replies_cut_at_any_byte(self):
        for size in (1, 3, 4, 5, 27, 28, 32, 120, 128, 132, 137, 50_000):
            self.proxy.cut_reply_after("READ", size)
        self.assert_equal_hashes()

    def test_lost_calls_and_replies(self):
        for procedure in ("READDIRPLUS", "READ"):  # connecting itself is not repeated
            self.proxy.drop_calls(procedure, count=1)
            self.proxy.drop_replies(procedure, count=1)
        self.assert_equal_hashes()

    def test_replies_that_are_not_ours_are_overcome(self):
        for procedure in ("READ", "READDIRPLUS"):
            for damage in ("garbage", "xid", "mark"):
                with self.subTest(f"{procedure} {damage}"):
                    self.proxy.corrupt(procedure, damage, count=1)
                    self.assert_equal_hashes()

    def test_replies_that_make_no_sense_are_overcome_or_told(self):
        for procedure in ("READ", "READDIRPLUS"):
            with self.subTest(procedure):
                self.proxy.corrupt(procedure, "short", count=1)
                probe = self.start_hashing()
                if probe.wait(60) == 0:
                    self.assertEqual(self.hashes(probe), self.expected)
                else:
                    self.assertIn(procedure, probe.log_text())

    def test_a_server_that_asks_to_come_again_later(self):
        for procedure in ("READ", "READDIRPLUS", "FSINFO"):
            self.proxy.answer_with_error(procedure, rpc_proxy.NFS3ERR_JUKEBOX, count=2)
        self.assert_equal_hashes()

    def test_a_soft_deadline(self):
        self.proxy.swallow()
        start = time.monotonic()
        probe = self.start_hashing(soft="", timeo=5, retrans=1)
        self.assertEqual(probe.wait(30), 1)
        self.assertRegex(probe.log_text(), "127.0.0.1")
        self.assertLess(time.monotonic() - start, 20)


if __name__ == "__main__":
    main()
