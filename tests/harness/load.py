"""Load: readers of a mount who look whether every byte is right; and what they may read."""

import itertools
import os
import random
import threading
import time

READERS = 4


def in_turn(names):
    """For each reader a part of the names, again and again."""
    return [itertools.cycle(names[number::READERS]) for number in range(READERS)]


def by_chance(seed, pick):
    """For each reader what `pick` takes, given a source of chance."""
    def picked(chance):
        while True:
            yield pick(chance)

    return [picked(random.Random(f"{seed} {number}")) for number in range(READERS)]


def any_of(names, hot=()):
    """Most of it of `hot`, if there are such."""
    return lambda chance: chance.choice(hot if hot and chance.random() < 0.7 else names)


class Load:
    """A reader for each of `names`, which yield what he reads; what they find wrong is in `problems`."""

    def __init__(self, export, mounted, names, pause=0):
        self._export = export
        self._mounted = mounted
        self._pause = pause
        self._over = threading.Event()
        self.problems = []
        self.reads = 0
        self._threads = [threading.Thread(target=self._run, args=(each,)) for each in names]
        for thread in self._threads:
            thread.start()

    def stop(self):
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, names):
        while not self._over.is_set():
            name = next(names)
            try:
                with open(self._mounted / name, "rb") as file:
                    content = file.read()
                    # The next reader is to come to the engine, or to the cache's file.
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                if content != (self._export / name).read_bytes():
                    self.problems.append(f"{name}: wrong bytes")
            except OSError as error:
                self.problems.append(f"{name}: {error}")
            self.reads += 1
            time.sleep(self._pause)
