"""Many trials of tests/integration/crash.py on one node: its data grow, and nothing in them may be wrong."""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.integration import load
from tests.integration.crash import AIMS, Trial, run


def main() -> None:
    """Run trials until there were enough kills or hours; exit status 1 at the first thing that is wrong."""
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument("--kills", type=int, default=200)
    amount.add_argument("--hours", type=float)
    amount.add_argument("--instances", type=int, help="no kills but one: send so many images and measure")
    parser.add_argument("--slices", type=int, default=100, help="images of each study; at least 20")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))  # noqa: S311 - no secret
    parser.add_argument("--json", action="store_true", help="print one JSON document at the end")
    options = parser.parse_args()
    document = measure(options) if options.instances else soak(options)
    print(json.dumps(document) if options.json else "\n".join(f"{key}: {value}" for key, value in document.items()))
    sys.exit(bool(document["problems"]))


def soak(options: argparse.Namespace) -> dict[str, object]:
    """Return what was done and what was found; progress goes to stderr."""
    start, problems = time.monotonic(), list[str]()
    tell(f"seed {options.seed}")
    with (
        tempfile.TemporaryDirectory() as folder,
        Trial(Path(folder), seed=options.seed, slices=options.slices) as trial,
    ):
        while not problems:
            passed = time.monotonic() - start
            left = options.kills - trial.kills if options.hours is None else len(AIMS) * (passed < options.hours * 3600)
            if left <= 0:
                break
            try:
                problems = run(trial, min(left, len(AIMS)), tell)
            except AssertionError as error:
                problems = [str(error)]
            tell(f"examined: {len(problems)} problems")
        return {
            "seed": options.seed,
            "kills": trial.kills,
            "studies": trial.studies,
            "acknowledged": len(trial.acknowledged),
            "moments": dict(trial.moments),
            "seconds": round(time.monotonic() - start),
            "problems": problems,
        }


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Return what tests/integration/load.py measures over so many images."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Trial(Path(folder), seed=options.seed, slices=options.slices, pacs_takes_seconds=0) as trial,
    ):
        return load.run(trial, options.instances, tell)


def tell(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
