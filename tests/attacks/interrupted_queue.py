"""Interrupts at random moments while a NetworkQueue answers threads: `interrupted_queue.py SECONDS`; exit status 1 when
a thread is left waiting."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time

import torch

from fathom.mass.network import NetworkQueue, Queued, Stopped, Ticket

torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)
until = time.monotonic() + float(sys.argv[1])
rounds = 0


def ask(queue: NetworkQueue) -> None:
    """Ask for ever."""
    network = Queued(queue, torch.nn.Identity(), Ticket())
    try:
        while True:
            network(torch.zeros(1))
    except Stopped:
        pass


while time.monotonic() < until:
    rounds += 1
    queue = NetworkQueue()
    askers = [threading.Thread(target=ask, args=(queue,), daemon=True) for _ in range(6)]
    try:
        for asker in askers:
            asker.start()
        threading.Timer(random.random() * 0.02, os.kill, (os.getpid(), signal.SIGINT)).start()
        queue.run()
        time.sleep(1)
    except KeyboardInterrupt:
        pass
    queue.stop()
    end = time.monotonic() + 3
    for asker in askers:
        asker.join(max(0, end - time.monotonic()))
    if any(asker.is_alive() for asker in askers):
        sys.exit(1)
sys.stdout.write(f"{rounds} interrupts\n")
