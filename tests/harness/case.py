"""Case: the base of all integration tests. What a test begins is undone, and nothing may be left."""

import os
import pathlib
import random
import sys
import unittest

from harness import cleanup, paths, trees
from harness.ganesha import Export, Ganesha
from harness.rpc_proxy import RpcProxy

_TAIL_LINES = 40


class Case(unittest.TestCase):
    """Offers `self.directory`, `self.random` (its seed is printed on failure) and `self.begin()`."""

    longMessage = True
    maxDiff = 4000

    def setUp(self):
        self.seed = int(os.environ.get("LARDER_SEED", random.SystemRandom().getrandbits(32)))
        self.random = random.Random(self.seed)
        self.directory = paths.temporary_root() / self._testMethodName[:20]
        self.directory.mkdir()
        self._logs = []
        self._cleanup = cleanup.Cleanup()
        self._cleanup.defer(cleanup.remove_tree, self.directory)
        self.addCleanup(self._finish)

    def begin(self, thing, undo=None):
        """Returns `thing`, whose `stop` (or `undo`) is called at the end of the test."""
        self._cleanup.defer(undo or thing.stop)
        if hasattr(thing, "log"):  # a path, or a method that returns text
            self.show_on_failure(thing.log)
        return thing

    def show_on_failure(self, log):
        """`log` is a path, or a function that returns one or text."""
        self._logs.append(log)

    def serve(self, *exports, **options):
        """A server with an export of `self.directory`/export, or with the exports given."""
        if not exports:
            (self.directory / "export").mkdir(exist_ok=True)
            exports = (Export(self.directory / "export"),)
        return self.begin(Ganesha(self.directory / f"ganesha{len(self._logs)}", list(exports),
                                  **options))

    def proxy_to(self, server):
        return self.begin(RpcProxy(self.directory / f"proxy{len(self._logs)}", server))

    def assert_same_tree(self, expected, actual):
        """Both are directories or digests."""
        expected, actual = (side if isinstance(side, dict) else trees.digest(side)
                            for side in (expected, actual))
        self.assertEqual(trees.difference(expected, actual), "")

    def _finish(self):
        if self._has_failed():
            self._show_logs()
        errors = self._cleanup.run()
        left = cleanup.lasting_leftovers()
        if left:
            cleanup.remove_leftovers()
        self.assertEqual(left, [], "the test left something behind")
        self.assertEqual(errors, [], "undoing what the test began failed")

    def _has_failed(self):
        result = self._outcome.result
        return any(getattr(test, "test_case", test) is self  # a subtest counts for its test
                   for test, _ in result.failures + result.errors)

    def _show_logs(self):
        print(f"\n{self.id()} failed; LARDER_SEED={self.seed}", file=sys.stderr)
        for log in self._logs:
            name = log
            if callable(log):
                name, text = log.__qualname__, str(log())
            else:
                text = pathlib.Path(log).read_text(errors="replace") if os.path.exists(log) else ""
            tail = "\n    ".join(text.splitlines()[-_TAIL_LINES:])
            print(f"  the end of {name}:\n    {tail}", file=sys.stderr)


def main():
    """What every test file ends with."""
    if os.geteuid() != 0:
        print("integration tests need root: they mount filesystems", file=sys.stderr)
        sys.exit(1)
    cleanup.install()
    unittest.main(module="__main__", verbosity=2)
