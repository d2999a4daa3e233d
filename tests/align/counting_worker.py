"""A worker for the tests of jobs: it counts, a checkpoint each time. Run as a job's command."""

import sys
import time
from pathlib import Path
from typing import Any

from trimtab.align.jobs import Job, Jobs
from trimtab.align.worker import Report, leave_with_parent, working
from trimtab.domain.errors import InvalidInput


def count(job: Job, report: Report) -> dict[str, Any]:
    if job.recipe.get("wrong"):
        raise InvalidInput("There is nothing to count. Say how far.")
    kept = job.work / "count"
    done = int(kept.read_text()) if kept.exists() else 0
    while done < job.recipe["to"]:
        time.sleep(job.recipe.get("pause", 0.0))
        if done == job.recipe.get("dies_at") and not (job.work / "died").exists():
            (job.work / "died").touch()
            sys.exit("out of numbers")
        if done == job.recipe.get("always_dies_at"):
            sys.exit("out of numbers for good")
        done += 1
        report.tell("count", n=done)  # before it is kept: told twice is better than never
        kept.with_suffix(".new").write_text(str(done))
        kept.with_suffix(".new").replace(kept)
        report.moved("count", done, job.recipe["to"])
        report.checkpointed()
    return {"counted": done}


if __name__ == "__main__":
    leave_with_parent()
    folder = Path(sys.argv[1])
    jobs = Jobs(folder.parent)
    working(jobs, jobs.get(folder.name), count)
