"""DaemonCase: a TaggedCase whose cache has a disk of its own and our daemon."""

from harness import larder, loopfs, trees
from harness.cachefilesd import Cachefilesd
from harness.held_case import TaggedCase
from harness.load import Load
from harness.processes import wait_until

_KIB = 1 << 10
_MIB = 1 << 20


class DaemonCase(TaggedCase):
    """The cache has a disk of its own and a daemon; the mount names it by its tag."""

    DISK_BYTES = 192 * _MIB
    FILES = 40
    FILE_BYTES = 512 * _KIB
    SIZE = "100M"

    def fill(self):
        for number in range(self.FILES):
            trees.write_file(self.export / f"file{number:03}", self.FILE_BYTES + number * 97,
                             self.seed + number)

    def setUp(self):
        super().setUp()
        self.names = sorted(path.name for path in self.export.iterdir())
        self.disk = self.begin(loopfs.LoopFs(self.directory / "disk", self.DISK_BYTES))
        self.place = self.disk.mountpoint / "cache"
        self.settle()

    def start_daemon(self, *lines, size=None):
        self.daemon = self.begin(Cachefilesd(self.directory / "daemon", self.larder.runtime_directory,
                                             self.place, f"tag {self.tag}", f"size {size or self.SIZE}",
                                             *lines))
        self.wait_for_state("active")

    def resize(self, size):
        self.daemon.write_config(f"dir {self.place}", f"tag {self.tag}", f"size {size}")
        self.daemon.reload()

    def begin_load(self, names, pause=0):
        return self.begin(Load(self.export, self.mounted, names, pause))

    def read_file(self, name):
        self.assertEqual(self.read(name), (self.export / name).read_bytes(), name)

    def read_all(self, names=None):
        """Returns the bytes that came from the server."""
        larder.drop_page_cache()
        before = self.from_server()
        for name in names or self.names:
            self.read_file(name)
        return self.from_server() - before

    def read_until_warm(self, names=None):
        self.read_all(names)
        wait_until(lambda: self.read_all(names) == 0, 90, "everything to come from the cache")

    def wait_until_culled(self, bound, seconds=60):
        def is_within():
            larder.drop_page_cache()  # whose files count as in use
            cache = self.cache()
            return not cache["culling"] and cache["used_bytes"] <= bound

        wait_until(is_within, seconds, "the daemon to cull")

    def wait_until_at_rest(self):
        wait_until(lambda: self.cache()["open_objects"] == 0, 60, "the last closed file to be let go")
        wait_until(lambda: not self.cache()["culling"], 60, "the daemon to rest")
