"""Simulate a server with a queue per process."""

from __future__ import annotations

import heapq
import random


def simulate_closed_queue(
    processes: int,
    concurrency: int,
    *,
    cpu: float,
    io: float,
    answers: int,
    random_source: random.Random,
) -> float:
    """Return the responses per second of a server under a closed-loop load.

    Each process handles one request at a time, for `cpu` seconds; the `io` seconds of a request do
    not block its process. Both are gamma distributed, as measured on servers.
    """
    queues: list[list[int]] = [[] for _ in range(processes)]
    busy = [False] * processes
    ends: list[tuple[float, bool, int]] = []

    def begin(now: float, request: int) -> None:
        heapq.heappush(ends, (now + random_source.gammavariate(4, cpu / 4), True, request))

    def arrive(now: float, request: int) -> None:
        process = request % processes
        if busy[process]:
            queues[process].append(request)
        else:
            busy[process] = True
            begin(now, request)

    for request in range(concurrency):
        arrive(0.0, request)
    answered, warmup, since = 0, 2 * concurrency, 0.0
    while True:
        now, worked, request = heapq.heappop(ends)
        if not worked:
            answered += 1
            if answered == warmup:
                since = now
            if answered == warmup + answers:
                return answers / (now - since)
            arrive(now, request)
            continue
        heapq.heappush(ends, (now + random_source.gammavariate(4, io / 4), False, request))
        queue = queues[request % processes]
        if queue:
            begin(now, queue.pop(random_source.randrange(len(queue))))
        else:
            busy[request % processes] = False
