"""Kill a node again and again while studies go through it, then look whether anything was lost, changed or doubled.

One trial is some kills and one examination. `test_crash.py` runs a short one, `scripts/soak` many. The node is the real
one with a quick model (tests/stand_in.py), DCMTK's storescu is the sender, Orthanc the PACS.
"""

from __future__ import annotations

import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from dicomnode import schema
from dicomnode.spool import digest_of
from dicomnode.study import State
from tests.integration.programs import FINAL, STAND_IN, Node, Orthanc, dcmtk, free_port, wait_for
from tests.integration.test_recovery import KINDS, sha256, write_series

SPREAD_SECONDS = 0.3  # between the moment that is aimed at and the kill

#: The moments at which a kill can find a study, and the faults that stretch them.
MOMENTS = {
    "arriving": ("",),
    "arrived": ("",),
    "queued": ("inference:sleep:60",),
    "analysing": ("inference:sleep:60", "writing:sleep:60", "committing:sleep:60"),
    "written": ("sending:sleep:60",),
    "half sent": ("",),
    "sent, not noted": ("sent:sleep:60",),
}
AIMS = [(moment, fault) for moment, faults in MOMENTS.items() for fault in faults]


class Trial:
    """A node, its PACS, and what the node owes to its senders."""

    def __init__(self, folder: Path, *, seed: int, slices: int = 24, pacs_takes_seconds: float = 0.3) -> None:
        self._folder, self.slices, self._rng = folder, slices, random.Random(seed)
        # For each object, else a study is sent faster than one can aim.
        self.pacs = Orthanc(folder / "pacs", takes_seconds=pacs_takes_seconds)
        destinations = {"pacs": self.pacs.address}
        self.node = Node(folder / "node", destinations=destinations, program=STAND_IN, web=free_port())
        #: Digest of every image that was acknowledged, by SOP Instance UID.
        self.acknowledged: dict[str, str] = {}
        #: How many studies a kill found at each moment.
        self.moments: Counter[str] = Counter()
        self.kills = self.studies = 0
        self._interrupted: list[Path] = []  # what the sender has not got rid of

    def __enter__(self) -> Trial:
        self.pacs.start()
        return self

    def __exit__(self, *_error: object) -> None:
        if self.node.process is not None and self.node.process.poll() is None:
            self.node.kill_group()
        self.pacs.stop()

    def strike(self, moment: str, fault: str) -> None:
        """Start the node, send it a new study, kill it when it has a study at this moment."""
        if moment == "arriving":
            self.start(fault)
            self.send_study(kill_after=self._rng.randrange(1, self.slices))
        else:
            self.reach(fault, moment)
            if fault:  # what nothing stretches may be over
                time.sleep(self._rng.uniform(0, SPREAD_SECONDS))
            self.node.kill_group()
        self.kills += 1
        # What was on its way to the PACS may have arrived after the kill.
        self.moments += self._moments() | Counter({moment: 1})

    def reach(self, fault: str, *moments: str) -> None:
        """Start the node and send it as many new studies; return when there is a study at each of these moments."""
        self.start(fault)
        for _ in moments:
            self.send_study()
        wait_for(f"studies that are {moments}", lambda: self._moments().keys() >= set(moments), 180)

    def send_study(self, *, kill_after: int = 0) -> None:
        """Send a new study and note what is acknowledged; kill the node after so many acknowledgements."""
        self.studies += 1
        files = write_series(self._folder / "in", study=str(self.studies), slices=self.slices, body_part="CSPINE")
        self._send(files, kill_after=kill_after)

    def examine(self) -> list[str]:
        """Let the node finish undisturbed, stop it, and return everything that is not as it must be."""
        if self.node.process is None or self.node.process.poll() is not None:
            self.start()
        book = self.node.ledger
        wait_for("all answers", lambda: all(row["state"] in FINAL for row in book.studies()), 120 + self.studies)
        kept = self.node.digests()
        problems = [f"{uid} is lost or changed" for uid, digest in self.acknowledged.items() if kept.get(uid) != digest]
        problems += [f"{uid} was never sent" for uid in kept.keys() - self.acknowledged.keys()]
        problems += self._unanswered() + self._left_over()
        status = self.node.stop()
        return problems + ([f"the node ended with exit status {status}"] if status else [])

    def start(self, fault: str = "") -> None:
        """Start the node, see that it kept its word, and send what the last kill interrupted."""
        self.node.start(**({"DICOMNODE_FAULT": fault} if fault else {}))
        kept = {item.sop_uid: digest_of(item) for item in self.node.ledger.instances()}
        lost = [uid for uid, digest in self.acknowledged.items() if kept.get(uid) != digest]
        assert not lost, f"{len(lost)} acknowledged images were lost or changed by the last kill: {lost[:3]}"
        self._send(self._interrupted)

    def _send(self, files: list[Path], *, kill_after: int = 0) -> None:
        """Send by storescu and note what was acknowledged; kill the node after so many acknowledgements."""
        self._interrupted = []
        if not files:
            return
        command = [dcmtk("storescu"), "-v", "-aec", "DICOMNODE", "127.0.0.1", str(self.node.address.port)]
        with subprocess.Popen(
            [*command, *map(str, files)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as sender:
            count = 0
            for line in sender.stdout or ():
                count += "Received Store Response (Success)" in line
                if kill_after and count == kill_after:
                    time.sleep(self._rng.uniform(0, 0.01))
                    self.node.kill_group()
                    kill_after = 0
        self.acknowledged |= {_uid(path): sha256(path) for path in files[:count]}
        self._interrupted = files[count:]

    def _moments(self) -> Counter[str]:
        """Where each unfinished study is."""
        book, there = self.node.ledger, self._in_the_pacs()
        found: Counter[str] = Counter()
        for study in book.studies():
            if study["state"] == State.RECEIVING:
                found["arriving" if study["instances"] < self.slices else "arrived"] += 1
        for task in book.rows(schema.task, kind="infer"):
            found[{"ready": "queued", "running": "analysing"}.get(task["state"], "")] += 1
        for task in [t for state in ("ready", "running") for t in book.rows(schema.task, kind="deliver", state=state)]:
            results = book.rows(schema.result, task_id=task["parent_id"])
            owed = {result["sop_uid"] for result in results if result["kind"] in KINDS}
            found["written" if not owed & there else "half sent" if owed - there else "sent, not noted"] += 1
        del found[""]
        return found

    def _in_the_pacs(self) -> set[str]:
        return {item["MainDicomTags"]["SOPInstanceUID"] for item in self.pacs.get("/instances?expand")}

    def _unanswered(self) -> list[str]:
        """Every study must be answered by one set of results; what else the PACS has must be superseded by it."""
        there, problems, explained = self._in_the_pacs(), [], set()
        for row in self.node.ledger.studies():
            document = self.node.study(row["uid"])
            current = {result["sop_uid"]: result["kind"] for result in document["results"]}
            explained |= current.keys() | set(document["superseded"])
            if row["state"] != "done" or sorted(current.values()) != KINDS or row["instances"] != self.slices:
                problems.append(f"study {row['uid']}: {row['state']}, {row['instances']} images, {current}")
            problems += [f"{uid} of study {row['uid']} is not in the PACS" for uid in current.keys() - there]
        return problems + [f"{uid} in the PACS is of no study's answer" for uid in there - explained]

    def _left_over(self) -> list[str]:
        """Work that nobody will do, and files that nobody knows."""
        book, spool = self.node.ledger, self.node.data_dir / "spool"
        problems = [
            f"task {task['id']} of study {task['study_uid']} is {task['state']}, owner {task['owner']}"
            for task in book.rows(schema.task)
            if task["state"] not in ("done", "unproven", "obsolete") or task["owner"]
        ]
        known = {row["path"] for table in (schema.instance, schema.result) for row in book.rows(table)}
        files = {str(path) for path in spool.rglob("*") if path.is_file()}
        problems += [f"{path} is in the spool and not in the ledger" for path in sorted(files - known)]
        return problems + [f"{path} is in the ledger and not in the spool" for path in sorted(known - files)]


def run(trial: Trial, kills: int, tell: Callable[[str], None]) -> list[str]:
    """Kill so many times, at every moment in turn, and examine."""
    for moment, fault in [AIMS[i % len(AIMS)] for i in range(kills)]:
        trial.strike(moment, fault)
        tell(f"kill {trial.kills}: {moment} {fault}; {len(trial.acknowledged)} images acknowledged")
    return trial.examine()


def _uid(path: Path) -> str:
    import pydicom

    return str(pydicom.dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID)
