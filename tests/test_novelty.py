"""How far a case is from those that a network learned from: the formula, its storage, and phantoms new to it."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis

from inference import novelty, weights
from inference.nets.cervical_fracture import features
from inference.nets.resnet import ResNet
from inference.preprocess.crop import case_crop
from tests.necks import chest, head, mr, neck, noise

SIZE = 96
SEEDS, VALIDATION, HELD_OUT = range(24), range(900_000, 900_020), range(40, 52)


def correlated(count: int, size: int, *, seed: int) -> torch.Tensor:
    """Return samples around 1 whose deviations differ by a factor of 10 and depend on each other."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(0).normal(size=(size, size)) * np.logspace(-1, 0, size)
    return torch.from_numpy(1 + rng.normal(size=(count, size)) @ mixing).float()


def test_with_many_cases_the_distance_is_that_of_mahalanobis():
    samples = correlated(20_000, 6, seed=1)
    fitted = novelty.fit(samples)
    exact = samples.double().numpy()
    inverse = np.linalg.inv(np.cov(exact.T))
    for case in correlated(10, 6, seed=2):
        expected = mahalanobis(case.numpy(), exact.mean(0), inverse)
        assert fitted.distance(case) == pytest.approx(expected, rel=0.02)


def test_the_shrinkage_is_that_of_ledoit_and_wolf():
    samples = correlated(12, 30, seed=3).double()
    apart = samples - samples.mean(0)
    sample = sum(torch.outer(case, case) for case in apart) / 12
    target = torch.eye(30) * torch.diagonal(sample).mean()
    error = sum((torch.outer(case, case) - sample).square().sum() for case in apart) / 12**2
    share = error / (sample - target).square().sum()
    assert 0 < share < 1
    assert torch.allclose(novelty.shrunk_covariance(samples), share * target + (1 - share) * sample)


def test_with_fewer_cases_than_features_most_new_cases_are_within_the_threshold():
    fitted = novelty.fit(correlated(100, 300, seed=4))
    limit = novelty.threshold([fitted.distance(case) for case in correlated(300, 300, seed=5)])
    near = [fitted.distance(case) <= limit for case in correlated(200, 300, seed=6)]
    assert np.mean(near) >= 0.95
    assert fitted.distance(correlated(1, 300, seed=7)[0] + 20) > novelty.FAR * limit


def test_the_threshold_leaves_one_validation_case_in_a_hundred_outside():
    assert novelty.threshold([float(distance) for distance in range(101)]) == 99


def test_what_is_stored_in_half_precision_gives_the_same_distances(tmp_path):
    fitted = novelty.fit(correlated(50, 80, seed=8))
    digest = weights.save(tmp_path / "weights.safetensors", {"novelty": fitted})
    stored = weights.load_tensors(tmp_path, {"file": "weights.safetensors", "sha256": digest})
    assert {str(tensor.dtype) for tensor in stored.values()} == {"torch.float16"}
    again = novelty.Novelty(features=80)
    weights.fill(again, stored, part="novelty")
    for case in correlated(10, 80, seed=9):
        assert again.distance(case) == fitted.distance(case)


def test_half_precision_hardly_moves_the_distances():
    samples = correlated(50, 80, seed=8)
    fitted, exact = novelty.fit(samples), samples.double()
    inverse = torch.linalg.inv(novelty.shrunk_covariance(exact)).numpy()
    for case in correlated(10, 80, seed=9):
        expected = mahalanobis(case.numpy(), exact.mean(0).numpy(), inverse)
        assert fitted.distance(case) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("samples", [torch.ones(20, 5), torch.randn(20, 5) * 1e-9, torch.randn(20, 5) + 1e6])
def test_features_that_half_precision_cannot_hold_are_an_error(samples):
    with pytest.raises(ValueError, match="half precision"):
        novelty.fit(samples)


def test_case_features_know_the_order_of_the_slices():
    slices = torch.randn(7, 4)
    up, down = novelty.case_features(slices), novelty.case_features(slices.flip(0))
    assert torch.allclose(up[:4], slices.mean(0))
    assert torch.allclose(down, torch.cat([up[:4], -up[4:]]), atol=1e-6)


@pytest.mark.parametrize(
    ("distance", "refused", "remarks"),
    [
        (10.0, False, []),
        (10.1, False, ["outside the validated range: feature distance 10.1, validated 0 to 10.0"]),
        (20.0, False, ["outside the validated range: feature distance 20.0, validated 0 to 10.0"]),
        (20.1, True, ["outside the validated range: feature distance 20.1, validated 0 to 10.0"]),
        (float("nan"), True, ["outside the validated range: feature distance nan, validated 0 to 10.0"]),
    ],
)
def test_what_is_unlike_gets_a_remark_and_what_is_far_away_is_refused(distance, refused, remarks):
    assert bool(novelty.refuse(distance, 10.0)) is refused
    assert novelty.complaints(distance, 10.0) == remarks


@pytest.fixture(scope="module")
def untrained() -> ResNet:
    """Return a network that knows nothing; a trained one tells more apart, such as a neck on its side."""
    torch.manual_seed(0)
    return ResNet(width=4).eval()


def described(net: ResNet, hu: np.ndarray) -> torch.Tensor:
    crop = case_crop(hu)
    assert crop is not None
    return novelty.case_features(features(net, crop.cut(torch.from_numpy(hu.copy()), SIZE)))


@pytest.fixture(scope="module")
def fitted(untrained) -> tuple[novelty.Novelty, float]:
    found = novelty.fit(torch.stack([described(untrained, neck(seed)[0]) for seed in SEEDS]))
    distances = [found.distance(described(untrained, neck(seed)[0])) for seed in VALIDATION]
    return found, novelty.threshold(distances)


def test_necks_of_the_same_kind_pass(untrained, fitted):
    found, limit = fitted
    near = [found.distance(described(untrained, neck(seed)[0])) <= limit for seed in HELD_OUT]
    assert np.mean(near) >= 0.9  # 20 validation cases give no better 99th percentile


@pytest.mark.parametrize(
    ("change", "far"),
    [
        (lambda hu: hu[::-1], False),  # the feet above
        (lambda hu: hu[:, ::-1], False),  # the back in front
        (lambda hu: hu + 1024, False),
        (mr, False),
        (lambda hu: -hu, True),
        (lambda hu: noise(hu, 500), True),
        (head, True),
        (chest, True),
    ],
)
def test_other_images_get_a_remark_and_other_regions_are_refused(change, far, untrained, fitted):
    found, limit = fitted
    for seed in HELD_OUT[:2]:
        distance = found.distance(described(untrained, np.ascontiguousarray(change(neck(seed)[0]))))
        assert novelty.complaints(distance, limit)
        assert novelty.refuse(distance, limit) or not far
