#!/usr/bin/env python3
"""The model test finds each planted bug, shrinks it to a few operations, and finds nothing where nothing is."""

import json
import os
import pathlib
import shutil
import sys
import tempfile
import unittest
import unittest.mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
sys.dont_write_bytecode = True

from model import coordinator, faults, run

_MOST_OPERATIONS_LEFT = 10
_NEEDS_ROOT = {"suid-survives", "chown-lies"}


class ModelTest(unittest.TestCase):

    def setUp(self):
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="larder-model-", dir=memory))
        self.addCleanup(shutil.rmtree, self.directory)
        os.chmod(self.directory, 0o755)
        for side in ("subject", "model"):
            (self.directory / side).mkdir()
        self.output = []

    def run_model(self, *words):
        options = run.arguments(["--subject", str(self.directory / "subject"), "--model", str(self.directory / "model"),
                                 "--quiet", "--length", "100", *map(str, words)])
        self.output.clear()
        return run.run(options, lambda line: self.output.append(line))

    def assert_nothing_is_left(self):
        self.assertEqual([path.name for side in ("subject", "model") for path in (self.directory / side).iterdir()], [])


class PlantedBugs(ModelTest):

    def assert_is_found(self, name):
        # What hangs is not shrunk: it may hang for good.
        shrinking = ["--hang-seconds", 1] if name == "hangs" else ["--shrink-seconds", 10]
        left = self.run_model("--seed", 1, "--operations", 20_000, "--plant", name, *shrinking)
        text = "\n".join(self.output)
        self.assertIsNotNone(left, f"{name} was not found\n{text}")
        if name != "hangs":
            self.assertLessEqual(len(left), _MOST_OPERATIONS_LEFT, text)
        self.assertIn("DIFFERENCE", text)
        self.assert_nothing_is_left()


def _add_tests():
    for name in faults.FAULTS:
        def test(self, name=name):
            self.assert_is_found(name)
        if name in _NEEDS_ROOT and os.geteuid() != 0:
            test = unittest.skip("needs root, to be several users")(test)
        setattr(PlantedBugs, "test_" + name.replace("-", "_"), test)


_add_tests()


class NothingPlanted(ModelTest):

    def test_two_directories_agree(self):
        self.assertIsNone(self.run_model("--operations", 1500, "--seed", 11), self.output)
        self.assert_nothing_is_left()

    def test_two_directories_agree_in_parallel(self):
        self.assertIsNone(self.run_model("--operations", 500, "--seed", 12, "--parallel"), self.output)
        self.assert_nothing_is_left()

    def logged(self, seed):
        log = self.directory / "log"
        self.run_model("--operations", 600, "--seed", seed, "--log", log)
        return log.read_text()

    def test_a_seed_gives_the_same_operations_and_results_again(self):
        def without_times(text):
            lines = [json.loads(line) for line in text.splitlines()]
            for line in lines:
                if isinstance(line["model"][1], dict):
                    line["model"] = "a stat"
            return lines
        first = self.logged(13)
        self.assertEqual(without_times(first), without_times(self.logged(13)))
        self.assertNotEqual(without_times(first), without_times(self.logged(14)))

    @unittest.mock.patch.object(coordinator, "SERVER_SECONDS", 1)
    def test_a_server_that_holds_something_else_is_found(self):
        (self.directory / "server").mkdir()
        self.assertIsNotNone(self.run_model("--operations", 100, "--seed", 15, "--shrink-seconds", 0,
                                            "--server", self.directory / "server"))


class Replays(ModelTest):

    def test_what_was_shrunk_shows_the_difference_again(self):
        script = self.directory / "script"
        left = self.run_model("--seed", 1, "--operations", 20_000, "--plant", "lost-times", "--shrink-seconds", 2)
        script.write_text("".join(json.dumps({"operation": operation}) + "\n" for operation in left))
        self.assertEqual(self.run_model("--replay", script, "--plant", "lost-times"), left)
        self.assertIsNone(self.run_model("--replay", script))


if __name__ == "__main__":
    unittest.main(verbosity=2)
