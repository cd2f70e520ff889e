"""Load: readers of a mount who look whether every byte is right."""

import itertools
import os
import random
import threading
import time


class Load:
    """Four readers of a mount; what they find wrong is in `problems`.

    Each takes what chance says, most of it of `hot`; or, `in_turn`, a quarter of the names again and again.
    """

    def __init__(self, case, names, hot=(), pause=0, in_turn=False):
        self._case = case
        self._names = names
        self._hot = hot
        self._pause = pause
        self._over = threading.Event()
        self.problems = []
        self.reads = 0
        pick = random.Random(case.seed)
        self._threads = [threading.Thread(target=self._run, args=(
            itertools.cycle(names[number::4]) if in_turn else self._by_chance(pick.random()),))
                         for number in range(4)]
        for thread in self._threads:
            thread.start()

    def _by_chance(self, seed):
        pick = random.Random(seed)
        while True:
            hot = self._hot and pick.random() < 0.7
            yield pick.choice(self._hot if hot else self._names)

    def stop(self):
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, names):
        while not self._over.is_set():
            name = next(names)
            try:
                with open(self._case.mounted / name, "rb") as file:
                    # What was just read is not to stay in the kernel's memory for the next reader.
                    content = file.read()
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                if content != (self._case.export / name).read_bytes():
                    self.problems.append(f"{name}: wrong bytes")
            except OSError as error:
                self.problems.append(f"{name}: {error}")
            self.reads += 1
            time.sleep(self._pause)
