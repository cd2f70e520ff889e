"""The harness itself: if a test here fails, no other integration test means anything."""

import errno
import os
import pathlib
import signal
import socket
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import cleanup, loopfs, netns, paths, processes, rpc_proxy, trees, tun_delay
from harness.case import Case, main
from harness.ganesha import Export
from harness.larder import drop_clean_pages
from harness.nfs3_client import BadReply, Nfs3Client, NfsError

_MIB = 1 << 20
_CONNECTION_LOST = (ConnectionError, BrokenPipeError)


class ServedCase(Case):
    """A server with a few files, a proxy before it, and a plain client of the proxy."""

    def setUp(self):
        super().setUp()
        self.export = self.directory / "export"
        self.export.mkdir()
        self.content = self.random.randbytes(3 * _MIB + 17)
        (self.export / "large").write_bytes(self.content)
        (self.export / "small").write_bytes(b"small file")
        self.server = self.serve()
        self.proxy = self.proxy_to(self.server)
        self.client = self.begin(Nfs3Client(self.proxy, timeout=5))
        self.large, _ = self.client.lookup(self.client.root, b"large")
        self.small, _ = self.client.lookup(self.client.root, b"small")

    def assert_times_out(self, function, *arguments):
        """Within 0.3 s; what is asked for next may take longer."""
        self.client.connection._socket.settimeout(0.3)
        try:
            self.assertRaises(TimeoutError, function, *arguments)
        finally:
            self.client.connection._socket.settimeout(5)

    def assert_works(self):
        self.client.reconnect()
        self.assertEqual(self.client.read(self.small, 0, 100)[0], b"small file")


class Counts(ServedCase):

    def test_every_call_is_counted_once(self):
        with self.proxy.counting() as seen:
            data = self.client.read_file(self.large)
            self.client.getattr(self.small)
            self.client.getattr(self.small)
        self.assertEqual(data, self.content)
        self.assertEqual(seen.calls, {"READ": 4, "GETATTR": 2})
        self.assertEqual(seen.read_bytes, len(self.content))
        self.assertEqual(seen["LOOKUP"], 0)
        self.assertGreater(seen.bytes_to_client, len(self.content))

    def test_mount_calls_are_counted_apart(self):
        with self.proxy.counting() as seen:
            Nfs3Client(self.proxy).close()
        self.assertEqual((seen.calls, seen.mount_calls), ({}, {"MNT": 1}))
        self.assertEqual(seen.connections, 2)

    def test_callers_are_told_apart(self):
        with self.proxy.counting() as seen, Nfs3Client(self.proxy, uid=1234, gid=5) as other:
            other.getattr(other.root)
        self.assertEqual(seen.uids, {1234: 2})

    def test_reset_starts_at_zero(self):
        self.client.getattr(self.small)
        self.proxy.reset()
        self.assertEqual(self.proxy.counts()["calls"], {})

    def test_a_command_that_makes_no_sense_is_answered_with_a_sentence(self):
        for words in (["drop"], ["drop", "calls", "NONSENSE"], ["delay", "both", "soon"], ["nonsense"],
                      ["hold", "calls", "READ", "handle", "0x"], ["hold", "calls", "READ", "count"]):
            with self.assertRaisesRegex(ValueError, "answered .* with: error ...", msg=words):
                self.proxy.command(*words)


class SlowLink(ServedCase):

    def test_a_delay_is_at_least_what_was_asked(self):
        self.proxy.delay(40)
        self.assertGreaterEqual(self.seconds_of_a_call(), 0.080)

    def test_one_direction_alone_can_be_slow(self):
        self.proxy.delay(60, direction="replies")
        best = min(self.seconds_of_a_call() for _ in range(10))  # a busy machine delays some more
        self.assertTrue(0.060 <= best < 0.120, best)

    def seconds_of_a_call(self):
        start = time.monotonic()
        self.client.getattr(self.small)
        return time.monotonic() - start

    def test_a_rate_limits_large_replies(self):
        self.proxy.rate(100, direction="replies")
        start = time.monotonic()
        self.assertEqual(self.client.read_file(self.large), self.content)
        self.assertGreaterEqual(time.monotonic() - start, len(self.content) * 8 / 100e6)

    def test_fragments_and_tiny_segments_carry_the_same_bytes(self):
        for fragment, segment in ((1, 0), (999, 0), (0, 1448), (7, 3), (0, 1)):
            self.proxy.fragment(fragment)
            self.proxy.segment(segment)
            self.assertEqual(self.client.read(self.large, 5, 100_003)[0], self.content[5:100_008],
                             f"fragment {fragment}, segment {segment}")


