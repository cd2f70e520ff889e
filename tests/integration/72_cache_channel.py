"""The cache channel: who holds one gives the engine a cache, cares for it, and takes it away by hanging up."""

import os
import pathlib
import shutil
import socket
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import larder, loopfs, trees
from harness.cache_channel import CacheChannel, Refused
from harness.cachefilesd import Cachefilesd
from harness.case import main
from harness.held_case import HeldCase
from harness.mounted_case import MountedCase
from harness.processes import wait_until
from harness.users import as_user

_MIB = 1 << 20
_TAG = "farm"
_CROWD = 40  # connections


def unless_busy(take):
    """What it returns; None if it is refused because somebody else has it."""
    try:
        return take()
    except Refused as refused:
        if refused.name != "EBUSY":
            raise
        return None


class ChannelCase(HeldCase):
    """The mount names a cache by its tag, which is not there yet."""

    tag = _TAG

    def open_channel(self):
        return self.begin(CacheChannel(self.larder.runtime_directory))

    def hold(self, *settings):
        """Again while it is busy: who had it before has to close it, which takes its disk's time."""
        return wait_until(lambda: self.hold_if_free(*settings), 60, "the cache to be free")

    def hold_if_free(self, *settings):
        return unless_busy(lambda: self.try_to_hold(*settings))

    def try_to_hold(self, *settings):
        channel = self.open_channel()
        channel.bind(self.place, f"tag {_TAG}", *settings)
        return channel

    def hold_after(self, channel):
        """Returns the next one, and whether it came at once."""
        channel.stop()
        following = self.hold_if_free()
        return following or self.hold(), following is not None

    def hang_up(self, channel):
        channel.stop()
        self.wait_for_state("withdrawn")


class Life(ChannelCase):

    def test_a_mount_uses_the_cache_when_it_appears(self):
        self.assertIn("no cachefilesd has brought", self.cache()["trouble"])
        self.assertGreater(self.read_all_cold(), 12 * _MIB)
        self.assertGreater(self.read_all_cold(), 12 * _MIB, "there is no cache yet")
        self.hold()
        self.assertEqual(self.cache()["state"], "active")
        self.assertEqual(self.cache()["trouble"], "")
        self.assertEqual(self.cache()["path"], str(self.place))
        self.read_until_warm()

    def test_hanging_up_is_the_release_and_it_comes_back_warm(self):
        channel = self.hold()
        self.read_until_warm()
        self.hang_up(channel)
        self.assertIn("ended", self.cache()["trouble"])
        self.assertGreater(self.read_all_cold(), 12 * _MIB)
        channel = self.hold()
        self.read_until_warm()
        self.hang_up(channel)
        # Nobody has it: the same directory may be bound under another tag, or by another program.
        other = self.open_channel()
        wait_until(lambda: self.binds(other, "tag other"), 60, "the directory to be free")

    def binds(self, channel, *settings):
        try:
            channel.bind(self.place, *settings)
        except Refused as refused:
            if refused.name == "EEXIST":  # settings of the first try
                try:
                    channel.command("bind")
                except Refused:
                    return False
                return True
            return False
        return True

    def test_who_holds_a_file_reads_on_and_does_not_keep_the_cache_away(self):
        channel = self.hold()
        self.read_until_warm()
        expected = (self.export / "large0").read_bytes()
        with open(self.mounted / "large0", "rb") as held, open(self.mounted / "small.txt", "wb"):
            self.assertGreater(self.larder.status()["mounts"][0]["opens_passthrough"], 0)
            self.hang_up(channel)
            larder.drop_page_cache()
            self.assertEqual(held.read(), expected)
            channel = self.hold()
            self.assertEqual(self.cache()["state"], "active")
            larder.drop_page_cache()
            held.seek(0)
            self.assertEqual(held.read(), expected)
        self.assertLess(self.read_all_cold(), _MIB)

    def test_the_next_holder_may_come_at_once(self):
        """Before the engine has closed what the one before him held."""
        channel = self.hold()
        self.read_until_warm()
        self.wait_for_objects()
        came_at_once = 0
        for _ in range(30):
            channel, at_once = self.hold_after(channel)
            came_at_once += at_once
        self.assertGreater(came_at_once, 0)
        self.assertLess(self.read_all_cold(), _MIB)

    def test_the_next_holder_waits_for_one_who_was_killed_in_the_middle_of_a_cull(self):
        channel = self.hold()
        self.read_until_warm()
        objects = self.wait_for_objects()
        came_at_once = 0
        for _ in range(20):
            channel.send("cull " + "\n".join(objects))
            channel, at_once = self.hold_after(channel)
            came_at_once += at_once
        self.assertGreater(came_at_once, 0)
        self.assertEqual(self.cache()["state"], "active")

    def test_what_changed_on_the_server_meanwhile_is_fetched(self):
        channel = self.hold()
        self.read_until_warm()
        self.hang_up(channel)
        trees.write_file(self.export / "large1", 2 * _MIB + 1, self.seed + 99)
        self.settle()
        self.hold()
        self.read_until_warm()

    def test_the_engine_ends_with_a_channel_open(self):
        channel = self.hold()
        self.read_until_warm()
        self.larder.restart()
        with self.assertRaises((EOFError, ConnectionError)):
            channel.state()
        self.mount()
        self.hold()
        self.assertLess(self.read_all_cold(), _MIB, "it was closed in order")

    def test_two_caches_and_two_holders(self):
        self.hold()
        with self.assertRaises(Refused) as refused:
            self.try_to_hold()
        self.assertEqual(refused.exception.name, "EBUSY")
        other = self.open_channel()
        with self.assertRaises(Refused):
            other.bind(self.place, "tag another")
        place = self.directory / "second"
        self.make_place(place)
        second = self.open_channel()
        second.bind(place, "tag second")
        self.assertEqual({cache["tag"]: cache["state"] for cache in self.larder.status()["caches"]
                          if cache["state"] == "active"}, {_TAG: "active", "second": "active"})
        self.read_until_warm()
        self.assertEqual(second.state()["objects"], 0)


