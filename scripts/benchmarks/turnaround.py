"""From the last image acknowledged to the last result acknowledged by the archive, split by stage.

One phantom study goes through a real node to an archive on this machine. The reference is the same study, read,
analysed and written by a function call in this process with the model loaded: what no node can go below.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from functools import cache, partial
from pathlib import Path

from dicomnode import answer, ledger, schema, selection
from dicomnode.config import CONFIG_DIR, Config
from dicomnode.ledger import Ledger
from dicomnode.network.archive import Archive
from dicomnode.network.listen import Listener
from dicomnode.network.send import send
from dicomnode.process import read_studies
from dicomnode.study import Study
from inference import pipeline
from inference.phantom.studies import write_studies
from scripts.benchmarks import common

SEED, STUDIES, QUIET_SECONDS = 950_000, 5, 1.0
STAGES = ("assembly", "read", "preprocess", "slices", "vertebrae", "explain", "write", "hand over", "deliver")


def main() -> None:
    """Measure and print."""
    as_json = common.wants_json(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        paths = write_studies(root / "in", count=STUDIES, seed=SEED, profile="standard", truth=False, positive=True)
        studies = read_studies(paths, lambda path, why: None)
        measured = through_the_node(studies, root)
        bare = statistics.median(in_process(studies)[1:])
    first, later = measured[0], measured[1:]
    warm = {stage: statistics.median(times[stage] for times in later) for stage in (*STAGES, "total")}
    ratio = (warm["total"] - warm["assembly"]) / bare
    document = {"first": first, "warm": warm, "in_process": bare, "ratio": ratio, "quiet_seconds": QUIET_SECONDS}
    rows = [["stage", "first study, s", "later studies, s (median)"]]
    rows += [[stage, f"{first[stage]:.2f}", f"{warm[stage]:.2f}"] for stage in (*STAGES, "total")]
    common.show(document, rows, as_json)
    if not as_json:
        print(
            f"\nthe same work by a function call: {bare:.2f} s; the node without assembly takes {ratio:.2f} times that"
        )


def through_the_node(studies: list[Study], root: Path) -> list[dict[str, float]]:
    """Seconds by stage of each study, sent one after the other."""
    listener = Listener(Archive(root / "archive", "ARCHIVE"), host="127.0.0.1", port=0)
    place = {"name": "archive", "ae_title": "ARCHIVE", "host": "127.0.0.1", "port": listener.port}
    settings = {"DESTINATION": json.dumps([place]), "ASSEMBLY__QUIET_SECONDS": str(QUIET_SECONDS)}
    measured = []
    with common.node(root / "node", **settings) as address:
        book = ledger.connect(Config(data_dir=root / "node").ledger_url)
        for study in studies:
            send([instance.path for instance in study.instances], address, calling_ae="BENCH")
            wait_for(book, study.uid)
            measured.append(stages(book, study.uid))
    listener.stop()
    return measured


def wait_for(book: Ledger, study_uid: str) -> None:
    while (state := book.rows(schema.study, uid=study_uid)[0]["state"]) != "done":
        if state == "failed":
            raise RuntimeError("the study failed")
        time.sleep(0.05)


def stages(book: Ledger, study_uid: str) -> dict[str, float]:
    """Split by the times in the ledger, and inside the analysis by its own clock."""
    study = book.rows(schema.study, uid=study_uid)[0]
    infer, delivery = book.rows(schema.task, study_uid=study_uid)
    timings = book.rows(schema.analysis, study_uid=study_uid)[0]["document"]["timings"]
    analysed, delivered = (book.rows(schema.attempt, task_id=task["id"])[-1]["at"] for task in (infer, delivery))
    inside = {stage: timings[stage] for stage in ("read", "preprocess", "slices", "vertebrae", "explain", "write")}
    return {
        "assembly": study["released_at"] - study["last_at"],
        **inside,
        "hand over": analysed - study["released_at"] - sum(inside.values()),  # polling, loading, flushing, ledger
        "deliver": delivered - analysed,
        "total": delivered - study["last_at"],
    }


def in_process(studies: list[Study]) -> list[float]:
    """Seconds for the same analyses without a node, the model being loaded."""
    rules, load = selection.load(CONFIG_DIR / "selection.toml"), cache(partial(pipeline.load, config_dir=CONFIG_DIR))
    seconds = []
    for study in studies:
        [job] = answer.jobs(study, selection.choose(study, rules))
        load(job.pipeline)
        start = time.perf_counter()
        answer.analyse(job, answer.origin(Config()), load)
        seconds.append(time.perf_counter() - start)
    return seconds


if __name__ == "__main__":
    main()