class LostMessages(ServedCase):

    def test_a_dropped_call_is_never_answered_and_the_next_is(self):
        self.proxy.drop_calls("GETATTR", count=1)
        self.assert_times_out(self.client.getattr, self.small)
        self.client.getattr(self.small)

    def test_a_dropped_reply_of_one_file_spares_the_others(self):
        self.proxy.drop_replies("READ", handle=self.large)
        self.assertEqual(self.client.read(self.small, 0, 100)[0], b"small file")
        self.assert_times_out(self.client.read, self.large, 0, 100)

    def test_held_calls_go_on_when_released_and_do_not_delay_others(self):
        self.proxy.hold_calls("READ", handle=self.large)
        held = self.client.start_read(self.large, 0, 10)
        self.assertEqual(self.client.read(self.small, 0, 100)[0], b"small file")
        self.assertEqual(self.proxy.held(), 1)
        self.assertEqual(self.proxy.release("READ"), 1)
        self.assertEqual(self.client.connection.receive()[0], held)

    def test_a_held_reply_has_been_executed(self):
        self.proxy.hold_replies("GETATTR", count=1)
        self.assert_times_out(self.client.getattr, self.small)
        self.assertEqual(self.proxy.held(), 1)
        self.proxy.heal()
        self.client.connection.receive()

    def test_swallowed_connections_hang_and_later_ones_work(self):
        self.proxy.swallow()
        self.assert_times_out(self.client.getattr, self.small)
        self.client.reconnect()
        self.assert_times_out(self.client.null)
        self.proxy.swallow(False)
        self.assert_works()

    def test_a_frozen_proxy_goes_on_where_it_stopped(self):
        self.proxy.freeze()
        call = self.client.start_read(self.small, 0, 10)
        self.client.connection._socket.settimeout(0.2)
        self.assertRaises(TimeoutError, self.client.connection.receive)
        self.proxy.thaw()
        self.client.connection._socket.settimeout(5)
        self.assertEqual(self.client.connection.receive()[0], call)


class BrokenConnections(ServedCase):

    def test_cut_ends_every_connection(self):
        self.proxy.cut_all()
        self.assertRaises(_CONNECTION_LOST, self.client.getattr, self.small)
        self.assert_works()

    def test_a_reply_is_cut_after_so_many_bytes(self):
        self.proxy.cut_reply_after("READ", 70_000)
        with self.proxy.counting() as seen:
            with self.assertRaisesRegex(ConnectionError, "after 69996 of"):  # and 4 bytes of mark
                self.client.read(self.large, 0, _MIB)
        self.assertEqual(seen["READ"], 1)
        self.assert_works()

    def test_refused_connections_are_accepted_again_at_the_same_port(self):
        self.proxy.refuse()
        self.assertRaises(ConnectionRefusedError, self.client.reconnect)
        self.proxy.refuse(False)
        self.assert_works()

    def test_damaged_replies_are_noticed(self):
        for damage, noticed in (("garbage", BadReply), ("short", BadReply), ("mark", TimeoutError)):
            with self.subTest(damage):
                self.proxy.corrupt("GETATTR", damage, count=1)
                self.client.connection._socket.settimeout(2)
                self.assertRaises((noticed, BadReply), self.client.getattr, self.small)
                self.client.reconnect()
        self.proxy.corrupt("GETATTR", "xid", count=1)
        self.assert_times_out(self.client.getattr, self.small)
        self.assertEqual(self.client.connection.skipped_replies, 1)

    def test_a_server_that_is_gone_ends_the_connection(self):
        self.server.kill9()
        self.assertRaises(_CONNECTION_LOST, self.client.getattr, self.small)
        self.server.start()
        self.assert_works()