class Detach(ChannelCase):

    def test_detaching_frees_the_disk_until_it_is_attached(self):
        channel = self.hold()
        self.read_until_warm()
        # The command waits 15 s; files that were closed keep the cache for ten, and then its disk must have them.
        wait_until(lambda: "disk is free" in self.larder.run("cache", "detach", _TAG), 60, "the disk to be free")
        with self.assertRaises((EOFError, ConnectionError)):
            channel.state()
        self.assertIn("larder cache attach", self.cache()["trouble"])
        self.assertEqual(self.engines_files_in(self.place), [])
        self.assertGreater(self.read_all_cold(), 12 * _MIB)
        with self.assertRaises(Refused) as refused:
            self.try_to_hold()
        self.assertEqual(refused.exception.name, "EBUSY")
        self.larder.run("cache", "attach", self.place)  # as good a name
        self.hold()
        self.read_until_warm()

    def engines_files_in(self, place):
        found = []
        for name in os.listdir(f"/proc/{self.larder.engine_pid()}/fd"):
            try:
                path = os.readlink(f"/proc/{self.larder.engine_pid()}/fd/{name}")
            except FileNotFoundError:
                continue
            if path.startswith(str(place)):
                found.append(path)
        return found

    def test_the_next_engine_knows_of_it(self):
        self.hold()
        self.larder.run("cache", "detach", _TAG)
        self.larder.kill_engine()
        self.larder.forget_dead_mounts()
        wait_until(self.is_served_again, 20, "the next engine")
        self.assertIn("larder cache attach", self.cache()["trouble"])
        with self.assertRaises(Refused) as refused:
            self.try_to_hold()
        self.assertEqual(refused.exception.name, "EBUSY")
        self.larder.run("cache", "attach", _TAG)
        self.hold()
        self.assertEqual(self.cache()["state"], "active")

    def is_served_again(self):
        try:
            return bool(self.larder.status()["caches"])
        except larder.Refused:
            return False

    def test_who_keeps_it_is_named(self):
        self.hold()
        self.read_until_warm()
        with open(self.mounted / "large0", "rb") as held:
            told = self.larder.run("cache", "detach", _TAG)
            self.assertIn(f"process {os.getpid()} ", told)
            self.assertIn(str(self.mounted / "large0"), told)
            self.assertEqual(held.read(), (self.export / "large0").read_bytes())

    def test_what_is_not_there_is_refused(self):
        self.assertIn("no cache nobody", self.larder.refusal("cache", "detach", "nobody"))
        self.assertIn("not detached", self.larder.refusal("cache", "attach", _TAG))


    def test_what_was_told_before_does_not_hold_after_attach(self):
        channel = self.hold()
        self.larder.run("cache", "detach", _TAG)
        self.larder.run("cache", "attach", _TAG)
        self.assertIn("waits for its cachefilesd", self.cache()["trouble"])
        channel.stop()
        shutil.rmtree(self.place)
        self.make_place(self.place)
        (self.place / "strange").write_bytes(b"")
        began = time.monotonic()
        with self.assertRaises(Refused):
            self.try_to_hold()
        self.assertLess(time.monotonic() - began, 5, "nothing that waiting would change")
        self.assertIn("cannot be used", self.cache()["trouble"])


