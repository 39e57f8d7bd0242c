#!/usr/bin/env python3
"""Computes the figures of a report of `hv compare` again, from its samples alone.

Usage: recompute_report.py report.json

Written from docs/report-format.md, not from hv's code: standard library, other language, other author's habits.
Prints what differs, and ends with 1 if anything does.
"""
import json
import math
import sys
from fractions import Fraction


def between(start, end):
    return None if start is None or end is None or end < start else end - start


def figure(name, s):
    p, m = s["phases"], s["memory"]
    known = [m["processes"] or 0, m["guest"] or 0]
    table = {
        "start.launch": lambda: between(s["asked"], p.get("launch")),
        "start.open": lambda: between(p.get("launch"), p.get("opened")),
        "start.boundary": lambda: between(p.get("opened"), p.get("boundary")),
        "start.kernel": lambda: between(p.get("boundary"), p.get("kernel")),
        "start.init": lambda: between(p.get("kernel", p.get("boundary")), p.get("init")),
        "start.exec": lambda: between(p.get("init", p.get("boundary")), p.get("exec")),
        "start.output": lambda: between(p.get("exec"), s["first_byte"]),
        "start.ready": lambda: between(s["asked"], s["first_byte"]),
        "start.ready-cold": lambda: between(s["asked"], s["first_byte"]),
        "end.exit": lambda: between(s["told_to_end"] or s["first_byte"], p.get("exit")),
        "end.clean": lambda: between(p.get("exit"), s["gone"]),
        "end.gone": lambda: between(s["told_to_end"] or s["first_byte"], s["gone"]),
        "end.cpu": lambda: s["cpu_ns"],
        "memory.monitor": lambda: m["monitor"],
        "memory.processes": lambda: m["processes"],
        "memory.guest": lambda: m["guest"],
        "memory.sum": lambda: None if m["monitor"] is None else m["monitor"] + sum(known),
        "memory.cgroup": lambda: m["cgroup"],
        "memory.residual": lambda: None if None in (m["cgroup"], m["inside"]) else m["cgroup"] - m["inside"],
        "crossings.exits": lambda: s["crossings"].get("total"),
    }
    return table[name]()


def slope(points):
    """Theil and Sen: the median of the slopes of all pairs."""
    pairs = [(a, b) for i, a in enumerate(points) for b in points[i + 1 :] if a[0] != b[0]]
    return median([(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairs]) if pairs else None


def of_round(name, r):
    """A figure of sandboxes beside each other, from one round."""
    steps = list(enumerate(r["steps"]))
    took = [s["first_byte"] - s["asked"] for _, s in steps]
    burst = [s["first_byte"] - s["asked"] for s in r["burst"]]

    def held(what):
        return [(n + 1, s[what]) for n, s in steps if s[what] is not None]

    def less(one, other):
        return None if one is None or other is None else one - other

    def available():
        known = [] if r["available"] is None else [(0, r["available"])]
        found = slope(known + held("available"))
        return None if found is None else -found

    table = {
        "scale.first": lambda: steps[0][1]["pss"] if steps else None,
        "scale.further": lambda: slope(held("pss")),
        "scale.shared": lambda: less(slope(held("rss")), slope(held("pss"))),
        "scale.available": available,
        "scale.alone": lambda: took[0] if took else None,
        "scale.slower": lambda: slope(list(enumerate(took))),
        "scale.latency": lambda: median(burst) if burst else None,
        "scale.latency-worst": lambda: max(burst) if burst else None,
        "scale.makespan": lambda: max(s["first_byte"] for s in r["burst"]) - min(s["asked"] for s in r["burst"])
        if burst
        else None,
    }
    return table[name]()


def of_work(name, r):
    """A figure of a workload inside, from one round: nanoseconds or exits an operation."""
    done = {d["name"]: d for d in r["done"]}
    workload, exits = name.removeprefix("inside."), False
    if workload.endswith(".exits"):
        workload, exits = workload.removesuffix(".exits"), True
    d = done.get(workload)
    if d is None or d.get("failure") is not None or not d["operations"]:
        return None
    if not exits:
        return d["nanoseconds"] / d["operations"]
    empty = done.get("empty", {})
    if d.get("exits") is None or empty.get("exits") is None:
        return None
    return max(0, d["exits"] - empty["exits"]) / d["operations"]


def median(values):
    values, half = sorted(values), len(values) // 2
    return values[half] if len(values) % 2 else (values[half - 1] + values[half]) / 2


def at_least(n, least, p):
    """The chance of at least `least` successes in n draws."""
    return sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(least, n + 1))


def interval(values):
    """The exact percentile bootstrap interval of the median, by fractions: no rounding at all."""
    n, x = len(values), sorted(values)
    if n < 3:
        return None
    share, half = [Fraction(i, n) for i in range(n + 1)], n // 2
    chances = []
    if n % 2:
        up_to = [at_least(n, half + 1, p) for p in share]
        chances = [(x[i], up_to[i + 1] - up_to[i]) for i in range(n)]
    else:
        up_to = [at_least(n, half, p) for p in share]
        ways = math.comb(n, half)
        reach = [share[i] ** half - share[i - 1] ** half for i in range(1, n + 1)]
        for i in range(1, n + 1):
            apart = 0
            for j in range(i + 1, n + 1):
                chance = ways * reach[i - 1] * reach[n - j]
                apart += chance
                chances.append(((x[i - 1] + x[j - 1]) / 2, chance))
            chances.append((x[i - 1], up_to[i] - up_to[i - 1] - apart))
    chances.sort()

    def end(wanted):
        total = 0
        for value, chance in chances:
            total += chance
            if total >= wanted:
                return value
        return chances[-1][0]

    return end(Fraction(25, 1000)), end(Fraction(975, 1000))


