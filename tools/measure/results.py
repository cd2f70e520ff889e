"""Results: interleaved pairs of measurements, their ratios, and the table that people read."""

import json
import os
import pathlib
import platform
import statistics


def machine():
    model = "unknown processor"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {"processors": os.cpu_count(), "model": model, "kernel": platform.release(),
            "load_at_start": round(os.getloadavg()[0], 1)}


class Comparison:
    """Pairs of the same work, done by Larder and by something else, one right after the other.

    The ratio of a pair says how Larder does: for speeds 1.0 is as fast and 0.5 half as fast as the
    other; for costs 2.0 is twice as dear.
    """

    def __init__(self, name, against, unit, aim=None, cost=False):
        self.name = name
        self.against = against
        self.unit = unit
        self.aim = aim
        self.cost = cost
        self.pairs = []

    def add(self, ours, other):
        self.pairs.append((ours, other))

    def has_any(self):
        return bool(self.pairs)

    def ratios(self):
        return [ours / other if other else float("inf") for ours, other in self.pairs]

    def falls_short(self):
        if self.aim is None or not self.pairs:
            return False
        ratio = statistics.median(self.ratios())
        return ratio > self.aim if self.cost else ratio < self.aim

    def row(self):
        ratios = self.ratios()
        return [self.name, _spread([ours for ours, _ in self.pairs]), self.unit, self.against,
                _spread([other for _, other in self.pairs]), _spread(ratios), _aim_text(self),
                "falls short" if self.falls_short() else ""]

    def as_json(self):
        return {"name": self.name, "against": self.against, "unit": self.unit, "aim": self.aim,
                "is_cost": self.cost, "pairs": self.pairs,
                "ratio_median": statistics.median(self.ratios()),
                "falls_short": self.falls_short()}


class Figure:
    """What has nothing to be compared with: measured several times, and in units that mean something by themselves."""

    def __init__(self, name, unit, aim=None, cost=False):
        self.name = name
        self.unit = unit
        self.aim = aim
        self.cost = cost
        self.values = []

    def add(self, value):
        self.values.append(value)

    def has_any(self):
        return bool(self.values)

    def falls_short(self):
        if self.aim is None or not self.values:
            return False
        value = statistics.median(self.values)
        return value > self.aim if self.cost else value < self.aim

    def row(self):
        return [self.name, _spread(self.values), self.unit, "", "", "", _aim_text(self),
                "falls short" if self.falls_short() else ""]

    def as_json(self):
        return {"name": self.name, "unit": self.unit, "aim": self.aim, "is_cost": self.cost,
                "values": self.values, "falls_short": self.falls_short()}


def _aim_text(measured):
    return "" if measured.aim is None else f"{'<=' if measured.cost else '>='} {measured.aim}"


def _spread(values):
    return f"{_short(statistics.median(values))} [{_short(min(values))}-{_short(max(values))}]"


def _short(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


_HEAD = ["what", "Larder", "unit", "against", "that", "ratio", "aim", ""]


def table(comparisons):
    rows = [_HEAD] + [each.row() for each in comparisons if each.has_any()]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
                     for row in rows)


def write_json(path, about, comparisons):
    content = {"machine": about, "comparisons": [each.as_json() for each in comparisons if each.has_any()]}
    pathlib.Path(path).write_text(json.dumps(content, indent=1) + "\n")
