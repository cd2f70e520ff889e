"""MountedCase: an export, its server, the proxy, and Larder with the export mounted."""

import os
import time

from harness import files
from harness.case import Case
from harness.larder import Larder
from harness.processes import wait_until

# Data that the server changed less than this before it was fetched may be fetched once more.
SETTLING_SECONDS = 2.5


class MountedCase(Case):
    """Subclasses fill `self.export` in fill(); `self.mounted` is where it can be read."""

    options = ""

    def fill(self):
        """Called before the server starts."""

    def cache_directory(self):
        """Where the cache is to be, if not in the test's own directory."""
        return None

    def setUp(self):
        super().setUp()
        self.export = self.directory / "export"
        self.export.mkdir()
        self.fill()
        self._stamp_root()
        self.server = self.serve()
        self.proxy = self.proxy_to(self.server)
        self.larder = self.begin(Larder(self.directory / "larder", self.cache_directory()))
        self._cleanup.defer(self.end_trouble)
        self.mount()

    def mount(self, options=None):
        self.mounted = self.larder.mount(self.proxy.url(), self.directory / "mnt",
                                         self.options if options is None else options)

    def remount(self, options=None):
        """Keeper and engine end, new ones mount the export again."""
        self.larder.restart()
        self.mount(options)

    def end_trouble(self):
        """Link and server are sound again: at the end of every test, so that unmounting can succeed."""
        self.proxy.thaw()
        self.proxy.heal()
        if not self.server.is_running():
            self.server.start()
        self.server.thaw()

    def settle(self):
        """Makes all files of the export old, as the server's clock tells: they will not be racy.

        The root's ctime, which every mount sees first, tells it; nothing that a digest shows changes.
        """
        time.sleep(SETTLING_SECONDS)
        self._stamp_root()

    def _stamp_root(self):
        os.chmod(self.export, os.stat(self.export).st_mode & 0o7777)

    def write(self, name, content):
        """Changes a file on the server, behind everybody's back."""
        path = self.export / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def read(self, name):
        return (self.mounted / name).read_bytes()

    def read_until_cached(self, *names):
        """These files, or all: a busy disk does not keep all of what is read. Nothing of them may be young."""
        paths = [self.mounted / name for name in names] or [
            path for path in self.mounted.rglob("*") if path.is_file() and not path.is_symlink()]
        wait_until(lambda: self._come_from_the_cache(paths), 60, "all that was read to be in the cache")

    def _come_from_the_cache(self, paths):
        with self.proxy.counting() as seen:
            for path in paths:
                files.let_pages_go(path)
                path.read_bytes()
        return seen["READ"] == 0
