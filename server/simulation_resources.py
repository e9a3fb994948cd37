"""How many simulated hospitals work at a time, and what that takes: chosen from the machine, said first."""

from __future__ import annotations

import os
from dataclasses import dataclass

import psutil

from hymate.errors import InputFault
from server.simulation_config import SimulationConfig

GIB = 2**30
DRIVER = 1.5 * GIB
"""What the command and Ray's own processes take."""
WORKER = 1.0 * GIB
"""Planned for a hospital at work where the study does not say: its process and its training."""
OBJECT_STORE = GIB // 2
"""Ray's shared memory at most, where there is that much: weights out and updates back, a worker's each."""


@dataclass(frozen=True)
class Resources:
    """What a simulation takes of its machine."""

    workers: int
    cpus: float
    """Cores of one worker ..."""
    gpus: float
    memory_limit: int
    """... and bytes that it may take; 0: no limit."""
    free: int
    """Bytes of memory that are free as it begins."""

    @property
    def memory(self) -> float:
        """Bytes that all of it is planned with."""
        return DRIVER + self.workers * (self.memory_limit or WORKER)

    def told(self, sites: int) -> str:
        """What a person should know before it begins."""
        each = f"{self.cpus:g} CPU" + (f" and {self.gpus:g} GPU" if self.gpus else "")
        return (
            f"{sites} hospitals, {self.workers} at a time ({each} each); planned with "
            f"{self.memory / GIB:.1f} GiB of {self.free / GIB:.1f} GiB free memory"
        )


def choose_resources(config: SimulationConfig, sites: int) -> Resources:
    """As many workers as the study says or, where it does not, as cores and free memory are for.

    Raises:
        InputFault: not one fits.
    """
    wants = config.resources
    limit = int((wants.memory_gib or 0) * GIB)
    free = psutil.virtual_memory().available
    workers = config.workers
    if workers is None:
        cores = int(len(os.sched_getaffinity(0)) / wants.cpus)
        room = int((free - DRIVER) / (limit or WORKER))
        workers = min(cores, room)
        if workers < 1:
            what = "CPU cores" if cores < 1 else f"memory ({free / GIB:.1f} GiB free)"
            raise InputFault(
                "simulation.resources",
                f"not one hospital fits this machine's {what}",
                "lower resources, free memory, or say simulation.workers: 1",
            )
    return Resources(min(workers, sites), wants.cpus, wants.gpus, limit, free)
