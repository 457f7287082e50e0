"""Freed memory is kept within the block, and given back after it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from masked_denoise import memory

FAULTS = """
import resource
import numpy as np
from masked_denoise.memory import held_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(40 << 17)  # 40 MiB, more than glibc keeps by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() >> 20

outside = faults()
with held_memory():
    with held_memory():
        faults()
    inside, held = faults(), resident()
print(outside, inside, held - resident())
"""


@pytest.mark.skipif(memory._glibc() is None, reason="for the GNU C library only")
def test_memory_is_kept_within_the_block_only() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True
    )
    outside, inside, given_back = map(int, done.stdout.split())
    assert inside < outside / 10
    assert given_back >= 30


def test_an_older_glibc_keeps_what_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Older:
        def mallopt(self, name: int, value: int) -> int:
            asked.append((name, value))
            return int(name != memory._MMAP_THRESHOLD or value <= 32 << 20)

    monkeypatch.setattr(memory, "_glibc", Older)
    with memory.held_memory(give_back=False):
        assert asked[:2] == [
            (memory._MMAP_THRESHOLD, 256 << 20),
            (memory._MMAP_THRESHOLD, 32 << 20),
        ]


def test_elsewhere_than_on_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    assert memory._glibc() is None
    with memory.held_memory():
        assert memory._users == 0
