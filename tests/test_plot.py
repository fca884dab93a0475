"""Each function draws what it was given on the Axes it was given, and does nothing else."""

import inspect

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from numpy.testing import assert_allclose

from mcunc import plot
from mcunc.calibration import bin_table

X = np.linspace(0, 1, 5)
ENDS = np.column_stack([X - 1, X + 1])
TABLE = bin_table(X, [0, 0, 1, 1, 1], bins=4)

CALLS = {
    "line_with_bands": lambda ax: plot.line_with_bands(ax, X, X, ENDS, 2 * ENDS),
    "points": lambda ax: plot.points(ax, X, X),
    "truth": lambda ax: plot.truth(ax, X, X),
    "curve_with_spread": lambda ax: plot.curve_with_spread(ax, X, X, X - 1, X + 1, "spread"),
    "coverage_map": lambda ax: plot.coverage_map(ax, np.full((2, 3), 0.9), [1, 2], [3, 4, 5]),
    "estimates": lambda ax: plot.estimates(ax, list("abcde"), X, ENDS, "Wald", 0.2, color="k"),
    "activation_map": lambda ax: plot.activation_map(ax, np.ones((8, 8, 3)), ENDS, 2.0),
    "confidence_histogram": lambda ax: plot.confidence_histogram(ax, TABLE),
    "reliability_diagram": lambda ax: plot.reliability_diagram(ax, TABLE),
}


@pytest.fixture(autouse=True)
def _close_figures():
    with mpl.rc_context():
        yield
        plt.close("all")


def artists(ax):
    return len(ax.lines) + len(ax.collections) + len(ax.images) + len(ax.texts)


def test_every_function_has_a_call_here():
    public = {
        name
        for name, value in vars(plot).items()
        if inspect.isfunction(value) and value.__module__ == plot.__name__ and name[0] != "_"
    }
    assert public == {*CALLS, "use_style", "pictures"}


@pytest.mark.parametrize("name", CALLS)
def test_draws_on_the_axes_given_and_returns_it(name):
    _, (other, ax) = plt.subplots(1, 2)
    plt.sca(other)  # the current Axes is another one
    before, settings = artists(other), dict(mpl.rcParams)
    assert CALLS[name](ax) is ax
    assert artists(ax) > 0
    assert artists(other) == before
    assert len(plt.get_fignums()) == 1
    assert len(ax.figure.axes) == 2  # no Axes added, such as one for a colour bar
    assert dict(mpl.rcParams) == settings
    ax.figure.canvas.draw()


def test_line_with_bands_draws_what_it_was_given():
    ax = plot.line_with_bands(plt.subplots()[1], X, X**2, ENDS, 2 * ENDS, label="f")
    assert_allclose(ax.lines[0].get_ydata(), X**2)
    named = {c.get_label(): c for c in ax.collections}
    for label, ends in (("the mean", ENDS), ("an observation", 2 * ENDS)):
        corners = named[label].get_paths()[0].vertices[:, 1]
        assert_allclose([corners.min(), corners.max()], [ends.min(), ends.max()])
    assert {t.get_text() for t in ax.legend().texts} == {"f", "the mean", "an observation"}
    assert to_hex(named["the mean"].get_facecolor()[0]).upper() == plot.EPISTEMIC
    assert to_hex(named["an observation"].get_facecolor()[0]).upper() == plot.ALEATORIC
    assert not plot.line_with_bands(plt.subplots()[1], X, X).collections


def test_points_truth_and_curve_keep_their_data():
    ax = plt.subplots()[1]
    plot.points(ax, X, -X)
    plot.truth(ax, X, 2 * X)
    plot.curve_with_spread(ax, X, 3 * X, X, 4 * X, "c", color="#123456")
    scatter = next(c for c in ax.collections if isinstance(c, PathCollection))
    assert_allclose(scatter.get_offsets(), np.column_stack([X, -X]))
    assert_allclose(ax.lines[0].get_ydata(), 2 * X)
    assert_allclose(ax.lines[1].get_ydata(), 3 * X)
    band = ax.collections[-1]
    assert to_hex(band.get_facecolor()[0]) == "#123456"  # the curve's own colour
    assert [t.get_text() for t in ax.legend().texts] == ["data", "truth", "c"]


