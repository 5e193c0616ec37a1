"""READ FIRST. The three steps of the node, and what each leaves behind.

    PACS --C-STORE--> receive.py --> spool (bytes) + ledger (rows)
                                        |  assemble: is the study complete? which series goes where?
                                        v
                                     task "infer"
                                        |  infer: read, analyse, write the result objects
                                        v
                                     task "deliver", one for each destination
                                        |  deliver: C-STORE, then proof that it is held
                                        v
                                      PACS

Every step takes its work from the ledger and ends with one transaction there: its output and the next step's task
appear together or not at all. Any process may be killed at any time; a step that was cut off is simply done again,
and because result UIDs derive from what went in, doing it again changes nothing at the PACS.
`supervise.py` runs the steps in their own processes; `cli.py` builds a Node from the configuration.
"""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from dicomnode import answer, assembly, clock, disk, dispatch, faults, ledger_retention, proof, schema, selection
from dicomnode.answer import Answer, Job, Origin
from dicomnode.audit import Trail
from dicomnode.claims import Claims
from dicomnode.config import Config, Destination
from dicomnode.errors import ConfigError, Permanent, Transient
from dicomnode.ledger import Ledger
from dicomnode.network.find import count_instances, query
from dicomnode.parcel import Parcel, pack
from dicomnode.peers import destination_address, sender_address
from dicomnode.selection import Choice
from dicomnode.spool import Spool
from dicomnode.study import Study
from dicomnode.task import NewTask, StoredResult, Task
from inference.pipeline import Pipeline
from sr import results as sr

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 2  # of an analysis, before the study fails
MAX_LOSSES = 5  # tries of a delivery, before one that goes wrong, or that the destination took and does not hold, fails
RETRY_SECONDS = (2.0, 30.0)  # first and longest delay before a delivery, or a destination, is tried again


@dataclass(frozen=True, kw_only=True)
class Node:
    """What the steps work with."""

    config: Config
    spool: Spool
    ledger: Ledger
    claims: Claims
    rules: selection.Rules
    #: What every result of this installation says about where it comes from.
    origin: Origin
    trail: Trail
    #: Loads a pipeline by name, once; only the inference worker calls it.
    load: Callable[[str], Pipeline]


def assemble(node: Node, study_uid: str) -> None:
    """Release a study if the evidence says that it is complete; otherwise note when to look again."""
    study = node.ledger.study(study_uid)
    missing = ledger_retention.missing(node.ledger, study)
    if not study.instances and not missing:
        node.ledger.drop_empty(study_uid)
        return
    choices: list[Choice] = []
    jobs: list[Job] = []
    policy = _policy(node, study)
    try:
        decision = assembly.decide(study, clock.now(), policy, expected=_ask_sender(node, study))
        if isinstance(decision, assembly.Release):
            choices = selection.choose(study, node.rules)
            jobs = answer.jobs(study, choices)
    except schema.AWAY:
        raise
    except Exception as error:
        # It would be the same next time. Its images may still be coming, so it fails once, after the longest wait.
        logger.exception("assembly failed")
        failure = f"the study cannot be assembled: {type(error).__name__}"
        decision = assembly.give_up(study, clock.now(), policy, failure)
        jobs = [Job(study=study, choices=(), chosen=None, failure=failure)]
    if isinstance(decision, assembly.Wait):
        node.ledger.wait(study, decision.until, decision.because)
        return
    if missing:  # an answer about the few that are here must not supersede the one about all
        ledger_retention.keep_answer(node.ledger, study, because=f"{missing} of its images were deleted: answer kept")
        return
    released = node.ledger.release(
        study,
        because=decision.because,
        selection=[asdict(choice) for choice in choices],
        tasks=[NewTask(kind="infer", name=job.pipeline, digest=job.digest, payload=_payload(job)) for job in jobs],
    )
    if released:
        logger.info("study released", extra={"instances": len(study.instances), "because": decision.because})


def infer(node: Node, task: Task) -> None:
    """Answer a leased task, and queue the answer's delivery to every destination.

    Raises only what says nothing about the study: a disk or a database that does not take the answer.
    """
    try:
        _infer(node, task)
    except Transient as error:
        node.ledger.try_later(task, str(error), next_at=clock.now() + RETRY_SECONDS[0])
    except (OSError, *schema.AWAY):
        raise
    except Exception as error:
        # Not even a report can be made of this study; `status` and the log are what is left.
        logger.exception("no report could be written", extra={"study": task.study_id, "pipeline": task.name})
        if isinstance(error, Permanent | sr.InvalidResult) or task.attempts + 1 >= MAX_ATTEMPTS:
            node.ledger.fail(task, answer.explain(error))
        else:
            node.ledger.try_later(task, answer.explain(error), next_at=clock.now() + RETRY_SECONDS[0])


