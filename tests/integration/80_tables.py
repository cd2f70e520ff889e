"""The tables in the keeper's memory: what the kernel knows is recorded there, and nothing else."""

import concurrent.futures
import json
import os
import pathlib
import signal
import socket
import stat
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import larder, tables, trees
from harness.case import main
from harness.job import Job
from harness.mounted_case import MountedCase
from harness.nfs3_client import Nfs3Client
from harness.processes import is_running, wait_until
from harness.users import open_as_user
from harness.writable_case import WritableCase

_FIRST_NODE = 0x10  # what the slot of a nodeid is counted from: below are the kernel's own numbers
_ROOT_ID = 1
_PAGE_CACHE, _PASSTHROUGH = 1, 2  # open modes
_PAGES_UNSURE = 2  # a flag of a node
_SENT = 2  # a state of a call
_HAS_VERIFIER, _HAS_OFFSET = 1, 2  # flags of a call
_SYMLINK, _MKDIR, _UNLINK, _RMDIR, _RENAME, _LINK, _WRITE, _CREATE = 6, 9, 10, 11, 12, 13, 16, 35  # opcodes


def _nodeid(node):
    return node.generation << 32 | node.slot + _FIRST_NODE


def _packed(nanoseconds):
    """A time as coherency data has it: 34 bits of seconds, 30 of nanoseconds."""
    seconds, rest = divmod(nanoseconds, 10**9)
    return (seconds << 30 | rest).to_bytes(8, "big")


