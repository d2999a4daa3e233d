"""What this machine has, as far as a deployment may use it: containers' limits are counted, not the host's size."""

from __future__ import annotations

import functools
import os
import platform
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

_ACCELERATORS = ("/dev/nvidia0", "/dev/dri/renderD128", "/dev/accel/accel0", "/dev/kfd")
"""Device files of NVIDIA, other GPUs, NPUs and AMD (Linux)."""


@dataclass(frozen=True)
class Machine:
    cores: int
    """Processors that this process may use."""
    memory: int
    """Bytes of RAM, or a container's limit if that is less. 0 when nobody says."""
    disk: int
    """Bytes that are free where variants are written."""
    accelerators: tuple[str, ...]
    processor: str

    @property
    def fingerprint(self) -> str:
        """Measurements hold for machines with the same one."""
        return f"{self.processor}, {self.cores} cores, {self.memory / 1e9:.0f} GB"


def this_machine(folder: Path) -> Machine:
    """Args: folder: where variants would be written; it need not exist yet."""
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    return Machine(
        cores=_cores(),
        memory=_memory(),
        disk=shutil.disk_usage(existing).free,
        accelerators=tuple(path for path in _ACCELERATORS if os.path.exists(path)),
        processor=_processor(),
    )


@functools.cache
def has_avx512() -> bool:
    """Whether engines compute in AVX-512 here, which decides in which form they hold weights."""
    return " avx512f" in _read("/proc/cpuinfo")


def others_at_work(seconds: float = 0.5) -> float:
    """How many processors' worth of work all other processes do, looked at for so long. Where the system does not say:
    its load average."""

    def spent() -> tuple[float, float]:
        fields = [float(number) for number in _read("/proc/stat").partition("\n")[0].split()[1:9]]
        user, nice, system, _idle, _waiting, interrupts, soft, _stolen = fields
        return (user + nice + system + interrupts + soft) / os.sysconf("SC_CLK_TCK"), time.process_time()

    try:
        before = spent()
        time.sleep(seconds)
        after = spent()
    except (ValueError, OSError):
        return os.getloadavg()[0]
    return max(0.0, (after[0] - before[0] - (after[1] - before[1])) / seconds)


def free_memory() -> int:
    """Bytes that can be had now without swapping, in a container no more than its limit leaves. 0 when nobody says."""
    found = [line.split() for line in _read("/proc/meminfo").splitlines() if line.startswith("MemAvailable:")]
    free = int(found[0][1]) * 1024 if found else 0
    limit, used = _read("/sys/fs/cgroup/memory.max").strip(), _read("/sys/fs/cgroup/memory.current").strip()
    return min(free, max(0, int(limit) - int(used))) if free and limit.isdigit() and used.isdigit() else free


def _cores() -> int:
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _read("/sys/fs/cgroup/cpu.max").split()
    if len(quota) == 2 and quota[0].isdigit():
        return max(1, min(allowed, int(quota[0]) // int(quota[1])))
    return allowed


def _memory() -> int:
    try:
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        whole = 0
    limit = _read("/sys/fs/cgroup/memory.max").strip()
    return min(whole, int(limit)) if limit.isdigit() and whole else whole


def _processor() -> str:
    for line in _read("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8", "replace")
    except OSError:
        return ""
