"""When a study is taken to be complete, and why."""

import pytest

from dicomnode.assembly import CONTRARY, GOOD, Policy, Release, Wait, decide
from tests.studies import series, study

POLICY = Policy(quiet_seconds=20, max_wait_seconds=600)
LAST = 1000.0


def decided(it, *, after: float, expected: int | None = None):
    return decide(it, LAST + after, POLICY, expected=expected)


def test_the_senders_count_releases_at_once_even_while_an_association_is_open():
    decision = decided(study(series(), endings=["open"]), after=0, expected=30)
    assert decision == Release(because="complete: 30 of 30 instances by the sender's count")


def test_a_count_in_the_images_is_as_good_as_one_that_was_asked_for():
    it = study(series(NumberOfStudyRelatedInstances=30.0))
    assert isinstance(decided(it, after=0), Release)


def test_counts_that_contradict_each_other_are_no_proof():
    it = study(series(1, NumberOfStudyRelatedInstances=30.0), series(2, NumberOfStudyRelatedInstances=60.0))
    assert isinstance(decided(it, after=0), Wait)


def test_what_the_sender_says_now_outweighs_what_the_images_said():
    it = study(series(NumberOfStudyRelatedInstances=30.0))
    assert isinstance(decided(it, after=0, expected=31), Wait)


@pytest.mark.fault(13, "c")
def test_missing_instances_are_waited_for_as_long_as_allowed_and_then_named():
    it = study(series())
    assert decided(it, after=599, expected=40) == Wait(
        until=LAST + 600, because="30 of 40 instances by the sender's count"
    )
    assert decided(it, after=600, expected=40) == Release(
        because="nothing for 600 s, the longest wait, 10 of 40 are missing"
    )


def test_an_open_association_is_waited_for():
    assert decided(study(series(), endings=["released", "open"]), after=100) == Wait(
        until=LAST + 600, because="an association is still open"
    )


@pytest.mark.parametrize(
    ("it", "factor", "words"),
    [
        (study(series()), GOOD, "associations released; no gap between slices"),
        (study(series(slices=2)), 1.0, "no evidence either way"),
        (study(series(ImagePositionPatient=None)), 1.0, "no evidence either way"),
        (study(series(), endings=["aborted"]), CONTRARY, "association aborted"),
        (study(series(), endings=["released", "lost"]), CONTRARY, "association lost"),
        (study(series(skip=[10, 11])), CONTRARY, "series 1 has 1 gap(s) between its slices"),
        (study(series(), series(2, skip=[5])), CONTRARY, "series 2 has 1 gap(s) between its slices"),
        (study(series(ImagesInAcquisition=32.0)), CONTRARY, "series 1 lacks 2 image(s) of its acquisition"),
    ],
)
@pytest.mark.fault(13, "c")
def test_evidence_shortens_or_lengthens_the_quiet_period(it, factor, words):
    until = 20 * factor
    assert decided(it, after=until - 0.01) == Wait(until=LAST + until, because=words)
    release = decided(it, after=until)
    assert isinstance(release, Release)
    assert words in release.because


def test_a_second_acquisition_in_a_series_is_counted_on_its_own():
    first = series(1, slices=10, ImagesInAcquisition=10.0, AcquisitionNumber=1.0)
    second = [i for i in series(1, slices=20, ImagesInAcquisition=10.0, AcquisitionNumber=2.0)][10:]
    assert decided(study(first, second), after=0).because == "associations released; no gap between slices"


def test_no_evidence_extends_the_longest_wait():
    policy = Policy(quiet_seconds=300, max_wait_seconds=600)
    decision = decide(study(series(), endings=["aborted"]), LAST, policy)
    assert decision == Wait(until=LAST + 600, because="association aborted")


@pytest.mark.fault(22, "b")
def test_a_clock_that_jumped_back_does_not_release():
    assert isinstance(decided(study(series()), after=-500), Wait)