class NamedByDirectory(MountedCase):
    """A mount names the directory of its cache: the engine has it, as long as no channel takes it over."""

    def fill(self):
        for number in range(4):
            trees.write_file(self.export / f"large{number}", 2 * _MIB + number, self.seed + number)

    def setUp(self):
        super().setUp()
        self.settle()
        self.place = self.larder.cache_directory
        self.wait_until_warm()

    def cache(self):
        return self.larder.status()["caches"][0]

    def from_server(self):
        return sum(mount["bytes_from_server"] for mount in self.larder.status()["mounts"])

    def read_cold(self):
        larder.drop_page_cache()
        before = self.from_server()
        self.assert_same_tree(self.export, self.mounted)
        return self.from_server() - before

    def wait_until_warm(self):
        wait_until(lambda: self.read_cold() == 0, 90, "everything to come from the cache")

    def take_over(self):
        """Again while it is busy: who had it before has to close it."""
        return wait_until(self.take_over_if_free, 60, "the cache to be free")

    def take_over_if_free(self):
        return unless_busy(self.try_to_take_over)

    def try_to_take_over(self):
        channel = self.begin(CacheChannel(self.larder.runtime_directory))
        channel.bind(self.place)
        return channel

    def test_a_channel_that_took_it_over_hangs_up_with_a_file_open(self):
        channel = self.take_over()
        self.assertIn("process", self.cache()["holder"])
        with open(self.mounted / "large0", "rb") as held:
            held.read(10)
            channel.stop()
            wait_until(lambda: self.cache()["state"] == "withdrawn", 20, "it to be withdrawn")
            self.assertGreater(self.read_cold(), 0)
            self.larder.mount(self.proxy.url(), self.directory / "other", self.options)
            wait_until(lambda: self.cache()["state"] == "active", 60, "the engine to have it again")
            self.assertEqual(self.cache()["holder"], "")
            self.wait_until_warm()
            channel = self.take_over()
            channel.stop()
            wait_until(lambda: self.cache()["state"] == "withdrawn", 20, "it to be withdrawn")
            self.take_over()
            self.wait_until_warm()

    def test_it_is_attached_with_a_file_open(self):
        with open(self.mounted / "large0", "rb") as held:
            held.read(10)
            self.assertIn("still open", self.larder.run("cache", "detach", self.place))
            self.larder.run("cache", "attach", self.place)
            wait_until(lambda: self.cache()["state"] == "active", 60, "it to be online")
            self.assertEqual(self.cache()["trouble"], "")
            self.wait_until_warm()

    def test_its_size_outlives_being_detached(self):
        self.remount("cachesize=30M")
        for verb in ("detach", "attach"):
            self.larder.run("cache", verb, self.place)
        wait_until(lambda: self.cache()["state"] == "active", 60, "it to be online")
        self.assertEqual(self.cache()["limit_bytes"], 30 * _MIB)

    def test_another_tag_is_told_who_has_it(self):
        channel = self.begin(CacheChannel(self.larder.runtime_directory))
        with self.assertRaises(Refused) as refused:
            channel.bind(self.place, "tag another")
        self.assertEqual(refused.exception.name, "EBUSY")
        self.assertIn(str(self.place), refused.exception.sentence)


