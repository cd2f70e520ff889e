"""WritableCase: a MountedCase whose mount can be written to; skipped only while Larder mounts read-only."""

import errno

from harness.larder import Refused
from harness.mounted_case import MountedCase


class WritableCase(MountedCase):
    """Every test of it writes, so that a mount which answers EROFS cannot say anything."""

    def setUp(self):
        super().setUp()
        if not self.can_write() and not self.can_be_mounted_for_writing():
            self.skipTest("the mount is read-only (EROFS): this Larder cannot write yet")

    def can_write(self):
        probe = self.mounted / "probe"
        try:
            probe.touch()
            probe.unlink()
        except OSError as error:
            if error.errno != errno.EROFS:
                raise
            return False
        return True

    def can_be_mounted_for_writing(self):
        """Should it have to be asked for."""
        words = ",".join(word for word in (self.options, "rw") if word)
        try:
            self.remount(words)
        except Refused:
            self.mount()
            return False
        return self.can_write()
