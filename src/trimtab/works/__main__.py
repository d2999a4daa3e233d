"""The worker's process: `python -m trimtab.works FOLDER`, started by a foreman and by nobody else."""

from __future__ import annotations

import importlib
import logging
import sys
from pathlib import Path

from trimtab.align.jobs import Jobs
from trimtab.align.worker import leave_with_parent, working
from trimtab.domain.errors import NotFound

from . import KINDS


def main() -> None:
    leave_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    folder = Path(sys.argv[1])
    jobs = Jobs(folder.parent)
    job = jobs.get(folder.name)
    if job.kind not in KINDS:
        raise NotFound(f"No kind of job is named {job.kind!r}. There are: {', '.join(KINDS)}.")
    working(jobs, job, importlib.import_module(f"trimtab.works.{job.kind}").work)


if __name__ == "__main__":
    main()