class HangingDisk(MountedCase):
    """The disk of the cache that the mount names does not answer from the start."""

    def fill(self):
        trees.write_file(self.export / "file", _MIB, self.seed)

    def cache_directory(self):
        self.disk = self.begin(loopfs.LoopFs(self.directory / "disk", 64 * _MIB))
        self.disk.freeze()
        self._cleanup.defer(self.disk.thaw)
        return self.disk.mountpoint / "cache"

    def test_it_is_detached_while_it_is_being_bound(self):
        told = self.larder.run("cache", "detach", self.larder.cache_directory)
        self.assertNotIn("disk is free", told)
        self.disk.thaw()
        time.sleep(12)  # it is tried again every 10 seconds
        cache = self.larder.status()["caches"][0]
        self.assertEqual(cache["state"], "not-present")
        self.assertIn("larder cache attach", cache["trouble"])
        self.larder.run("cache", "attach", self.larder.cache_directory)
        wait_until(lambda: self.larder.status()["caches"][0]["state"] == "active", 20, "it to be online")


class Crowd(ChannelCase):
    """Connections that say nothing must not cost anybody a cache."""

    def connect_as(self, user, count):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            as_user(user, user, [], _connect_and_send, theirs, self.larder.runtime_directory, count)
            _, descriptors, _, _ = socket.recv_fds(ours, 1, count)
        for descriptor in descriptors:
            self._cleanup.defer(os.close, descriptor)

    def crowd(self):
        """More than there is room for, of four users and the engine's own."""
        for user in (*range(40000, 40004), os.stat(f"/proc/{self.larder.engine_pid()}").st_uid):
            self.connect_as(user, _CROWD)

    def test_a_daemon_stays_and_comes_back(self):
        daemon = self.begin(Cachefilesd(self.directory / "daemon", self.larder.runtime_directory, self.place,
                                        f"tag {_TAG}"))
        self.wait_for_state("active")
        self.crowd()
        for _ in range(5):
            self.assertEqual(self.cache()["state"], "active")
        daemon.end_in_order()
        self.wait_for_state("withdrawn")
        self.crowd()
        daemon.start()
        self.wait_for_state("active")
        self.assertNotIn("is not online any more", daemon.log_text())