class AlteredReplies(ServedCase):

    def test_errors_are_answered_in_the_servers_stead(self):
        self.proxy.answer_with_error("LOOKUP", rpc_proxy.NFS3ERR_JUKEBOX, count=1)
        with self.assertRaises(NfsError) as raised:
            self.client.lookup(self.client.root, b"small")
        self.assertEqual(raised.exception.status, rpc_proxy.NFS3ERR_JUKEBOX)
        self.client.lookup(self.client.root, b"small")

    def test_readdirplus_can_be_taken_away(self):
        self.proxy.without_readdirplus()
        with self.assertRaises(NfsError) as raised:
            self.client.readdirplus(self.client.root)
        self.assertEqual(raised.exception.status, rpc_proxy.NFS3ERR_NOTSUPP)

    def test_replies_without_attributes_carry_the_same_data(self):
        self.proxy.strip_attributes()
        data, _, attributes = self.client.read(self.large, 0, 1000)
        self.assertEqual((data, attributes), (self.content[:1000], None))
        self.assertIsNone(self.client.lookup(self.client.root, b"small")[1])
        self.assertEqual({name: entry[1] for name, entry in
                          self.client.readdirplus(self.client.root).items()
                          if name in (b"large", b"small")}, {b"large": None, b"small": None})
        self.assertEqual(self.client.getattr(self.small).size, 10, "GETATTR cannot do without")

    def test_frozen_attributes_hide_a_change(self):
        self.proxy.freeze_attributes(self.export / "small")
        before = self.client.getattr(self.small)
        (self.export / "small").write_bytes(b"a longer text")
        after = self.client.getattr(self.small)
        self.assertEqual((after.size, after.mtime, after.ctime),
                         (before.size, before.mtime, before.ctime))
        entry = self.client.readdirplus(self.client.root)[b"small"][1]
        self.assertEqual((entry.size, entry.mtime), (before.size, before.mtime))
        self.proxy.thaw_attributes()
        self.assertEqual(self.client.getattr(self.small).size, 13)

    def test_the_servers_clock_can_be_an_hour_off_and_coarse(self):
        true = self.client.getattr(self.small)
        self.proxy.shift_times(-3600)
        self.proxy.whole_seconds()
        shown = self.client.getattr(self.small)
        self.assertEqual(shown.mtime, (true.mtime[0] - 3600, 0))
        self.assertEqual(self.client.read(self.small, 0, 1)[2].ctime, (true.ctime[0] - 3600, 0))

    def test_a_directory_can_look_like_another_filesystem(self):
        (self.export / "sub").mkdir()
        (self.export / "sub/file").write_text("x")
        here = self.client.getattr(self.client.root).fsid
        self.proxy.fake_submount(self.export / "sub", 4711)
        sub, attributes = self.client.lookup(self.client.root, b"sub")
        self.assertEqual(attributes.fsid, 4711)
        self.assertEqual(self.client.readdirplus(sub)[b"file"][1].fsid, 4711)
        self.assertEqual(self.client.getattr(self.client.root).fsid, here)

    def test_unaltered_replies_of_all_sizes_are_passed_on_while_others_are_altered(self):
        self.proxy.shift_times(1)
        self.assertEqual(self.client.read_file(self.large), self.content)


