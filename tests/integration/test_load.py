"""What the node uses does not grow with the images that it was sent, and it comes back by itself."""

from __future__ import annotations

import pytest

from tests.integration import load
from tests.integration.crash import Trial
from tests.integration.load import PROCESSES, Use


@pytest.mark.timeout(600)
def test_many_images_are_taken_without_refusal_growth_or_loss_through_a_kill_and_a_stop_of_the_pacs(tmp_path):
    with Trial(tmp_path, seed=0, slices=100, pacs_takes_seconds=0) as trial:
        measured = load.run(trial, 300, print)
    assert measured["problems"] == []
    assert measured["images"] == 300
    assert measured["processes"].keys() == set(PROCESSES)


@pytest.mark.parametrize("grown", [Use(200, 10, 3), Use(100, 20, 3), Use(100, 10, 13)])
def test_growth_of_any_process_is_a_problem(grown):
    before = dict.fromkeys(PROCESSES, Use(100, 10, 3))
    assert load.beyond({"start": before, "end": before}, 1000) == []
    assert len(load.beyond({"start": before, "end": before | {"receiver": grown}}, 1000)) == 1
    assert len(load.beyond({"start": before, "end": before}, 10_000)) == 1
