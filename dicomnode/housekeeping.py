"""The node's clock: what happens again and again. The only home of apscheduler.

Every due time is a column in the ledger; the scheduler only looks often enough. It keeps nothing itself, so a
restart loses nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler


def every(seconds: float, job: Callable[[], None]) -> BackgroundScheduler:
    """Run a job again and again in a thread of its own, never twice at once, until `shutdown` is called.

    A job that raises is logged and tried again at the next beat.
    """
    scheduler = BackgroundScheduler(timezone=UTC, executors={"default": ThreadPoolExecutor(1)})
    # The default grace of 1 s drops a beat on a busy machine without a word; late is better than never.
    scheduler.add_job(job, "interval", seconds=seconds, misfire_grace_time=None, coalesce=True, max_instances=1)
    scheduler.start()
    return scheduler
