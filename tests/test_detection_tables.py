"""The tables of papers 000, 002 and 004: medians, folds and intervals, beside what the papers print."""

import pytest

from inference.evaluation.detection_tables import Method, backbones, models, speed


def method(name: str, seconds: list[float]) -> Method:
    return Method(name=name, proposals="RPN", features="CNN", classifier="softmax", seconds=seconds)


def measured(map50: float | None, *, slip: float | None = 0.5) -> dict:
    classes = {"disc": {"ap50": map50}, "slip": {"ap50": slip}}
    return {
        "images": 50,
        "patients": 40,
        "map50": map50,
        "map50_ci95": [None, None] if map50 is None else [map50 - 0.1, map50 + 0.1],
        "map50_95": 0.4,
        "classes": classes,
    }


def test_speed_is_the_median_against_the_first_method():
    text = speed(
        [method("R-CNN", [4, 5, 90]), method("Fast R-CNN", [0.5, 0.5]), method("Ours", [0.1])], machine="2 cores"
    )
    assert "on 2 cores" in text
    assert "| R-CNN | RPN | CNN | softmax | 3 | 5 | 1 | 50 | 1 |" in text
    assert "| Fast R-CNN | RPN | CNN | softmax | 2 | 0.5 | 10 | 2 | 25 |" in text
    assert "| Ours | RPN | CNN | softmax | 1 | 0.1 | 50 | n/a | n/a |" in text


def test_a_method_without_a_time_is_refused():
    with pytest.raises(ValueError, match="at least one image"):
        speed([method("R-CNN", [])], machine="2 cores")


def test_backbones_have_their_interval_and_the_figures_of_the_paper():
    text = backbones(
        {"ResNet-50, alternating": measured(0.8), "other": measured(None)},
        {"ResNet-50, alternating": [0.3, 0.1, 0.2], "other": [1.0]},
    )
    assert "| ResNet-50, alternating | 50 of 40 | 0.800 (0.700 to 0.900) | 0.400 | 0.2 | 88.6 | 0.22 |" in text
    assert "| other | 50 of 40 | n/a | 0.400 | 1 | n/a | n/a |" in text


def test_models_are_a_mean_over_folds_and_all_folds_together():
    folds = {"PP-YOLOv2": [measured(0.7), measured(0.9)], "YOLOv3": [measured(0.5, slip=None), measured(0.5)]}
    text = models(folds, {"PP-YOLOv2": measured(0.8), "YOLOv3": measured(0.5)})
    assert "2 folds" in text
    assert (
        "| PP-YOLOv2 | 50 of 40 | 0.800 ± 0.141 | 0.800 ± 0.141 | 0.500 ± 0.000 | 0.800 (0.700 to 0.900) | 90.08 |"
    ) in text
    assert "| YOLOv3 | 50 of 40 | 0.500 ± 0.000 | 0.500 ± 0.000 | 0.500 (1 of 2 folds) |" in text
    assert "slip 84.67" in text


@pytest.mark.parametrize(
    ("folds", "pooled"), [({"a": [1], "b": [1, 2]}, {"a": 1, "b": 2}), ({"a": [1]}, {"b": 1}), ({}, {})]
)
def test_models_with_other_folds_are_refused(folds, pooled):
    with pytest.raises(ValueError, match="the same number of folds"):
        models(folds, pooled)