class Server(Case):

    def test_handles_survive_a_restart(self):
        server = self.serve()
        (self.directory / "export/file").write_text("text")
        with Nfs3Client(server) as client:
            handle, _ = client.lookup(client.root, b"file")
            server.restart()
            client.reconnect()
            self.assertEqual(client.read(handle, 0, 10)[0], b"text")

    def test_a_frozen_server_answers_after_the_thaw(self):
        server = self.serve()
        with Nfs3Client(server, timeout=2) as client:
            server.freeze()
            self.assertRaises(TimeoutError, client.null)
            server.thaw()
            client.reconnect()
            client.null()

    def test_exports_have_their_own_rules(self):
        one, two = self.directory / "one", self.directory / "two"
        for directory in (one, two):
            directory.mkdir()
            (directory / "secret").write_text("for root")
            os.chmod(directory / "secret", 0o600)
        server = self.serve(Export(one, "/one"), Export(two, "/two", squash="Root_Squash", read_only=True))
        for name, allowed in (("/one", True), ("/two", False)):
            with Nfs3Client(server, name) as client:
                handle, _ = client.lookup(client.root, b"secret")
                if allowed:
                    self.assertEqual(client.read(handle, 0, 10)[0], b"for root")
                else:
                    self.assertRaises(NfsError, client.read, handle, 0, 10)

    def test_an_export_in_memory_is_empty(self):
        server = self.serve(Export("/", "/memory", fsal="MEM"))
        with Nfs3Client(server, "/memory") as client:
            self.assertEqual(set(client.readdirplus(client.root)) - {b".", b".."}, set())


class Network(Case):

    def test_a_namespace_has_its_own_ports(self):
        first, second = self.begin(netns.Namespace("a")), self.begin(netns.Namespace("b"))
        for namespace in (first, second):
            with namespace.entered(), socket.create_server(("127.0.0.1", 2049)):
                pass
        netns.connect(first, second, "10.98.0.1/24", "10.98.0.2/24")
        with second.entered():
            server = socket.create_server(("10.98.0.2", 2049))
        with first.entered():
            socket.create_connection(("10.98.0.2", 2049), 5).close()
        server.close()

    def test_a_slow_link_delays_real_tcp(self):
        first, second = self.begin(netns.Namespace("c")), self.begin(netns.Namespace("d"))
        self.begin(tun_delay.TunDelay(first, second, self.directory / "tun.log", delay_ms=20))
        with second.entered():
            server = socket.create_server((tun_delay.SECOND_ADDRESS, 2049))
        start = time.monotonic()
        with first.entered():
            socket.create_connection((tun_delay.SECOND_ADDRESS, 2049), 5).close()
        self.assertGreaterEqual(time.monotonic() - start, 0.040)
        server.close()

    def test_a_server_in_another_network_is_reached_over_a_slow_link(self):
        here, there = self.begin(netns.Namespace("e")), self.begin(netns.Namespace("f"))
        link = self.begin(tun_delay.TunDelay(here, there, self.directory / "tun.log", delay_ms=5,
                                             rate_mbit=100))
        server = self.serve(address=tun_delay.SECOND_ADDRESS, namespace=there)
        content = self.random.randbytes(2 * _MIB)
        (self.directory / "export/file").write_bytes(content)
        with here.entered():
            client = self.begin(Nfs3Client(server, timeout=5))
        handle, _ = client.lookup(client.root, b"file")
        start = time.monotonic()
        self.assertEqual(client.read_file(handle), content)
        self.assertGreaterEqual(time.monotonic() - start, len(content) * 8 / 100e6)
        link.down()
        client.connection._socket.settimeout(0.3)
        self.assertRaises(TimeoutError, client.null)


class Filesystems(Case):

    def test_reads_behind_the_end_of_a_disk_cut_short_fail(self):
        disk = self.begin(loopfs.LoopFs(self.directory / "disk", 64 * _MIB))
        content = self.random.randbytes(16 * _MIB)
        (disk.mountpoint / "file").write_bytes(content)
        disk.unmount()
        disk.mount()
        disk.cut_short(4 * _MIB)
        drop_clean_pages()  # a copy of the mount, in a namespace of another test, may have kept them
        with self.assertRaises(OSError) as raised:
            (disk.mountpoint / "file").read_bytes()
        # ext4 says ENOMEM where one of its own blocks lies behind the device's end, EIO for data.
        self.assertIn(raised.exception.errno, (errno.EIO, errno.ENOMEM))

    def test_a_filled_disk_is_full(self):
        disk = self.begin(loopfs.LoopFs(self.directory / "disk", 32 * _MIB))
        disk.fill()
        with self.assertRaises(OSError) as raised:
            (disk.mountpoint / "more").write_bytes(bytes(_MIB))
        self.assertEqual(raised.exception.errno, 28)

    def test_xfs_and_a_read_only_remount(self):
        disk = self.begin(loopfs.LoopFs(self.directory / "disk", 320 * _MIB, kind="xfs"))
        disk.remount("ro")
        self.assertRaises(OSError, (disk.mountpoint / "file").write_bytes, b"x")