def paired(over, under):
    logs = [math.log(over[b] / under[b]) for b in over if b in under and over[b] > 0 and under[b] > 0]
    return logs


def main(path):
    with open(path, encoding="utf-8") as file:
        report = json.load(file)
    differences, compared = [], 0

    def check(what, ours, theirs):
        nonlocal compared
        compared += 1
        if ours is None or theirs is None or not math.isclose(ours, theirs, rel_tol=1e-9, abs_tol=1e-9):
            if ours != theirs:
                differences.append(f"{what}: {ours} here, {theirs} in the report")

    def values(name, who, role):
        found = {}
        if name.startswith("scale."):
            for r in report["scale"]["rounds"]:
                value = of_round(name, r) if r["kind"] == who and r["failure"] is None else None
                if value is not None:
                    found[r["round"]] = value
            return found
        if name.startswith("inside."):
            for r in report["inside"]["rounds"]:
                counted = r["round"] > 0 and r["failure"] is None and r["kind"] == who and r["role"] == role
                value = of_work(name, r) if counted else None
                if value is not None:
                    found[r["round"]] = value
            return found
        for s in report["samples"]:
            counted = s["block"] >= report["warm_up"] and s["failure"] is None
            if counted and s["kind"] == who and s["role"] == role:
                value = figure(name, s)
                if value is not None:
                    found[s["block"]] = value
        return found

    for shown in report["figures"]:
        name = shown["id"]
        role = "cold" if name.endswith("-cold") else "main"
        by_kind = {who: values(name, who, role) for who in report["kinds"]}
        for who, samples in by_kind.items():
            estimate = shown["of"].get(who)
            if (estimate is None) != (not samples):
                differences.append(f"{name} of {who}: there in one only")
            if estimate is None or not samples:
                continue
            all_values = list(samples.values())
            check(f"{name} of {who}, n", len(all_values), estimate["n"])
            check(f"{name} of {who}, median", median(all_values), estimate["median"])
            check(f"{name} of {who}, min", min(all_values), estimate["min"])
            check(f"{name} of {who}, max", max(all_values), estimate["max"])
            ends = interval(all_values)
            if ends and estimate["interval"]:
                check(f"{name} of {who}, low", ends[0], estimate["interval"]["low"])
                check(f"{name} of {who}, high", ends[1], estimate["interval"]["high"])
        for pair in shown.get("no_ratio", {}):
            over, under = (by_kind[who] for who in pair.split("/"))
            both = [b for b in over if b in under]
            check(f"{name} {pair}, no ratio", len(paired(over, under)) * 10 < len(both) * 9, True)
        for pair, ratio in shown["ratios"].items():
            over, under = pair.split("/")
            logs = paired(by_kind[over], by_kind[under])
            check(f"{name} {pair}, ratio", math.exp(median(logs)), ratio["ratio"])
            ends = interval(logs)
            if ends and ratio["interval"]:
                check(f"{name} {pair}, low", math.exp(ends[0]), ratio["interval"]["low"])
                check(f"{name} {pair}, high", math.exp(ends[1]), ratio["interval"]["high"])
            both = sorted(b for b in by_kind[over] if b in by_kind[under])
            d = [by_kind[over][b] - by_kind[under][b] for b in both if by_kind[over][b] > 0 and by_kind[under][b] > 0]
            walsh = [(d[i] + d[j]) / 2 for i in range(len(d)) for j in range(i, len(d))]
            check(f"{name} {pair}, shift", median(walsh), ratio["shift"])
            floors = []
            for who in () if name.startswith("scale.") else (over, under):
                logs_aa = paired(values(name, who, "main"), values(name, who, "twin"))
                ends = interval(logs_aa)
                if ends:
                    floors.append(max(math.exp(ends[1]), 1 / math.exp(ends[0])) - 1)
            floor = max(floors) if floors else None
            check(f"{name} {pair}, floor", floor, ratio["floor"])
    for effect in report.get("effects", []):
        def starts(switch):
            trials = report["ablation"]["trials"]
            of_kind = [t for t in trials if t["kind"] == effect["kind"] and t["switch"] == switch]
            counted = [t for t in of_kind if t["block"] > 0 and t["failure"] is None]
            return {t["block"]: t["first_byte"] - t["asked"] for t in counted}

        name = f"{effect['kind']} {effect['switch']}"
        usual, twin, changed = starts("usual"), starts("twin"), starts(effect["switch"])
        d = [at - usual[block] for block, at in changed.items() if block in usual]
        check(f"{name}, n", len(d), effect["n"])
        if not d:
            continue
        check(f"{name}, usual", median(usual.values()), effect["usual"])
        check(f"{name}, changed", median(changed.values()), effect["changed"])
        check(f"{name}, difference", median(d), effect["difference"])
        ends = interval(d)
        if ends and effect["interval"]:
            check(f"{name}, low", ends[0], effect["interval"]["low"])
            check(f"{name}, high", ends[1], effect["interval"]["high"])
        ends, aa = interval(d), interval(paired(usual, twin))
        floor = max(math.exp(aa[1]), 1 / math.exp(aa[0])) - 1 if aa else 0
        surely = ends is not None and (ends[0] > 0 or ends[1] < 0)
        verdict = surely and abs(median(d)) > max(0.05, floor) * median(usual.values())
        check(f"{name}, differs", verdict, effect["differs"])
    print(f"{compared} values computed again, {len(differences)} differ")
    for line in differences:
        print(line)
    return 1 if differences or not compared else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
