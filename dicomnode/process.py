"""Analyse files without a network: the node's own selection, analysis and writing over folders."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from dicomnode import answer, report, selection
from dicomnode.answer import Answer, Job, Origin
from dicomnode.errors import NodeError, Refused
from dicomnode.header import read_instance
from dicomnode.report import Document
from dicomnode.selection import Rules
from dicomnode.study import Instance, Study
from inference.pipeline import Pipeline
from sr import results as sr

logger = logging.getLogger(__name__)


def read_studies(paths: Iterable[Path], refused: Callable[[Path, str], None]) -> list[Study]:
    """Group the DICOM files below `paths` by study; `refused` hears of every file that is not one."""
    instances: dict[str, Instance] = {}
    for path in _files(paths):
        try:
            instance = read_instance(path)
        except Refused as error:
            refused(path, str(error))
            continue
        first = instances.setdefault(instance.sop_uid, instance)
        if first is not instance and first.path.read_bytes() != path.read_bytes():
            refused(path, f"another file with the same SOP Instance UID but other content: {first.path}")
    uids = sorted({instance.study_uid for instance in instances.values()})
    return [Study(uid=uid, instances=tuple(i for i in instances.values() if i.study_uid == uid)) for uid in uids]


def process(study: Study, out: Path, *, rules: Rules, origin: Origin, load: Callable[[str], Pipeline]) -> Document:
    """Analyse one study and write its results below `out`/<Study Instance UID>."""
    choices = selection.choose(study, rules)
    answers = [_answer(job, origin, load) for job in answer.jobs(study, choices)]
    folder = out / study.uid
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for found in answers:
        for number, result in enumerate(found.results, start=1):
            path = folder / f"{found.document['pipeline'] or 'none'}-{number}-{result.kind.lower()}.dcm"
            sr.save(result, path)
            written.append({"kind": str(result.kind), "sop_uid": str(result.dataset.SOPInstanceUID), "path": str(path)})
    documents = [found.document for found in answers]
    return report.study_document(
        study.uid,
        verdict=report.state_of(documents),
        released_because="every file was read",
        choices=[asdict(choice) for choice in choices],
        analyses=documents,
        results=written,
    )


def _answer(job: Job, origin: Origin, load: Callable[[str], Pipeline]) -> Answer:
    try:
        return answer.analyse(job, origin, load)
    except Exception as error:
        # One study's failure must be reported like any other answer, and must not end the run over the others.
        logger.exception("analysis failed")
        return answer.decline(job, origin, "failed", answer.explain(error))


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.exists():
            raise NodeError(f"{path} does not exist")
        yield from sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
