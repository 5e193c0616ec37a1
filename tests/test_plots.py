"""What is drawn is what was given, and the files are PNGs."""

import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inference.evaluation.plots import precision_recall, reliability, roc, save, training

SCORES = np.array([0.1, 0.4, 0.35, 0.8])
LABELS = np.array([0, 0, 1, 1])


def answers(count: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    probabilities = rng.random(count)
    return probabilities, rng.random(count) < probabilities


def line(axes: Axes, start: str) -> np.ndarray:
    """Return the (points, 2) of the line whose legend starts so."""
    (found,) = [one for one in axes.lines if str(one.get_label()).startswith(start)]
    return np.column_stack(found.get_data())


def legend(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def every_figure() -> dict[str, Figure]:
    rows = {"BLSTM-96": answers(), "any slice": answers(seed=1)}
    curves = {"training": [0.7, 0.5, 0.4], "validation": [0.6, 0.5, 0.55]}
    return {
        "roc": roc(rows, title="Cases", intervals={"BLSTM-96": (0.7, 0.9)}),
        "precision-recall": precision_recall(rows, title="Cases"),
        "reliability": reliability(rows, title="Cases"),
        "training": training(curves, {"slice AUC": [0.6, 0.7, 0.75]}, title="Slice network"),
    }


@pytest.mark.parametrize("name", ["roc", "precision-recall", "reliability", "training"])
def test_every_plot_is_a_png_with_title_and_labels(name, tmp_path):
    figure = every_figure()[name]
    path = save(figure, tmp_path / f"{name}.png")
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert path.stat().st_size > 10_000
    assert figure.get_suptitle() or all(axes.get_title() for axes in figure.axes)
    for axes in figure.axes:
        assert axes.get_xlabel()
        assert axes.get_ylabel()
        assert legend(axes)


def test_the_same_figure_gives_the_same_bytes(tmp_path):
    first, second = (save(every_figure()["roc"], tmp_path / name).read_bytes() for name in ("a.png", "b.png"))
    assert first == second


def test_the_roc_curve_goes_through_every_threshold():
    (axes,) = roc({"row": (SCORES, LABELS)}, title="t").axes
    assert line(axes, "row").tolist() == [[0, 0], [0, 0.5], [0.5, 0.5], [0.5, 1], [1, 1]]
    assert line(axes, "chance").tolist() == [[0, 0], [1, 1]]


def test_every_point_of_the_roc_curve_is_a_count():
    probabilities, labels = answers()
    (axes,) = roc({"row": (probabilities, labels)}, title="t").axes
    cuts = np.array([2, *sorted(probabilities, reverse=True)])
    expected = [[np.mean(probabilities[labels == kind] >= cut) for kind in (False, True)] for cut in cuts]
    assert line(axes, "row") == pytest.approx(np.array(expected), abs=1e-6)


def test_the_legend_has_the_area_and_its_interval():
    rows = {"row": (SCORES, LABELS), "other": (SCORES, LABELS)}
    (axes,) = roc(rows, title="t", intervals={"row": (0.5, 0.9)}).axes
    assert legend(axes) == ["chance, AUC 0.500", "row, AUC 0.750 (0.500 to 0.900)", "other, AUC 0.750"]


def test_precision_and_recall_at_every_threshold():
    (axes,) = precision_recall({"row": (SCORES, LABELS)}, title="t").axes
    expected = [[1, 0.5], [1, 2 / 3], [0.5, 0.5], [0.5, 1], [0, 1]]
    assert line(axes, "row") == pytest.approx(np.array(expected), abs=1e-6)
    assert legend(axes) == ["row, AP 0.833 (chance 0.500)"]


def test_the_steps_enclose_the_average_precision():
    (axes,) = precision_recall({"row": answers()}, title="t").axes
    recall, precision = line(axes, "row").T
    (drawn,) = axes.lines
    assert drawn.get_drawstyle() == "steps-post"
    area = np.sum(-np.diff(recall) * precision[:-1])
    assert f"AP {area:.3f}" in legend(axes)[0]


def test_reliability_has_points_of_equal_mass():
    probabilities = np.array([0.9, 0.1, 0.2, 0.3, 0.8, 0.6])
    labels = np.array([1, 0, 0, 1, 1, 0])
    (axes,) = reliability({"row": (probabilities, labels)}, title="t", bins=3).axes
    assert line(axes, "row") == pytest.approx(np.array([[0.15, 0], [0.45, 0.5], [0.85, 1]]))
    assert legend(axes)[1] == "row, about 2 items per point"


def test_fewer_items_than_bins_are_one_point_each():
    (axes,) = reliability({"row": (SCORES, LABELS)}, title="t").axes
    assert line(axes, "row").tolist() == [[0.1, 0], [0.35, 1], [0.4, 0], [0.8, 1]]


def test_training_curves_are_the_values_over_the_epochs():
    left, right = training({"a": [0.7, 0.5], "b": [0.6, 0.4, 0.3]}, {"AUC": [0.8]}, title="t").axes
    assert line(left, "a").tolist() == [[1, 0.7], [2, 0.5]]
    assert line(left, "b").tolist() == [[1, 0.6], [2, 0.4], [3, 0.3]]
    assert line(right, "AUC").tolist() == [[1, 0.8]]


def test_training_without_validation_scores_leaves_a_panel_empty(tmp_path):
    figure = training({"a": [0.7]}, {}, title="t")
    assert len(figure.axes[1].lines) == 0
    assert save(figure, tmp_path / "t.png").exists()


def test_twenty_rows_differ_in_colour_or_dashes():
    (axes,) = roc({f"row {n}": (SCORES, LABELS) for n in range(20)}, title="t").axes
    styles = {(str(one.get_color()), one.get_linestyle()) for one in axes.lines[1:]}
    assert len(styles) == 20


@pytest.mark.parametrize("draw", [roc, precision_recall])
@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([0.1, 0.2], [1, 1], "row: a curve needs positives and negatives"),
        ([0.1, 3.0], [0, 1], "row: scores have to be probabilities"),
        ([0.1, np.nan], [0, 1], "row: scores have to be probabilities"),
    ],
)
def test_what_has_no_curve_is_refused(draw, scores, labels, message):
    with pytest.raises(ValueError, match=message):
        draw({"row": (np.array(scores), np.array(labels))}, title="t")


def test_a_reliability_diagram_of_nothing_is_refused():
    with pytest.raises(ValueError, match="row: nothing to draw"):
        reliability({"row": (np.array([]), np.array([]))}, title="t")


def test_pyplot_keeps_none_of_the_figures():
    assert len(every_figure()) == 4
    assert pyplot.get_fignums() == []