def _connect_and_send(to_parent, runtime_directory, count):
    """The kernel tells the engine who called connect(): this user, whoever has the connection later."""
    connections = []
    for _ in range(count):
        connections.append(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        connections[-1].connect(str(runtime_directory / "control.sock"))
    socket.send_fds(to_parent, [b"x"], [connection.fileno() for connection in connections])
    for connection in connections:
        connection.close()


class Commands(ChannelCase):

    def refused(self, channel, command):
        """The errno's name and the sentence, which must be one."""
        with self.assertRaises(Refused, msg=command) as refused:
            channel.command(command)
        self.assertRegex(refused.exception.sentence, r"\w+ \w+ \w+", command)
        return refused.exception.name, refused.exception.sentence

    def assert_refused(self, channel, command, name, remedy):
        """`remedy`: in the words of the sentence."""
        told, sentence = self.refused(channel, command)
        self.assertEqual(told, name, command)
        self.assertIn(remedy, sentence, command)

    def test_what_the_kernel_refuses_is_refused_with_its_errno(self):
        channel = self.open_channel()
        for command, name, remedy in (
                ("nonsense", "EOPNOTSUPP", "no command"), (" bind", "EOPNOTSUPP", "no command"),
                ("\nbind", "EINVAL", "begins with a newline"), ("bind", "EINVAL", "name the directory first"),
                ("cull Ix/@00/Dy", "EIO", "before bind"), ("inuse Ix/@00/Dy", "EIO", "before bind"),
                ("state", "EIO", "before bind"), ("oldest 3", "EIO", "before bind"),
                ("dir", "EINVAL", "give an absolute path"), ("dir relative", "EINVAL", "give an absolute path"),
                ("tag", "EINVAL", "give a name"), ("tag a/b", "EINVAL", "give a name"),
                ("brun 10", "EINVAL", "write a whole number"), ("brun x%", "EINVAL", "write a whole number"),
                ("brun 100%", "EINVAL", "write a whole number"), ("brun 7%", "EINVAL", "begin with run"),
                ("bcull 3%", "EINVAL", "begin with run"), ("bstop 7%", "EINVAL", "begin with run"),
                ("secctx system_u:system_r:cachefiles_kernel_t:s0", "EINVAL", "leave the line out"),
                ("debug x", "EINVAL", "give a number"), ("size x", "EINVAL", "give a whole number"),
                ("bind ondemand", "EINVAL", "write bind alone")):
            self.assert_refused(channel, command, name, remedy)
        for command in ("brun 20%", "bcull 15%", "bstop 5%", "frun  12%", "size 64M", "debug 0",
                        f"tag {_TAG}"):
            self.assertEqual(channel.command(command), "")
        self.assert_refused(channel, "tag again", "EEXIST", "once is enough")
        channel.bind(self.place)
        self.assert_refused(channel, "bind", "EBUSY", "bound already")
        for command in ("dir /elsewhere", "tag again"):
            self.assert_refused(channel, command, "EEXIST", "begin anew")
        state = channel.state()
        blocks = os.statvfs(self.place)
        whole = blocks.f_blocks * blocks.f_frsize // state["bsize"]
        self.assertEqual(state["size"], 64 * _MIB)
        for name, percent in (("brun", 20), ("bcull", 15), ("bstop", 5)):
            self.assertAlmostEqual(state[name] / whole, percent / 100, places=3)
        for name, percent in (("frun", 12), ("fcull", 7), ("fstop", 3)):
            self.assertAlmostEqual(state[name] / blocks.f_files, percent / 100, places=3)
        channel.command("bcull 10%")
        self.assertAlmostEqual(channel.state()["bcull"] / whole, 0.1, places=3)

    def test_an_object_that_stays_is_told_why(self):
        channel = self.hold()
        self.read_until_warm()
        parents = [path.rpartition("/")[0] for path in self.wait_for_objects()]
        with open(self.mounted / "large0", "rb"):
            used = next(path for path, outcome in zip(self.objects(), channel.cull(self.objects()))
                        if outcome == "EBUSY")
            for word in ("cull", "inuse"):
                self.assert_refused(channel, f"{word} {used}", "EBUSY", f"{used} is in use: it can go when")
                self.assert_refused(channel, f"{word} {parents[0]}/Dgone", "ENOENT", "Dgone is gone: ")
                self.assert_refused(channel, f"{word} Inone/@00/Dx", "EINVAL", "give the path of")
                self.assert_refused(channel, word, "EINVAL", "give its path")
        self.assert_refused(channel, "oldest x", "EINVAL", "give a number of seconds")

    def test_what_the_system_refuses_is_told_with_a_remedy(self):
        roots = self.directory / "roots"
        roots.mkdir()
        (roots / "cache").mkdir(mode=0o700)
        file = self.directory / "file"
        file.touch()
        for path, name, remedy in (
                (roots, "EACCES", f"no cache in {roots}: it and all in it must belong to the engine's user"),
                (file, "EINVAL", "give that of a directory")):
            channel = self.open_channel()
            descriptor = os.open(path, os.O_RDONLY)
            try:
                channel.command(f"dir {path}", descriptor)
            finally:
                os.close(descriptor)
            self.assert_refused(channel, "bind", name, remedy)

    def test_a_directory_that_is_not_a_cache_is_refused_and_bind_may_be_tried_again(self):
        (self.place / "letter").write_text("of somebody else\n")
        channel = self.open_channel()
        with self.assertRaises(Refused) as refused:
            channel.bind(self.place, f"tag {_TAG}")
        self.assertIn("letter", refused.exception.sentence)
        (self.place / "letter").unlink()
        channel.command("bind")
        self.read_until_warm()

    def test_only_what_mounts_name_is_opened_by_its_path(self):
        channel = self.open_channel()
        channel.command(f"dir {self.place}")
        self.assert_refused(channel, "bind", "EACCES", f"{self.place} as its cache: let one name it")

    def test_only_root_and_the_engines_user_may_hold_a_cache(self):
        pid = os.fork()
        if pid == 0:
            try:
                os.setgroups([])
                os.setuid(65534)
                CacheChannel(self.larder.runtime_directory)
                os._exit(1)
            except Refused as refused:
                os._exit(0 if "for root and the engine's user only" in str(refused) else 2)
            except BaseException:  # only the number says so
                os._exit(3)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0)
        user = os.stat(f"/proc/{self.larder.engine_pid()}").st_uid
        pid = os.fork()
        if pid == 0:
            try:
                os.setuid(user)
                channel = CacheChannel(self.larder.runtime_directory)
                channel.command("debug 0")
                channel.stop()
                os._exit(0)
            except BaseException:
                os._exit(1)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0)

    def test_debug_lasts_as_long_as_somebody_wants_it(self):
        first, second = self.open_channel(), self.open_channel()
        self.assertFalse(self.logs_decisions())
        first.command("debug 7")
        second.command("debug 0x1")
        self.assertTrue(self.logs_decisions())
        second.command("debug 0")
        self.assertTrue(self.logs_decisions(), "the other still wants it")
        first.stop()
        wait_until(lambda: not self.logs_decisions(), 10, "the engine's own level")

    def logs_decisions(self):
        """Why an open goes as it goes is for debugging only."""
        before = self.larder.run("log").splitlines()
        larder.drop_page_cache()
        (self.mounted / "large0").read_bytes()
        after = self.larder.run("log").splitlines()
        return any(" debug: open node" in line for line in after[after.index(before[-1]) + 1:])

    def test_nonsense_does_not_disturb_others(self):
        channel = self.hold()
        for packet in (b"\0" * 100, b"x" * 40000, b"cull " + b"/" * 30000, b"cull a\n" * 4000,
                       bytes(range(256))):
            stranger = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            stranger.connect(str(self.larder.runtime_directory / "control.sock"))
            stranger.settimeout(20)
            stranger.sendall(b"cache")
            self.assertEqual(stranger.recv(100), b"ok\n")
            stranger.sendall(packet)
            self.assertTrue(stranger.recv(5000).startswith(b"error "))
            stranger.close()
        self.assertEqual(channel.state()["cull"], 0)
        self.read_until_warm()


