"""Measured rows for tests of choosing: every figure that matters is an argument."""

from __future__ import annotations

from trimtab.deploy.interval import Interval
from trimtab.deploy.quality import Quality
from trimtab.deploy.results import Measured
from trimtab.deploy.speed import Speed
from trimtab.deploy.variant import Candidate, Knobs, variant

MB = 1_000_000


def exact(value: float) -> Interval:
    return Interval(value, value, value)


def row(
    name: str,
    *,
    memory: int,
    disk: int = 100,
    first: float = 1.0,
    rate: float = 20.0,
    loss: float = 0.0,
    users: int = 1,
    context: int = 2048,
    threads: int = 2,
) -> Measured:
    """Sizes in MB, `first` is the p95 in seconds, `rate` tokens a second of each answer."""
    speed = Speed(users, 9, first / 2, first, exact(first / 2), 0.02, 0.05, exact(rate), rate * users, 2000, 0.0)
    return Measured(
        key=f"{name}-{users}-{context}-{threads}",
        candidate=Candidate(variant(name), Knobs(slots=users, context=context, threads=threads)),
        model_sha256="0" * 64,
        workload="synthetic",
        workload_digest="d",
        machine="test",
        alone=speed,
        together=speed,
        memory=memory * MB,
        disk=disk * MB,
        start_seconds=1.0,
        quality=Quality(270, exact(30 * (1 + loss)), exact(loss), exact(loss / 10), 1.0),
        estimated_memory=memory * MB,
        estimated_disk=disk * MB,
        load_before=0.0,
        seconds=10.0,
        at=1.0,
        command=f"trimtab measure --again --variant {name}",
    )