class Tables(MountedCase):

    NAMES = ("", "small", "directory", "directory/below", "large")

    def fill(self):
        self.write("small", b"a small file")
        self.write("directory/below", b"another")
        self.write("large", self.random.randbytes(300_000))

    def setUp(self):
        super().setUp()
        self.keeper = self.larder.keeper_pid()

    def handle(self, name):
        with Nfs3Client(self.server) as client:
            handle = client.root
            for part in filter(None, name.split("/")):
                handle, _ = client.lookup(handle, part.encode())
            return handle

    def nodes_of(self, name):
        handle = self.handle(name)
        return [node for node in tables.nodes(self.keeper) if node.handle == handle]

    def version(self, name):
        """Size and coherency data of the file as the server has it."""
        status = os.stat(self.export / name)
        return status.st_size, _packed(status.st_mtime_ns) + _packed(status.st_ctime_ns)

    def hold(self, name):
        """The kernel does not forget the file before the end of the test."""
        fd = os.open(self.mounted / name, os.O_PATH)
        self.begin(fd, lambda: os.close(fd))

    def test_what_the_kernel_knows_can_be_found_at_the_server_again(self):
        for name in self.NAMES:
            self.hold(name)
        mount_id = self.larder.status()["mounts"][0]["id"]
        for name in self.NAMES:
            with self.subTest(name):
                node, = self.nodes_of(name)
                status = os.stat(self.mounted / name)
                self.assertEqual((node.mount_id, node.fileid), (mount_id, status.st_ino))
                self.assertGreater(node.lookup_count, 0)
                self.assertGreater(node.generation, 0)
        generations = [node.generation for node in tables.nodes(self.keeper)]
        self.assertEqual(len(generations), len(set(generations)))
        self.assertEqual(len(generations), self.larder.status()["engine"]["nodes"])

    def test_what_the_kernel_forgets_is_cleared(self):
        fd = os.open(self.mounted / "directory/below", os.O_PATH)
        try:
            self.assertEqual(len(self.nodes_of("directory/below")), 1)
        finally:
            os.close(fd)

        def is_forgotten():
            larder.drop_page_cache()
            return not self.nodes_of("directory/below")

        wait_until(is_forgotten, 10, "the record to go")

    def test_opens_are_counted(self):
        with open(self.mounted / "small", "rb"), open(self.mounted / "small", "rb"):
            node, = self.nodes_of("small")
            self.assertEqual((node.open_count, node.backing_id), (2, 0))
        wait_until(lambda: self.nodes_of("small")[0].open_count == 0, 10, "the release")

    def test_an_open_is_recorded_with_its_opener_and_its_version(self):
        with open(self.mounted / "small", "rb"):
            node, = self.nodes_of("small")
            handle, = tables.handles(self.keeper)
            self.assertEqual((handle.mount_id, handle.nodeid), (node.mount_id, _nodeid(node)))
            self.assertEqual((handle.uid, handle.gid, handle.groups),
                             (os.getuid(), os.getgid(), tuple(os.getgroups())))
            self.assertEqual(handle.open_flags & os.O_ACCMODE, os.O_RDONLY)
            self.assertEqual((handle.open_mode, handle.lost_write), (_PAGE_CACHE, 0))
            self.assertEqual((handle.size, handle.coherency), self.version("small"))
            self.assertEqual((node.size, node.coherency), self.version("small"))
        wait_until(lambda: not tables.handles(self.keeper), 10, "the release")

    def test_a_changed_file_is_recorded_in_its_new_version(self):
        self.assertEqual(self.read("small"), b"a small file")
        self.write("small", b"a file that is not so small any more")
        with open(self.mounted / "small", "rb"):
            node, = self.nodes_of("small")
            self.assertEqual((node.size, node.coherency), self.version("small"))
            self.assertTrue(node.flags & _PAGES_UNSURE, "a file this young may change unseen")
        self.settle()
        with open(self.mounted / "small", "rb"):
            node, = self.nodes_of("small")
            self.assertEqual((node.size, node.coherency), self.version("small"))
            self.assertFalse(node.flags & _PAGES_UNSURE)

    def test_an_open_directory_is_recorded_too(self):
        with os.scandir(self.mounted) as root, os.scandir(self.mounted / "directory") as entries:
            node, = self.nodes_of("directory")
            self.assertEqual({handle.nodeid for handle in tables.handles(self.keeper)},
                             {_ROOT_ID, _nodeid(node)})
            self.assertEqual([entry.name for entry in entries], ["below"])
            self.assertEqual(len(list(root)), 3)
            with Nfs3Client(self.server) as client:
                client.readdirplus(node.handle)
                verifier = int.from_bytes(client.last_verifier, "big")
            self.assertEqual(self.nodes_of("directory")[0].verifier, verifier)
        wait_until(lambda: not tables.handles(self.keeper), 10, "the release")

    def test_what_is_closed_and_forgotten_leaves_nothing(self):
        for name in ("small", "directory/below", "large"):
            self.read(name)
        list(os.walk(self.mounted))

        def is_empty():
            larder.drop_page_cache()
            root = self.handle("")
            return (not tables.handles(self.keeper) and not tables.backings(self.keeper)
                    and [node.handle for node in tables.nodes(self.keeper)] == [root])

        wait_until(is_empty, 20, "nothing but the root in the tables")

    def test_registered_files_are_recorded_with_their_backing_file(self):
        self.settle()
        self.hold("large")

        def is_registered():
            self.read("large")
            return tables.backings(self.keeper)

        wait_until(is_registered, 20, "a registration")
        with open(self.mounted / "large", "rb"):
            backing, = tables.backings(self.keeper)
            node, = self.nodes_of("large")
            self.assertEqual((node.mount_id, node.backing_id, node.open_count),
                             (backing.mount_id, backing.backing_id, 1))
            self.assertEqual(backing.nodeid, _nodeid(node))
            handle, = tables.handles(self.keeper)
            self.assertEqual((handle.nodeid, handle.open_mode), (backing.nodeid, _PASSTHROUGH))
            self.assertEqual((node.size, node.coherency), self.version("large"))
            cached = {path.stat().st_ino: path for path in trees.paths_below(self.larder.cache_directory)
                      if stat.S_ISREG(path.stat().st_mode)}
            file = cached[backing.inode]
            self.assertEqual(file.read_bytes(), (self.export / "large").read_bytes())
            self.assertEqual(backing.device, file.stat().st_dev)
            self.assertEqual(backing.charged_bytes, file.stat().st_blocks * 512)
        wait_until(lambda: not tables.backings(self.keeper), 20, "the registration to end")
        self.assertEqual(self.nodes_of("large")[0].backing_id, 0)

    def test_an_unmount_clears_all(self):
        for name in ("small", "directory/below", "large"):
            self.read(name)
        self.assertTrue(tables.nodes(self.keeper))
        self.larder.umount(self.mounted)
        wait_until(lambda: not self.larder.status()["mounts"], 10, "the mount to end")
        self.assertEqual((tables.nodes(self.keeper), tables.handles(self.keeper),
                          tables.backings(self.keeper)), ([], [], []))

    def test_the_next_engine_does_not_inherit_what_ended_with_the_last(self):
        self.read("small")
        first = self.larder.engine_pid()
        self.larder.kill_engine()
        self.larder.forget_dead_mounts()

        def next_engine():
            try:
                return self.larder.engine_pid() != first
            except AssertionError:
                return False

        wait_until(next_engine, 20, "the next engine")
        self.assertEqual(tables.nodes(self.keeper), [])
        self.mount()
        self.assertEqual(self.read("small"), b"a small file")
        self.assertEqual(len(self.nodes_of("small")), 1)