class Trees(Case):

    def make_tree(self, directory):
        trees.small_files(directory / "small", 50, seed=self.seed, a_directory=20)
        trees.odd_names(directory / "odd")
        trees.hard_links(directory / "links")
        trees.special_files(directory / "special")
        trees.deep_directories(directory / "deep")
        trees.sparse_file(directory / "sparse", 10 * _MIB, {5 * _MIB: b"island"})

    def test_a_copy_has_an_equal_digest(self):
        self.make_tree(self.directory / "tree")
        trees.copy_of(self.directory / "tree", self.directory / "copy")
        self.assert_same_tree(self.directory / "tree", self.directory / "copy")

    def test_each_kind_of_difference_is_told(self):
        tree = self.directory / "tree"
        self.make_tree(tree)
        before = trees.digest(tree)
        self.assertEqual(trees.difference(before, trees.digest(tree)), "")
        stamps = os.stat(tree / "sparse")
        with open(tree / "sparse", "r+b") as file:
            file.write(b"!")
        os.utime(tree / "sparse", ns=(stamps.st_atime_ns, stamps.st_mtime_ns))
        os.chmod(tree / "links/first", 0o600)
        os.unlink(tree / "special/link")
        (tree / "new").write_text("new")
        told = trees.difference(before, trees.digest(tree))
        for sentence in ("'sparse': sha256 is", "'links/first': mode is 0o600",
                         "missing: 'special/link'", "not expected: 'new'"):
            self.assertIn(sentence, told)

    def test_odd_names_survive_the_server(self):
        (self.directory / "export").mkdir()
        names = trees.odd_names(self.directory / "export/odd")
        with Nfs3Client(self.serve()) as client:
            odd, _ = client.lookup(client.root, b"odd")
            self.assertEqual(set(client.readdirplus(odd)) - {b".", b".."}, set(names))


class Undoing(Case):

    def test_leftovers_are_found_and_can_be_removed(self):
        disk = loopfs.LoopFs(self.directory / "disk", 8 * _MIB)
        # setsid(1) forks and ends when it leads a process group: the sleeper is what stays.
        child = processes.Process(["setsid", "sleep", "1000"], self.directory / "log")
        namespace = netns.Namespace("left")
        left = "\n".join(cleanup.leftovers())
        for sentence in (f"mounted: {disk.mountpoint}", " sleep 1000",
                         "loop device: /dev/loop", f"network namespace: {namespace.name}"):
            self.assertIn(sentence, left)
        cleanup.remove_leftovers()
        self.assertEqual(cleanup.lasting_leftovers(), [])
        child.end()

    def test_a_terminated_test_program_leaves_nothing(self):
        program = self.directory / "program.py"
        program.write_text(f"""
import sys
sys.path.insert(0, {str(paths.REPOSITORY / "tests")!r})
from harness import loopfs, netns, paths
from harness.case import Case, main
class Endless(Case):
    def test_endless(self):
        server = self.serve()
        self.begin(loopfs.LoopFs(self.directory / "disk", 8 << 20))
        namespace = netns.Namespace("x")
        print("begun", paths.temporary_root(), server.pid, namespace.name, flush=True)
        import time
        time.sleep(1000)
main()
""")
        child = self.begin(processes.Process([sys.executable, program], self.directory / "log"))
        begun = child.wait_for_line(r"begun (\S+) (\d+) (\S+)", 20)
        child.send(signal.SIGTERM)
        child.wait(30)
        self.assertFalse(os.path.exists(begun[1]))
        self.assertFalse(processes.is_running(int(begun[2])))
        self.assertFalse(os.path.exists(f"/run/netns/{begun[3]}"))
        self.assertEqual(cleanup.mounts_under(begun[1]), [])


if __name__ == "__main__":
    main()
