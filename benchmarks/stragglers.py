"""Slow workers and lost workers, simulated: what the chunk size costs, and how many attempts a chunk needs.

    python benchmarks/stragglers.py

Workers take the next chunk when they are free, as the Ray engine's actors do. A worker is lost at random (a spot
machine taken away, a node that dies); it comes back after a restart, and its chunk starts again from the beginning
(shards, object stores) or after the pictures in its journal (a mirrored tree on a shared disk). Some workers are slow.
"""

from __future__ import annotations

import argparse
import heapq
import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Fleet:
    """workers; seconds a picture; hours between losses of one worker; seconds of a restart; share of workers that are
    slow, and how many times; whether finished pictures of a lost chunk stay."""

    workers: int = 200
    picture: float = 0.05
    lost_every: float = 12.0
    restart: float = 90.0
    slow: float = 0.02
    slowness: float = 3.0
    journal: bool = False


def simulate(fleet: Fleet, pictures: int, chunk: int, seed: int = 0) -> tuple[float, float, list[int]]:
    """Wall seconds, the share of the ideal wall that it is, and how many chunks needed 1, 2, 3 ... attempts."""
    rng = random.Random(seed)
    speeds = [fleet.slowness if rng.random() < fleet.slow else 1.0 for _ in range(fleet.workers)]
    free = [(0.0, worker) for worker in range(fleet.workers)]
    heapq.heapify(free)
    rate = 1 / (fleet.lost_every * 3600)
    again: list[tuple[float, float, int]] = []  # when it was lost, pictures left, attempts so far
    left, end = pictures, 0.0
    attempts: list[int] = []
    while left or again:
        now, worker = heapq.heappop(free)
        if again and (again[0][0] <= now or not left):
            lost_at, size, tried = heapq.heappop(again)
            now = max(now, lost_at)
        else:
            size, tried = float(min(chunk, left)), 0
            left -= int(size)
        each = fleet.picture * speeds[worker]
        survives = rng.expovariate(rate)
        if survives < size * each:
            done = survives / each if fleet.journal else 0.0
            heapq.heappush(again, (now + survives, size - done, tried + 1))
            heapq.heappush(free, (now + survives + fleet.restart, worker))
            continue
        finished = now + size * each
        end = max(end, finished)
        while len(attempts) <= tried:
            attempts.append(0)
        attempts[tried] += 1
        heapq.heappush(free, (finished, worker))
    ideal = pictures * fleet.picture / sum(1 / s for s in speeds)
    return end, ideal / end, attempts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=1_000_000)
    args = parser.parse_args()
    print(
        f"{args.pictures:,} pictures\n\n| fleet | chunk | share of the ideal speed | most attempts |\n|---|---|---|---|"
    )
    fleets = {
        "200 fast, steady": Fleet(),
        "200 fast, a loss every hour each": Fleet(lost_every=1),
        "1000 fast, a loss every 12 h": Fleet(workers=1000),
        "200 slow networks (2 s a picture), a loss every hour": Fleet(picture=2.0, lost_every=1),
        "the same with a journal": Fleet(picture=2.0, lost_every=1, journal=True),
    }
    for name, fleet in fleets.items():
        for chunk in (16, 128, 1024, 4096):
            if chunk * fleet.picture * fleet.slowness > 4 * fleet.lost_every * 3600 and not fleet.journal:
                print(f"| {name} | {chunk} | it does not end: a chunk takes longer than a worker lives | |")
                continue
            runs = [simulate(fleet, args.pictures, chunk, seed) for seed in range(3)]
            share = sum(r[1] for r in runs) / 3
            print(f"| {name} | {chunk} | {share:.3f} | {max(len(r[2]) for r in runs)} |")
    print("\n| chance that an attempt is lost | " + " | ".join(f"given up after {n}" for n in (1, 3, 5, 7, 9)) + " |")
    print("|---" * 6 + "|")
    for chance in (1e-4, 1e-2, 0.07, 0.2):
        wrong = " | ".join(f"{args.pictures / 128 * chance**n:.2g}" for n in (1, 3, 5, 7, 9))
        print(f"| {chance} | {wrong} |")
    print("\nsound chunks that would be given up, of those of 128 pictures each")


if __name__ == "__main__":
    main()
