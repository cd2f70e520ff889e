"""WritableCase: a MountedCase whose mount can be written to."""

from harness.mounted_case import MountedCase


class WritableCase(MountedCase):

    def setUp(self):
        super().setUp()
        probe = self.mounted / "probe"
        probe.touch()
        probe.unlink()