def _append(path, text):
    with open(path, "ab", buffering=0) as file:
        file.write(text)


def _make_exclusively(path):
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640))


class Journal(WritableCase):
    """The calls that must not happen twice."""

    # The procedure, the opcode of the kernel's request, and what a program does in a directory.
    CALLS = (
        ("CREATE", _CREATE, lambda here: _make_exclusively(here / "new")),
        ("MKDIR", _MKDIR, lambda here: os.mkdir(here / "new")),
        ("SYMLINK", _SYMLINK, lambda here: os.symlink("to", here / "new")),
        ("LINK", _LINK, lambda here: os.link(here / "file", here / "new")),
        ("REMOVE", _UNLINK, lambda here: os.unlink(here / "file")),
        ("RMDIR", _RMDIR, lambda here: os.rmdir(here / "empty")),
        ("RENAME", _RENAME, lambda here: os.rename(here / "file", here / "new")),
        ("WRITE", _WRITE, lambda here: _append(here / "file", b" and more")),
    )

    def fill(self):
        for procedure, *_ in self.CALLS:
            (self.export / procedure / "empty").mkdir(parents=True)
            self.write(f"{procedure}/file", b"begin")
        self.write("open", b"held")

    def setUp(self):
        super().setUp()
        self.keeper = self.larder.keeper_pid()
        wait_until(lambda: not tables.calls(self.keeper), 10, "nothing under way")

    def held(self, procedure, function, *arguments):
        """The one call that is under way while the server does not get it."""
        self.proxy.hold_calls(procedure)
        job = self.begin(Job(procedure, function, *arguments), lambda: None)
        self.proxy.wait_until_held(1)
        call, = tables.calls(self.keeper)
        return job, call

    def let_go(self, procedure, job):
        self.proxy.release(procedure)
        job.result()
        wait_until(lambda: not tables.calls(self.keeper), 10, "the slot to be free")

    def test_a_call_that_the_server_has_not_answered_is_noted_as_sent(self):
        mount_id = self.larder.status()["mounts"][0]["id"]
        for procedure, opcode, function in self.CALLS:
            with self.subTest(procedure):
                job, call = self.held(procedure, function, self.mounted / procedure)
                self.assertEqual((call.mount_id, call.opcode, call.state), (mount_id, opcode, _SENT))
                self.assertNotEqual(call.unique, 0)
                self.assertEqual((call.nodeid, call.fh, call.answer), (0, 0, b""))
                self.let_go(procedure, job)

    def test_an_exclusive_creation_is_noted_with_its_verifier_and_then_with_what_was_made(self):
        job, call = self.held("CREATE", _make_exclusively, self.mounted / "new")
        self.assertTrue(call.flags & _HAS_VERIFIER)
        self.assertEqual(call.made, b"")
        self.proxy.hold_calls("SETATTR")
        self.proxy.release("CREATE")
        self.proxy.wait_until_held(1)
        later, = tables.calls(self.keeper)
        self.assertEqual((later.unique, later.verifier), (call.unique, call.verifier))
        with Nfs3Client(self.server) as client:
            handle, _ = client.lookup(client.root, b"new")
        self.assertEqual(later.made, handle)
        self.let_go("SETATTR", job)

    def test_the_name_that_an_open_file_gets_is_noted_before_it_has_it(self):
        with open(self.mounted / "open", "rb") as file:
            job, call = self.held("RENAME", os.unlink, self.mounted / "open")
            self.assertTrue(call.hidden_name.startswith(".nfs"), call.hidden_name)
            self.assertFalse((self.export / call.hidden_name).exists())
            self.let_go("RENAME", job)
            self.assertTrue((self.export / call.hidden_name).exists())
            self.assertEqual(file.read(), b"held")
        wait_until(lambda: not (self.export / call.hidden_name).exists(), 10, "its last close")

    def test_an_append_is_noted_with_its_end(self):
        job, call = self.held("WRITE", _append, self.mounted / "WRITE/file", b" and more")
        self.assertTrue(call.flags & _HAS_OFFSET)
        self.assertEqual(call.offset, len(b"begin"))
        self.let_go("WRITE", job)

    def test_who_is_killed_leaves_no_slot(self):
        self.proxy.hold_calls("MKDIR")
        child = os.fork()
        if child == 0:
            try:
                os.mkdir(self.mounted / "new")
            finally:
                os._exit(0)
        self.proxy.wait_until_held(1)
        self.assertEqual(len(tables.calls(self.keeper)), 1)
        os.kill(child, 9)
        os.waitpid(child, 0)
        wait_until(lambda: not tables.calls(self.keeper), 10, "the slot to be free")
        self.proxy.release("MKDIR")
        wait_until((self.export / "new").exists, 10, "the call, which goes on")

    def test_thousands_of_changes_leave_no_slot(self):
        threads, rounds = 8, 100

        def change(number):
            here = self.mounted / f"thread {number}"
            here.mkdir()
            for index in range(rounds):
                _make_exclusively(here / f"file {index}")
                _append(here / f"file {index}", b"more")
                os.rename(here / f"file {index}", here / "renamed")
                os.link(here / "renamed", here / "linked")
                os.unlink(here / "renamed")
                os.unlink(here / "linked")
            here.rmdir()

        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            list(pool.map(change, range(threads)))
        wait_until(lambda: not tables.calls(self.keeper), 10, "the last slot to be free")
        self.assertLessEqual(tables.slots_ever_used_by_calls(self.keeper), 4 * threads)
        self.assertEqual(self.larder.status()["engine"]["unjournaled_calls"], 0)


