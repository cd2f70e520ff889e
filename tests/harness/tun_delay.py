"""TunDelay: a link between two namespaces with delay, rate and loss, and TCP's real behaviour on it."""

from harness import paths
from harness.processes import Process

DEVICE = "wan0"
FIRST_ADDRESS = "10.99.0.1"
SECOND_ADDRESS = "10.99.0.2"


class TunDelay:
    """Packets cross a program that holds them back. Use the proxy where TCP itself does not matter."""

    def __init__(self, first, second, log, delay_ms=0.0, rate_mbit=0.0, loss_percent=0.0, seed=1):
        self._process = Process([paths.TUN_DELAY, first.name, second.name, str(delay_ms),
                                 str(rate_mbit), str(loss_percent), str(seed)], log)
        try:
            self._process.wait_for_line("^ready")
            self._namespaces = (first, second)
            for namespace, here, there in ((first, FIRST_ADDRESS, SECOND_ADDRESS),
                                           (second, SECOND_ADDRESS, FIRST_ADDRESS)):
                namespace.run(["ip", "address", "add", here, "peer", there, "dev", DEVICE])
            self.up()
        except BaseException:
            self.stop()
            raise

    def up(self):
        for namespace in self._namespaces:
            namespace.run(["ip", "link", "set", DEVICE, "mtu", "1500", "up"])

    def down(self):
        """An outage: packets vanish until up()."""
        for namespace in self._namespaces:
            namespace.run(["ip", "link", "set", DEVICE, "down"])

    def swallow(self):
        """As down(), but the first namespace notices nothing: it has a route, and what it sends vanishes."""
        self._namespaces[1].run(["ip", "link", "set", DEVICE, "down"])

    def stop(self):
        self._process.end()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
