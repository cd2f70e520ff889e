"""TaggedCase, HeldCase: a MountedCase whose mount names a cache by a tag; somebody else brings it online."""

import os

from harness import larder, trees
from harness.mounted_case import MountedCase
from harness.processes import wait_until

_MIB = 1 << 20
_SMALL_FILES = 60
_LARGE_FILES = 6


class TaggedCase(MountedCase):

    tag = "farm"

    def cache_directory(self):
        return self.tag

    def cache(self):
        return next(cache for cache in self.larder.status()["caches"] if cache["tag"] == self.tag)

    def wait_for_state(self, state, seconds=20):
        wait_until(lambda: self.cache()["state"] == state, seconds, f"the cache to be {state}")

    def wait_until_unused(self):
        def are_unused():
            larder.drop_page_cache()  # whose files count as in use
            return self.cache()["open_objects"] == 0

        wait_until(are_unused, 60, "all objects to be out of use")

    def from_server(self):
        return self.larder.status()["mounts"][0]["bytes_from_server"]


class HeldCase(TaggedCase):
    """`self.place` is where the cache is to be, of which nothing is there yet."""

    def fill(self):
        trees.small_files(self.export / "small", _SMALL_FILES, sizes=(1, 60_000), seed=self.seed)
        for number in range(_LARGE_FILES):
            trees.write_file(self.export / f"large{number}", 2 * _MIB + number, self.seed + number)

    def setUp(self):
        super().setUp()
        self.place = self.place_of_cache()
        self.make_place(self.place)
        self.settle()

    def place_of_cache(self):
        return self.directory / "place"

    def make_place(self, place):
        """A directory that belongs to the engine's user, as cachefilesd makes it."""
        place.mkdir(mode=0o700)
        user = os.stat(f"/proc/{self.larder.engine_pid()}")
        os.chown(place, user.st_uid, user.st_gid)

    def read_all(self):
        """Returns the bytes that came from the server."""
        before = self.from_server()
        self.assert_same_tree(self.export, self.mounted)
        return self.from_server() - before

    def read_all_cold(self):
        larder.drop_page_cache()
        return self.read_all()

    def read_until_warm(self):
        """Large files take a moment until the disk has them; then nothing comes from the server."""
        self.read_all_cold()
        wait_until(lambda: self.read_all_cold() == 0, 90, "everything to come from the cache")

    def objects(self):
        """Paths below cache/, as far as they have names."""
        below = self.place / "cache"
        return [str(path.relative_to(below)) for path in trees.paths_below(below) if path.is_file()]

    def wait_for_objects(self):
        """With names, and out of use, which each comes a moment after its name. Nobody has a file open."""
        wait_until(lambda: len(self.objects()) >= _SMALL_FILES + _LARGE_FILES, 60, "all objects to have names")
        self.wait_until_unused()
        return self.objects()
