"""Model: random operations of several users do the same on a mount as on a local directory."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness.case import main
from harness.model_case import ModelCase


class Model(ModelCase):

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


class ModelWithAttributesBeforeEachWrite(Model):
    """As servers tell them whose word that nobody else was there we take."""

    def mount(self, options=None):
        self.proxy.complete_wcc()
        super().mount(options)


if __name__ == "__main__":
    main()
