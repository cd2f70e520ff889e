"""ModelCase: random operations on the mount and on a local directory side by side, from a seed."""

import os
import sys

from harness.writable_case import WritableCase
from model import run

# How long each test goes on, with a seed never run before. Else it is the same run each time.
_SECONDS = os.environ.get("LARDER_MODEL_SECONDS")
_USUAL_SEED = 1


class ModelCase(WritableCase):

    OPERATIONS = 1500

    def setUp(self):
        super().setUp()
        self.model = self.directory / "model"
        self.model.mkdir()

    def assert_agrees(self, *words):
        """`words`: options of the model test."""
        output = []
        options = run.arguments(["--subject", str(self.mounted), "--model", str(self.model),
                                 "--server", str(self.export), "--shrink-seconds", "30", *self._extent(), *words])
        left = run.run(options, output.append)
        print("\n    ".join(["", *output[-1:]]), file=sys.stderr)
        if left is not None:
            self.fail("\n".join(output))

    def _extent(self):
        if _SECONDS:
            return ["--seed", str(self.seed), "--seconds", _SECONDS]
        return ["--seed", str(_USUAL_SEED), "--operations", str(self.OPERATIONS)]
