"""All tables, one after another, each in a process of its own: `python -m benchmarks [NAME...]`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TABLES = (
    "overhead",
    "engines",
    "answering",
    "engine_quality",
    "throughput",
    "retrieval",
    "tool_calling",
    "tool_choice",
    "bulkhead",
    "weights",
    "alignment",
)
HERE = Path(__file__).parent


def main() -> int:
    wanted = sys.argv[1:] or TABLES
    failed = 0
    for name in wanted:
        if name not in TABLES:
            print(f"There is no benchmark {name!r}. There are: {', '.join(TABLES)}.", file=sys.stderr)
            return 2
        print(f"\n== {name}: {(HERE / f'{name}.py').read_text().splitlines()[0].strip(chr(34))}\n", flush=True)
        failed += (
            subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], cwd=HERE.parent, check=False).returncode != 0
        )
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