def _infer(node: Node, task: Task) -> None:
    job = _job(node, task)
    if job.digest != task.digest:
        node.ledger.set_aside(task)
        return
    if task.attempts >= MAX_ATTEMPTS:  # it took the worker down each time: report instead of trying again
        found = answer.decline(job, _origin(node, task), "failed", task.reason)
    else:
        found = _analyse(node, job, task)
    # A destination may turn out not to know the class of the report: what it gets then must be ready.
    results = sr.with_fallback(found.results) if node.config.wants("sr") else found.results
    stored = [_save(node, task, result) for result in results]
    deliveries = [
        NewTask(kind="deliver", name=d.name, digest=_delivery_digest(task), payload={}, parent_id=task.id)
        for d in node.config.destination
    ]
    faults.reach("committing")
    node.trail.analysed(job.inputs, found.document["reason"] if found.document["state"] == "failed" else "")
    node.ledger.finish_analysis(task, document=found.document, results=stored, destinations=deliveries)
    obsolete = node.ledger.rows(schema.task, study_uid=task.study_uid, state="obsolete")
    node.spool.drop_results(task.study_uid, {row["id"] for row in obsolete})
    logger.info(
        "study analysed", extra={"study": task.study_id, "pipeline": task.name, "state": found.document["state"]}
    )


def deliver(node: Node, task: Task, destination: Destination) -> bool:
    """Send one analysis's results to one destination and have it prove that it holds them; doing so twice is harmless.

    False if the destination is not there, or busy: then it should be left alone for a moment. Raises only what says
    nothing about the delivery: a full disk, or a database that is away.
    """
    try:
        return _deliver(node, task, destination)
    except schema.AWAY:
        raise
    except Exception as error:
        if disk.is_full(error):
            raise
        logger.exception("delivery failed", extra={"study": task.study_id, "destination": destination.name})
        reason = f"internal error, see the log: {type(error).__name__}"
        if task.attempts + 1 >= MAX_LOSSES:
            node.ledger.fail(task, reason)
        else:
            _try_again(node, task, reason)
        return True


def _deliver(node: Node, task: Task, destination: Destination) -> bool:
    parent_id, current = node.ledger.parent(task)
    if not current:
        node.ledger.finish_delivery(task, "superseded by a newer answer before it was delivered")
        return True
    results = node.ledger.results(parent_id)
    parcel = pack(results, destination)
    there, config = False, node.config
    try:
        faults.reach("sending")
        address, calling_ae = destination_address(config, destination), config.receive.ae_title
        earlier = node.claims.of(task)
        accepted = (
            earlier[-1].sop_uids if earlier else dispatch.store(config, node.trail, task, parcel, destination, address)
        )
        faults.reach("sent")
        there = not earlier  # it has just taken something: others need not wait because this one is not proven
        delivery = proof.Delivery(
            task=task, claims=node.claims, address=address, calling_ae=calling_ae,
            results={result.sop_uid: result for result in dispatch.as_sent(config, results, destination)},
        )  # fmt: skip
        verdict = proof.prove(destination.proof, delivery, earlier, accepted)
    except (Transient, ConfigError, faults.InjectedFault) as error:
        _try_again(node, task, str(error))
        return there
    except Permanent as error:
        node.ledger.fail(task, str(error))
        logger.error("results refused", extra={"study": task.study_id, "destination": task.name})  # noqa: TRY400 - no fault of ours
        return True
    _conclude(node, task, parcel, verdict)
    return True


def _conclude(node: Node, task: Task, parcel: Parcel, verdict: proof.Verdict) -> None:
    about = {"study": task.study_id, "destination": task.name}
    if isinstance(verdict, proof.Held):
        reason = "; ".join(filter(None, [*parcel.withheld, verdict.how]))
        node.ledger.finish_delivery(task, reason, proven=verdict.proven)
        logger.info("results delivered", extra=about)
    elif isinstance(verdict, proof.Wait):
        node.claims.wait(task, verdict.why, next_at=verdict.until)
    else:
        node.claims.drop(task)
        if verdict.final or task.attempts >= MAX_LOSSES:
            node.ledger.fail(task, verdict.why)
            logger.error("results not held", extra=about)
        else:
            _try_again(node, task, verdict.why)


