"""Kills at every moment of a study's way through the node: nothing is lost, changed, doubled or left over."""

from __future__ import annotations

import os
import random
import socket
from contextlib import ExitStack

import pytest
from pydicom.uid import CTImageStorage

from tests.integration.crash import AIMS, MOMENTS, Trial, run
from tests.receivers import associate_request

tell = print  # pytest shows it when the test fails


@pytest.mark.fault(1, "abcdefg")
@pytest.mark.timeout(900)
def test_kills_at_every_moment_lose_nothing_and_leave_one_answer_for_each_study(tmp_path):
    seed = int(os.environ.get("DICOMNODE_TEST_SEED", random.randrange(10**6)))
    tell(f"DICOMNODE_TEST_SEED={seed} repeats this trial")
    with Trial(tmp_path, seed=seed) as trial:
        problems = run(trial, kills=len(AIMS), tell=tell)
        tell(dict(trial.moments))
    assert problems == []
    assert trial.moments.keys() == MOMENTS.keys()


@pytest.mark.fault(2, "bcdefg")
@pytest.mark.timeout(900)
def test_a_stop_at_any_moment_and_beside_50_idle_peers_is_clean_and_the_work_goes_on_afterwards(tmp_path):
    with Trial(tmp_path, seed=0) as trial:
        for fault, *moments in (
            ("", "arrived"),
            ("inference:sleep:60", "queued", "analysing"),
            ("sent:sleep:60", "written", "sent, not noted"),
            ("", "half sent"),
        ):
            trial.reach(fault, *moments)
            with ExitStack() as peers:
                for _ in range(50):
                    peer = peers.enter_context(socket.create_connection(("127.0.0.1", trial.node.address.port), 60))
                    peer.sendall(associate_request(CTImageStorage))
                    assert peer.recv(65536)[0] == 0x02
                assert trial.node.stop() == 0
        assert trial.examine() == []
