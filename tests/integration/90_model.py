"""Model: random operations of several users do the same on a mount as on a local directory."""

import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness.case import main
from harness.writable_case import WritableCase
from model import run

# How long each test goes on.
_SECONDS = float(os.environ.get("LARDER_MODEL_SECONDS", 10))


class Model(WritableCase):

    def setUp(self):
        super().setUp()
        self.model = self.directory / "model"
        self.model.mkdir()

    def assert_agrees(self, *words):
        output = []
        options = run.arguments(["--subject", str(self.mounted), "--model", str(self.model),
                                 "--server", str(self.export), "--seed", str(self.seed), "--seconds", str(_SECONDS),
                                 "--shrink-seconds", "30", *words])
        left = run.run(options, output.append)
        print("\n    ".join(["", *output[-1:]]), file=sys.stderr)
        self.assertIsNone(left, "\n".join(output))

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