def _save(node: Node, task: Task, result: sr.Result) -> StoredResult:
    """Put a result object on the disk; its name follows from task and UID: doing it again replaces the file."""
    uid = str(result.dataset.SOPInstanceUID)
    name = f"{task.id}-{hashlib.sha256(uid.encode()).hexdigest()[:20]}-{result.kind.lower()}.dcm"
    path = node.spool.results_folder(task.study_uid) / name
    sr.save(result, path)
    return StoredResult(
        sop_uid=uid,
        series_uid=str(result.dataset.SeriesInstanceUID),
        study_uid=task.study_uid,
        sop_class_uid=str(result.dataset.SOPClassUID),
        kind=str(result.kind),
        path=path,
    )


def _analyse(node: Node, job: Job, task: Task) -> Answer:
    origin = _origin(node, task)
    try:
        return answer.analyse(job, origin, node.load)
    except Transient:
        raise
    except Exception as error:
        # Whatever went wrong inside a model or a writer: the study must end with an answer that people can see.
        logger.exception("analysis failed", extra={"study": task.study_id, "pipeline": task.name})
        if isinstance(error, sr.InvalidResult):
            if error.dataset is not None:
                node.spool.keep_rejected(error.dataset)
        elif not isinstance(error, Permanent) and task.attempts + 1 < MAX_ATTEMPTS:
            raise Transient(answer.explain(error)) from error
        return answer.decline(job, origin, "failed", answer.explain(error))


def _try_again(node: Node, task: Task, reason: str) -> None:
    """Put a delivery back for later."""
    delay = retry_delay(task.attempts)
    node.ledger.try_later(task, reason, next_at=clock.now() + delay)
    logger.warning(
        "delivery postponed", extra={"study": task.study_id, "destination": task.name, "seconds": round(delay)}
    )


def retry_delay(failures: int) -> float:
    """A delay that doubles with each failure, spread so that nodes and studies do not knock all at once."""
    first, longest = RETRY_SECONDS
    return min(longest, first * 2.0 ** min(failures, 20)) * random.uniform(0.75, 1.25)  # noqa: S311 - no secret


def _policy(node: Node, study: Study) -> assembly.Policy:
    """The wait for this study's sender: the longest, if several senders brought it."""
    usual = node.config.assembly.quiet_seconds
    senders = [node.config.sender_for(transfer.calling_ae) for transfer in study.transfers]
    quiet = max([(s.quiet_seconds or usual) if s else usual for s in senders], default=usual)
    return assembly.Policy(quiet_seconds=quiet, max_wait_seconds=max(quiet, node.config.assembly.max_wait_seconds))


def _ask_sender(node: Node, study: Study) -> int | None:
    """The sender's own count, if it is configured as queryable and answers."""
    for transfer in study.transfers:
        sender = node.config.sender_for(transfer.calling_ae)
        if sender is None:
            continue
        try:
            address = sender_address(node.config, sender)
            if address is None:
                continue
            ours = node.ledger.result_series(study.uid)
            count = count_instances(address, study.uid, calling_ae=node.config.receive.ae_title, without=ours)
            node.trail.queried(sender, query(study.uid))
            return count
        except (Transient, ConfigError) as error:  # certificates that cannot be read are no reason to hold a study
            node.trail.queried(sender, query(study.uid), str(error))
            logger.warning("the sender cannot be asked for its count", extra={"why": str(error)})
    return None


def _payload(job: Job) -> dict[str, Any]:
    """What `infer` needs to rebuild the job from the ledger."""
    if job.failure:
        return {"chosen": None, "choices": [], "failure": job.failure}
    return {"chosen": asdict(job.chosen) if job.chosen else None, "choices": [asdict(choice) for choice in job.choices]}


def _job(node: Node, task: Task) -> Job:
    """The job as it was released, if no instance of it has come since: its digest tells."""
    chosen = task.payload["chosen"]
    return Job(
        study=node.ledger.study(task.study_uid),
        choices=tuple(Choice(**choice) for choice in task.payload["choices"]),
        chosen=Choice(**chosen) if chosen else None,
        failure=task.payload.get("failure", ""),
    )


def _origin(node: Node, task: Task) -> Origin:
    predecessors = tuple(
        sr.Reference(
            sop_class_uid=old.sop_class_uid,
            sop_instance_uid=old.sop_uid,
            series_uid=old.series_uid,
            study_uid=old.study_uid,
        )
        for old in node.ledger.predecessors(task)
    )
    created = datetime.fromtimestamp(node.ledger.released_at(task.study_uid), UTC)
    return replace(node.origin, created=created, predecessors=predecessors)


def _delivery_digest(task: Task) -> str:
    return hashlib.sha256(f"{task.name} {task.digest}".encode()).hexdigest()
