"""From a selected series to an answer: read, analyse, write. The same for the node and for `dicomnode process`."""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import socket
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

import pydicom
from pydicom import Dataset

from dicomnode import faults
from dicomnode.config import CONFIG_DIR, Config
from dicomnode.errors import NodeError, Permanent
from dicomnode.selection import Choice
from dicomnode.study import Instance, Study
from inference.findings import Analysis, Finding
from inference.pipeline import Pipeline, UnknownPipeline
from inference.volume import UnusableSeries, Volume, read_volume
from inference.weights import UntrustedWeights
from sr import results as sr
from sr.results import Reference, Result, Run

logger = logging.getLogger(__name__)

_DEVICES = uuid.UUID("0f5d1bb1-5f53-5a1e-8f8e-5d3a4f0c7c11")  # name space of device UIDs


@dataclass(frozen=True, kw_only=True)
class Job:
    """One question about one study."""

    study: Study
    #: The verdict on every series of the study.
    choices: tuple[Choice, ...]
    #: The series to analyse and its pipeline; None if no series fits any pipeline.
    chosen: Choice | None
    #: Why nobody could look at the study; then there is nothing to analyse, only to report.
    failure: str = ""

    @property
    def pipeline(self) -> str:
        """Name of the pipeline, or "none"."""
        return (self.chosen.pipeline or "none") if self.chosen else "none"

    @property
    def companions(self) -> tuple[Choice, ...]:
        """The series that go with the chosen one."""
        return tuple(c for c in self.choices if c.companion and self.chosen and c.pipeline == self.chosen.pipeline)

    @property
    def inputs(self) -> tuple[Instance, ...]:
        """The instances the answer depends on: the chosen series and its companions, else every image looked at."""
        if self.chosen is not None:
            used = {choice.series_uid for choice in (self.chosen, *self.companions)}
            return tuple(i for i in self.study.instances if i.series_uid in used)
        images = tuple(i for i in self.study.instances if i.header.get("Modality") in ("CT", "MR"))
        return images or self.study.instances

    @property
    def digest(self) -> str:
        """Identifies the inputs: the same instances with the same bytes give the same digest."""
        lines = sorted(f"{i.sop_uid} {i.sha256}" for i in self.inputs)
        lines += [self.failure] if self.failure else []
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What is the same for all results of an installation and a moment; see sr.results.Run."""

    code_version: str
    #: Device UID (0018,1002) of this installation.
    device_uid: str
    #: Digest of the selection rules, for the answers that no pipeline gave.
    configuration_sha256: str
    created: datetime
    #: The objects to make of an analysis.
    kinds: tuple[str, ...]
    predecessors: tuple[Reference, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One analysis as JSON (docs/json.md), and the objects that carry it."""

    document: dict[str, Any]
    results: tuple[Result, ...]


def origin(config: Config) -> Origin:
    """The origin of results made now, by this installation."""
    return Origin(
        code_version=importlib.metadata.version("dicomnode-spine"),
        device_uid=f"2.25.{uuid.uuid5(_DEVICES, f'{socket.gethostname()} {config.receive.ae_title}').int}",
        configuration_sha256=hashlib.sha256((CONFIG_DIR / "selection.toml").read_bytes()).hexdigest(),
        created=datetime.now(UTC),
        kinds=tuple(kind.upper() for kind in config.result_kinds),
    )


def jobs(study: Study, choices: Sequence[Choice]) -> list[Job]:
    """One job for each pipeline that got a series, or a single one that explains why none did."""
    chosen: list[Choice | None] = [choice for choice in choices if choice.pipeline and not choice.companion]
    return [Job(study=study, choices=tuple(choices), chosen=choice) for choice in chosen or [None]]


def analyse(job: Job, origin: Origin, load: Callable[[str], Pipeline]) -> Answer:
    """Answer a job. Input that cannot be analysed is an answer too; an exception is a fault of ours."""
    if job.failure:
        return decline(job, origin, "failed", job.failure)
    if job.chosen is None:
        return decline(job, origin, "not_applicable", "no series of this study fits a pipeline")
    start = time.perf_counter()
    try:
        volume = _read(job, job.chosen)
    except UnusableSeries as error:
        return decline(job, origin, "not_applicable", f"the series cannot be analysed: {error}")
    companions, notes = _read_companions(job)
    read = time.perf_counter() - start
    pipeline = load(job.pipeline)
    faults.reach("inference")
    analysis = pipeline.run(volume, companions)
    analysis = replace(analysis, quality=(*analysis.quality, *notes))
    if analysis.state == "not_applicable":
        return decline(job, origin, "not_applicable", analysis.reason, analysis)
    faults.reach("writing")
    run = _run(job, origin, analysis, pipeline.configuration_sha256)
    start = time.perf_counter()
    refused: list[sr.InvalidResult] = []
    results = sr.write_results(volume, analysis, run, origin.kinds, refused.append)
    document = _document(job, analysis.state, analysis.reason, analysis, volume)
    document["refused"] = [str(error) for error in refused]
    document["timings"] |= {"read": read, "write": time.perf_counter() - start}
    return Answer(document=document, results=results)


def _read(job: Job, choice: Choice) -> Volume:
    return read_volume(i.path for i in job.study.instances if i.series_uid == choice.series_uid)


