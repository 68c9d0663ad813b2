"""Servers with a knee, as curves and as arithmetic."""

from __future__ import annotations

import heapq
import random


def closed_queue(
    processes: int, at_once: int, *, work: float, aside: float, answers: int, source: random.Random
) -> float:
    """Drive a server of so many processes, each of which works on one request at a time, and give
    the answers a second.

    A request takes `work` seconds of its process and `aside` seconds beside others, both of a
    gamma distribution, as measured on servers.
    """
    queues: list[list[int]] = [[] for _ in range(processes)]
    busy = [False] * processes
    ends: list[tuple[float, bool, int]] = []

    def begin(now: float, request: int) -> None:
        heapq.heappush(ends, (now + source.gammavariate(4, work / 4), True, request))

    def arrive(now: float, request: int) -> None:
        process = request % processes
        if busy[process]:
            queues[process].append(request)
        else:
            busy[process] = True
            begin(now, request)

    for request in range(at_once):
        arrive(0.0, request)
    answered, warm, since = 0, 2 * at_once, 0.0
    while True:
        now, worked, request = heapq.heappop(ends)
        if not worked:
            answered += 1
            if answered == warm:
                since = now
            if answered == warm + answers:
                return answers / (now - since)
            arrive(now, request)
            continue
        heapq.heappush(ends, (now + source.gammavariate(4, aside / 4), False, request))
        queue = queues[request % processes]
        if queue:
            begin(now, queue.pop(source.randrange(len(queue))))
        else:
            busy[request % processes] = False