class Culling(ChannelCase):

    def an_unused_object(self, channel):
        def unused():
            larder.drop_page_cache()  # whose files count as in use
            for path in self.objects():
                try:
                    channel.command(f"inuse {path}")
                except Refused as refused:
                    self.assertEqual(refused.name, "EBUSY")
                else:
                    return path
            return None

        return wait_until(unused, 30, "an object to come out of use")

    def test_culls_what_nobody_uses(self):
        channel = self.hold()
        self.read_until_warm()
        paths = self.wait_for_objects()
        with open(self.mounted / "large0", "rb"):
            used = channel.state()["used"]
            outcomes = channel.cull(paths)
            self.assertEqual(outcomes.count("EBUSY"), 1, outcomes)
            freed = sum(outcome for outcome in outcomes if outcome != "EBUSY")
            self.assertGreater(freed, 10 * _MIB)
            self.assertEqual(channel.state()["used"], used - freed)
            self.assertEqual(len(self.objects()), 1)
            [left] = self.objects()
            self.assertEqual(channel.cull([left]), ["EBUSY"])
            gone = next(path for path in paths if path != left)
            self.assertEqual(channel.cull([gone]), ["ENOENT"])
        self.assertGreater(self.read_all_cold(), 10 * _MIB)
        for wrong in ("../state", "/etc/passwd", "Inone/@00/Dx", f"{os.path.dirname(left)}/.."):
            self.assertEqual(channel.cull([wrong]), ["EINVAL"], wrong)

    def test_the_engine_says_when_room_is_short_and_leaves_it_to_the_holder(self):
        channel = self.hold("size 100M")
        self.read_until_warm()
        paths = self.wait_for_objects()
        self.assertEqual(channel.state()["cull"], 0)
        channel.command("size 8M")
        state = channel.next_state()
        self.assertEqual(state["cull"], 1)
        self.assertGreater(state["bexcess"], 4 * _MIB)
        self.assertEqual(sorted(self.objects()), sorted(paths), "it culls by itself")
        for path in paths:
            if channel.state()["cull"] == 0:
                break
            channel.cull([path])
        self.assertEqual(channel.state()["cull"], 0)
        self.assertLess(channel.state()["used"], 8 * _MIB)
        self.assertGreater(len(self.objects()), 5, "more than was asked")

    def test_at_the_limit_what_is_new_is_served_uncached(self):
        channel = self.hold("size 4M")

        def reading_is_too_much():
            self.read_all_cold()
            state = channel.state()
            self.assertLessEqual(state["used"], 4 * _MIB)
            return state["cull"] == 1 and state["stop"] == 1

        # Of one reading a slow disk does not keep all.
        wait_until(reading_is_too_much, 60, "the holder to be told that nothing new is kept")
        self.assertIn("its holder culls nothing", self.cache()["trouble"])
        self.assertGreater(channel.cull([self.an_unused_object(channel)])[0], 0)
        self.assertEqual(channel.state()["stop"], 0)
        self.assertEqual(self.cache()["trouble"], "")

    def test_a_release_is_told_while_room_is_short(self):
        channel = self.hold("size 100M")
        self.read_until_warm()
        paths = self.wait_for_objects()
        with open(self.mounted / "large0", "rb"):
            channel.command("size 1M")
            self.assertEqual(channel.next_state()["cull"], 1)
            channel.cull(paths)
            self.assertEqual(channel.state()["cull"], 1, "the one in use is too much")
        larder.drop_page_cache()
        state = channel.next_state()
        while state["freleased"] == 0:
            state = channel.next_state()
        self.assertEqual(state["freleased"], 1)
        self.assertGreaterEqual(state["breleased"] * 512, 2 * _MIB)

    def test_each_burial_is_told_also_while_one_lies_there(self):
        channel = self.hold()
        self.read_until_warm()
        self.wait_for_objects()
        for _ in range(3):
            path = self.place / "cache" / self.an_unused_object(channel)
            path.unlink()
            self.make_place(path)
            channel.states.clear()
            self.read_all_cold()
            self.assertEqual(channel.next_state()["graveyard"], 1)

    def test_the_graveyard_has_work(self):
        channel = self.hold()
        self.read_until_warm()
        self.wait_for_objects()
        path = self.an_unused_object(channel)
        self.assertEqual(channel.state()["graveyard"], 0)
        place = self.place / "cache" / path
        place.unlink()
        self.make_place(place)
        (place / "inside").mkdir()
        self.assertLess(self.read_all_cold(), 3 * _MIB)
        state = channel.next_state()
        self.assertEqual(state["graveyard"], 1)
        [grave] = (self.place / "graveyard").iterdir()
        (grave / "inside").rmdir()
        grave.rmdir()
        self.assertEqual(channel.state()["graveyard"], 0)


if __name__ == "__main__":
    main()