class Writes(WritableCase):
    """Bytes that were answered before the server had them on its disk."""

    def fill(self):
        os.chmod(self.export, 0o777)

    def setUp(self):
        super().setUp()
        self.keeper = self.larder.keeper_pid()
        self.addCleanup(self.proxy.heal)  # before anything that waits for a write

    def open(self, name):
        fd = os.open(self.mounted / name, os.O_CREAT | os.O_RDWR, 0o666)
        self.begin(fd, lambda: self.close(fd))
        return fd

    @staticmethod
    def close(fd):
        try:
            os.close(fd)
        except OSError:
            pass  # its engine was killed

    def handle(self, name):
        with Nfs3Client(self.server) as client:
            return client.lookup(client.root, name.encode())[0]

    def status(self):
        """As `larder status`, but begins no process: that would close the files, and wait for the server."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control:
            control.connect(str(self.larder.runtime_directory / "control.sock"))
            control.send(b"status")
            kind, _, body = control.recv(1 << 16).partition(b"\n")
        self.assertEqual(kind, b"ok")
        return json.loads(body)

    def assert_keeps(self, name, content):
        """A next engine that sends what is there, in its order, makes the file what it was to be."""
        made = bytearray()
        handle = self.handle(name)
        for write in tables.writes(self.keeper):
            if write.handle == handle:
                made.extend(bytes(max(write.offset + len(write.bytes) - len(made), 0)))
                made[write.offset:write.offset + len(write.bytes)] = write.bytes
        self.assertEqual(bytes(made), content)

    def test_what_was_answered_is_kept_until_it_is_safe(self):
        fd = self.open("file")
        self.proxy.hold_calls("WRITE")
        os.pwrite(fd, b"a" * 5000, 0)
        os.pwrite(fd, b"over it", 2000)
        os.pwrite(fd, b"b" * 3000, 4000)
        content = bytearray(b"a" * 4000 + b"b" * 3000)
        content[2000:2007] = b"over it"
        self.assert_keeps("file", bytes(content))
        status = os.stat(self.export / "file")
        mount, = self.status()["mounts"]
        kept = tables.writes(self.keeper)
        self.assertEqual({(write.mount_id, write.fileid, write.uid, write.gid, write.groups, write.at_server)
                          for write in kept},
                         {(mount["id"], status.st_ino, os.getuid(), os.getgid(), tuple(os.getgroups()), 0)})
        self.assertEqual(mount["unsafe_bytes"], sum(len(write.bytes) for write in kept))
        self.proxy.release("WRITE")
        os.fsync(fd)
        self.assertEqual(tables.writes(self.keeper), [])
        self.assertEqual((self.export / "file").read_bytes(), bytes(content))

    def test_what_the_server_has_in_memory_only_is_marked(self):
        fd = self.open("file")
        os.pwrite(fd, b"first", 0)
        os.pwrite(fd, b"second", 100)  # not a neighbour: the first goes
        wait_until(lambda: tables.writes(self.keeper)[0].at_server, 10, "the answer to the first")
        first, second = tables.writes(self.keeper)
        self.assertEqual((first.bytes, second.bytes), (b"first", b"second"))  # which goes after a second as well
        self.assertNotEqual(first.verifier, bytes(8))
        os.fsync(fd)
        self.assertEqual(tables.writes(self.keeper), [])

    def test_each_byte_is_kept_in_the_name_of_who_opened_the_file(self):
        """A descriptor speaks for who opened it, whoever writes."""
        os.fchmod(self.open("file"), 0o666)
        fd = open_as_user(1234, 2345, [77, 88], self.mounted / "file", os.O_WRONLY)
        self.begin(fd, lambda: self.close(fd))
        self.proxy.hold_calls("WRITE")
        os.write(fd, b"theirs")
        kept, = tables.writes(self.keeper)
        self.assertEqual((kept.uid, kept.gid, sorted(kept.groups), kept.bytes),
                         (1234, 2345, [77, 88], b"theirs"))

    def kill_engine(self):
        """The keeper, which would start the next one, stands still afterwards."""
        engine = self.status()["engine"]["pid"]
        os.kill(self.keeper, signal.SIGSTOP)
        self.begin(self.keeper, lambda: os.kill(self.keeper, signal.SIGCONT))
        os.kill(engine, signal.SIGKILL)
        wait_until(lambda: not is_running(engine), 10, "the engine's end")

    def test_a_killed_engine_leaves_what_it_had_answered(self):
        descriptors = {name: self.open(name) for name in ("one", "two")}
        self.proxy.hold_calls("WRITE")
        contents = {name: bytearray() for name in descriptors}
        for _ in range(60):  # with many more it waits for the server
            name = self.random.choice(list(contents))
            content = contents[name]
            offset = self.random.randrange(len(content) + 1)
            new = self.random.randbytes(self.random.randrange(1, 20_000))
            self.assertEqual(os.pwrite(descriptors[name], new, offset), len(new))
            content[offset:offset + len(new)] = new
        self.kill_engine()
        for name, content in contents.items():
            self.assert_keeps(name, bytes(content))
        left = sum(len(write.bytes) for write in tables.writes(self.keeper))
        os.kill(self.keeper, signal.SIGCONT)
        self.proxy.heal()
        self.larder.forget_dead_mounts()
        told = f"{left} bytes that were written to 2 files, and not confirmed by fsync or close"
        wait_until(lambda: told in self.larder.log(), 20, "a line about what was left")
        self.assertEqual(tables.writes(self.keeper), [])

    def test_the_memory_goes_back(self):
        before = tables.write_memory(self.keeper)
        block = self.random.randbytes(1 << 20)
        most = 0
        with open(self.mounted / "large", "wb", buffering=0) as file:
            for _ in range(512):
                file.write(block)
                most = max(most, tables.write_memory(self.keeper))
        self.assertGreater(most, before + (4 << 20))
        self.assertEqual(tables.writes(self.keeper), [])
        wait_until(lambda: tables.write_memory(self.keeper) < before + (5 << 20), 60, "the memory to go back")


if __name__ == "__main__":
    main()