def _read_companions(job: Job) -> tuple[dict[str, Volume], list[str]]:
    """The volumes by contrast, and a remark for each series that is none: the analysis goes on without it."""
    volumes, notes = {}, []
    for choice in job.companions:
        try:
            volumes[str(choice.companion)] = _read(job, choice)
        except UnusableSeries as error:
            notes.append(f"{choice.companion} series {_series_name(job, choice)} was left out: {error}")
    return volumes, notes


def decline(
    job: Job,
    origin: Origin,
    outcome: Literal["not_applicable", "failed"],
    reason: str,
    analysis: Analysis | None = None,
) -> Answer:
    """Answer with a report that says why there is no analysis; raises Permanent if no image is left to report on.

    An image that was lost from the disk makes it a failure, whatever the outcome was: people must hear of it.
    """
    headers = list(filter(None, map(_header, job.study.instances)))
    if lost := len(job.study.instances) - len(headers):
        outcome, reason = "failed", f"{reason}; {lost} of {len(job.study.instances)} stored images cannot be read"
    if lost and not headers:
        raise Permanent(reason)
    looked_at = [f"series {_series_name(job, choice)}: {choice.reason}" for choice in job.choices]
    run = _run(job, origin, analysis, origin.configuration_sha256)
    report = sr.write_not_analysed(headers, outcome=outcome, reason=reason, looked_at=looked_at, run=run)
    return Answer(document=_document(job, outcome, reason, analysis, None), results=(report,))


def explain(error: Exception) -> str:
    """A reason for the report: our own words as they are, a library's only by type, for they may quote the input."""
    ours = isinstance(error, NodeError | sr.InvalidResult | UntrustedWeights | UnknownPipeline | faults.InjectedFault)
    return f"the analysis failed: {error}" if ours else f"the analysis failed: {type(error).__name__}"


def _header(instance: Instance) -> Dataset | None:
    """The header of a stored image; None if its file is gone, or not what was stored."""
    try:
        return pydicom.dcmread(instance.path, stop_before_pixels=True)
    except Exception as error:  # noqa: BLE001 - what a disk made of a file raises anything inside the parser
        logger.warning("a stored image cannot be read", extra={"file": instance.path.name, "why": type(error).__name__})
        return None


def _series_name(job: Job, choice: Choice) -> str:
    series = next(s for s in job.study.series if s.uid == choice.series_uid)
    number, description = series.value("SeriesNumber"), series.value("SeriesDescription")
    return " ".join(
        [f"{number:.0f}" if isinstance(number, float) else "?", *([f"'{description}'"] if description else [])]
    )


def _run(job: Job, origin: Origin, analysis: Analysis | None, configuration_sha256: str) -> Run:
    return Run(
        pipeline=job.pipeline,
        weights_sha256=analysis.model.sha256 if analysis else "",
        configuration_sha256=configuration_sha256,
        code_version=origin.code_version,
        source_uids=tuple(sorted(instance.sop_uid for instance in job.inputs)),
        created=origin.created,
        device_uid=origin.device_uid,
        predecessors=origin.predecessors,
    )


def _document(job: Job, state: str, reason: str, analysis: Analysis | None, volume: Volume | None) -> dict[str, Any]:
    """One entry of "analyses" in the JSON that `process` and `status` print."""
    uids = [str(header.SOPInstanceUID) for header in volume.headers] if volume else []
    scored = analysis if analysis and analysis.case_probability is not None else None
    slices = zip(uids, scored.slice_probabilities, strict=False) if scored else ()
    return {
        "pipeline": job.pipeline if job.chosen else None,
        "series_uid": job.chosen.series_uid if job.chosen else None,
        "state": state,
        "reason": reason,
        "model": {
            "name": analysis.model.name,
            "version": analysis.model.version,
            "sha256": analysis.model.sha256,
            "trained_on": analysis.model.trained_on,
        }
        if analysis
        else None,
        "scores": {
            "case": scored.case_probability if scored else None,
            "threshold": scored.threshold if scored else None,
            "slices": [{"sop_uid": uid, "probability": probability} for uid, probability in slices],
            "levels": dict(scored.level_probabilities) if scored else {},
            "group": (scored.group or None) if scored else None,
        },
        "findings": [_finding(finding, volume, uids) for finding in analysis.findings] if analysis and volume else [],
        "quality": list(analysis.quality) if analysis else [],
        "timings": dict(analysis.timings) if analysis else {},
        "refused": [],
    }


def _finding(finding: Finding, volume: Volume, uids: Sequence[str]) -> dict[str, Any]:
    (s0, r0, c0), (s1, r1, c1) = finding.box
    corners = [(s, r, c) for s in (s0, s1 - 1) for r in (r0, r1 - 1) for c in (c0, c1 - 1)]
    points = [volume.affine[:3] @ (*corner, 1.0) for corner in corners]
    return {
        "code": asdict(finding.code),
        "level": finding.level,
        "probability": finding.probability,
        "uncertainty": finding.uncertainty,
        "box_mm": [[float(pick(axis)) for axis in zip(*points, strict=True)] for pick in (min, max)],
        "slices": list(dict.fromkeys(uids[s0:s1])),
        "measurements": [{"name": m.name.meaning, "value": m.value, "unit": m.unit} for m in finding.measurements],
    }