def test_coverage_map_prints_every_cell():
    coverage = np.array([[0.951, 0.5, 0.004], [0.946, 1.0, 0.8]])
    ax = plot.coverage_map(plt.subplots()[1], coverage, ["a", "b"], [10, 20, 30])
    assert [t.get_text() for t in ax.texts] == ["95", "50", "0", "95", "100", "80"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["10", "20", "30"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b"]
    ax.figure.canvas.draw()
    red, green, blue = ax.collections[0].get_facecolors()[:, :3].T
    brightness = red + green + blue  # the lower the coverage, the darker
    assert brightness[0] > brightness[1] > brightness[2]


def test_estimates_draws_intervals_that_need_not_be_symmetric():
    ends = np.column_stack([X - 1, X + 3])
    ax = plot.estimates(plt.subplots()[1], list("abcde"), X, ends, "e", offset=0.1)
    bars = np.array([path.vertices for path in ax.collections[0].get_paths()])
    assert_allclose(bars[:, :, 0], ends)
    assert_allclose(bars[:, 0, 1], np.arange(5) + 0.1)
    assert [t.get_text() for t in ax.get_yticklabels()] == list("abcde")


def test_pictures_shows_one_on_each_axes():
    images = np.random.default_rng(0).random((4, 6, 6, 3))
    fig, axes = plt.subplots(2, 2)
    returned = plot.pictures(axes, images, titles=list("abcd"))
    assert list(returned) == list(axes.ravel())
    for ax, image, title in zip(returned, images, "abcd", strict=True):
        assert_allclose(ax.images[0].get_array(), image)
        assert ax.get_title() == title
    assert len(plt.get_fignums()) == 1
    assert len(fig.axes) == 4
    assert plot.pictures(plt.subplots()[1], images[:1])[0].get_title() == ""
    with pytest.raises(ValueError, match=r"shorter|longer"):
        plot.pictures(axes, images[:3])


def test_activation_map_keeps_the_values_and_one_scale_over_the_whole_picture():
    picture, values = np.random.default_rng(0).random((64, 48, 3)), np.array([[-1.0, 3.0]])
    for colours, low in (("RdBu_r", -4.0), ("Oranges", 0.0)):
        _, ax = plt.subplots()
        plot.activation_map(ax, picture, values, 4.0, colours)
        below, above = ax.images
        assert_allclose(below.get_array(), picture.mean(axis=2))
        assert_allclose(above.get_array(), values)  # not rescaled
        assert above.get_clim() == (low, 4.0)
        assert above.get_extent() == below.get_extent() == [0, 48, 64, 0]


def test_style_is_applied_only_on_request():
    assert mpl.rcParams["axes.spines.top"]  # importing the module has not touched it
    plot.use_style()
    assert not mpl.rcParams["axes.spines.top"]
    assert mpl.colors.to_hex(mpl.rcParams["figure.facecolor"]) == "#ffffff"  # opaque white
    assert not mpl.rcParams["savefig.transparent"]


def test_role_colours_differ_for_colour_blind_readers():
    """All from Okabe & Ito's palette or grey, and no two alike."""
    okabe_ito = "#000000 #E69F00 #56B4E9 #009E73 #F0E442 #0072B2 #D55E00 #CC79A7"
    roles = [plot.EPISTEMIC, plot.ALEATORIC, plot.HIT, plot.MISS, plot.TRUTH, plot.DATA]
    assert len(set(roles)) == 6
    for colour in roles:
        grey = len({colour[1:3], colour[3:5], colour[5:]}) == 1
        assert colour in okabe_ito or grey


# Reliability --------------------------------------------------------------------------------------


@pytest.fixture(params=["width", "mass"])
def table(request):
    """Five cases per bin or none; float32 on purpose."""
    said = np.repeat([0.1, 0.35, 0.9], [5, 10, 5]).astype(np.float32)
    came_true = np.r_[np.ones(1), np.zeros(4), np.ones(4), np.zeros(6), np.ones(5)]
    return bin_table(said, came_true, bins=5, spacing=request.param)


def test_confidence_histogram_shows_shares_and_both_means(table):
    ax = plot.confidence_histogram(plt.subplots()[1], table)
    heights = [bar.get_height() for bar in ax.patches]
    assert_allclose(sum(heights), 1)
    assert_allclose(sorted(height for height in heights if height), [0.25, 0.25, 0.5])
    confidence, accuracy = (line.get_xdata()[0] for line in ax.lines)
    assert_allclose(confidence, (0.1 * 5 + 0.35 * 10 + 0.9 * 5) / 20, rtol=1e-6)
    assert_allclose(accuracy, 0.5)
    assert [text.get_text()[-5:] for text in ax.get_legend().texts] == ["0.425", "0.500"]


def test_reliability_diagram_shades_from_the_share_to_the_mean_confidence(table):
    ax = plot.reliability_diagram(plt.subplots()[1], table)
    shares, gaps = ax.patches[:3], ax.patches[3:]
    assert_allclose([bar.get_height() for bar in shares], [0.2, 0.4, 1.0])
    assert len(gaps) == 3  # the empty bins draw nothing
    assert_allclose([bar.get_y() for bar in gaps], [0.2, 0.4, 1.0])
    ends = [bar.get_y() + bar.get_height() for bar in gaps]
    assert_allclose(ends, [0.1, 0.35, 0.9], rtol=1e-6)
    assert_allclose([bar.get_x() for bar in shares], table.edges[:-1][table.count > 0])


def test_reliability_diagram_tells_inside_from_outside(table):
    filled = table.count > 0
    band = np.full((2, len(filled)), np.nan)
    band[:, filled] = [[0.1, 0.5, 1.0], [0.3, 0.6, 1.0]]  # the middle share, 0.4, is below
    ax = plot.reliability_diagram(plt.subplots()[1], table, band)
    boxes = [(bar.get_y(), bar.get_y() + bar.get_height()) for bar in ax.patches]
    assert_allclose(boxes, band[:, filled].T)
    labels = [text.get_text() for text in ax.get_legend().texts]
    assert {"inside (2)", "outside (1)", "each bin if calibrated"} == set(labels)
    diamonds = next(line for line in ax.lines if line.get_marker() == "D")  # not by colour alone
    middle = (table.edges[:-1] + table.edges[1:])[filled][1] / 2
    assert_allclose(diamonds.get_xydata(), [[middle, 0.4]], rtol=1e-6)


@pytest.mark.parametrize("right", [10, 48])  # of 50 a bin: far below the claims, far above them
def test_legends_hide_no_data(right):
    """The histogram leaves room on top; the diagram's legend is on the side without shares."""
    confidence = np.repeat([0.3, 0.5, 0.7, 0.9], 50)
    table = bin_table(confidence, np.arange(200) % 50 < right, bins=5)
    _, axes = plt.subplots(1, 2, figsize=(11, 4))
    plot.confidence_histogram(axes[0], table)
    plot.reliability_diagram(axes[1], table, (table.confidence - 0.1, table.confidence + 0.1))
    axes[0].figure.canvas.draw()
    for ax in axes:
        legend = ax.get_legend().get_window_extent()
        bars = [bar.get_window_extent() for bar in ax.patches]
        assert not any(legend.overlaps(bar) for bar in bars if bar.height > 1)
    low, high = axes[1].transData.inverted().transform(legend)[:, 1]
    assert not low <= right / 50 <= high
