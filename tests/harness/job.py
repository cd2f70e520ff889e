"""Job: something that a test does in a thread, because it may take as long as the test wants it to."""

import threading

from harness.processes import TookTooLong

_SECONDS = 30  # much less than the default timeo of 60 s, after which a call that is held would be sent again


class Job:
    """Begun by its constructor; `result()` waits for it, and raises what it raised."""

    def __init__(self, name, function, *arguments):
        self.name = name
        self._value, self._error = None, None
        self._thread = threading.Thread(target=self._run, args=(function, arguments), daemon=True)
        self._thread.start()

    def _run(self, function, arguments):
        try:
            self._value = function(*arguments)
        except Exception as error:  # pylint: disable=broad-except
            self._error = error

    def is_over(self):
        return not self._thread.is_alive()

    def result(self, seconds=_SECONDS):
        self._thread.join(seconds)
        if self._thread.is_alive():
            raise TookTooLong(f"not over after {seconds} s: {self.name}")
        if self._error is not None:
            raise self._error
        return self._value
