"""Demo: who interrupts it finds nothing of it afterwards: no mount, no process, no file, no loop device."""

import os
import pathlib
import signal
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import cleanup, paths, processes
from harness.case import Case, main
from harness.processes import wait_until


class Interrupted(Case):

    def setUp(self):
        super().setUp()
        # A short path: the names of sockets are.
        self.place = pathlib.Path(tempfile.mkdtemp(dir=paths.temporary_root()))

    def processes_of_it(self):
        return [command for pid in processes.descendants(os.getpid())
                if str(self.place) in (command := processes.command_line(pid))]

    def interrupt_when(self, line, number):
        """It prints the line, gets the signal, and says that it takes everything down."""
        demo = self.begin(processes.Process([paths.REPOSITORY / "tools/demo", "--build", paths.BUILD],
                                            self.directory / "log",
                                            env=os.environ | {"LARDER_TEST_DIR": str(self.place)}))
        demo.wait_for_line(line, 300)
        self.assertNotEqual(os.listdir(self.place), [], "it works elsewhere")
        demo.send(number)
        self.assertNotEqual(demo.wait(40), 0)
        self.assertIn("taking everything down", demo.log_text())
        self.assertNotIn("left behind", demo.log_text())
        self.assertEqual(os.listdir(self.place), [])
        self.assertEqual(cleanup.mounts_under(self.place), [])
        self.assertEqual(cleanup.loop_devices_under(self.place), [])
        wait_until(lambda: not self.processes_of_it(), 5, "its processes to be gone")

    def test_while_the_tree_is_made(self):
        self.interrupt_when("Making a tree", signal.SIGINT)

    def test_while_it_is_read_through_the_mount(self):
        self.interrupt_when("Reading through Larder", signal.SIGTERM)


del Case  # not to be run itself


if __name__ == "__main__":
    main()
