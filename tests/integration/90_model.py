"""Model: random operations of several users do the same on a mount as on a local directory."""

import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness.case import main
from harness.writable_case import WritableCase
from model import run

# How long each test goes on, with a seed never run before. Else it is the same run each time.
_SECONDS = os.environ.get("LARDER_MODEL_SECONDS")
_USUAL_SEED, _USUAL_OPERATIONS = 1, 1500


class Model(WritableCase):

    def setUp(self):
        super().setUp()
        self.model = self.directory / "model"
        self.model.mkdir()

    def assert_agrees(self, *words):
        output = []
        options = run.arguments(["--subject", str(self.mounted), "--model", str(self.model),
                                 "--server", str(self.export), "--shrink-seconds", "30", *self.extent(), *words])
        left = run.run(options, output.append)
        print("\n    ".join(["", *output[-1:]]), file=sys.stderr)
        self.assertIsNone(left, "\n".join(output))

    def extent(self):
        if _SECONDS:
            return ["--seed", str(self.seed), "--seconds", _SECONDS]
        return ["--seed", str(_USUAL_SEED), "--operations", str(_USUAL_OPERATIONS)]

    def test_one_operation_after_the_other(self):
        self.assert_agrees()

    def test_workers_in_parallel(self):
        self.assert_agrees("--parallel")

    def test_many_workers_of_few_users_meet_in_short_sequences(self):
        self.assert_agrees("--workers", "6", "--users", "2", "--length", "100")


class ModelWithLongLivedAttributes(Model):

    options = "actimeo=60"


class ModelWithoutAttributeCache(Model):

    options = "actimeo=0"


if __name__ == "__main__":
    main()
