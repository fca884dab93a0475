"""Plotting functions, one for each kind of figure.

Each draws ready results on the Axes that you pass first, and returns these Axes.  Most leave titles
and limits to the caller.
"""

from importlib.resources import files

import matplotlib.pyplot as plt
import numpy as np

__all__ = ["ALEATORIC", "DATA", "EPISTEMIC", "HIT", "MISS", "TRUTH", "activation_map"]
__all__ += ["confidence_histogram", "coverage_map", "curve_with_spread", "estimates"]
__all__ += ["line_with_bands", "pictures", "points", "reliability_diagram", "truth", "use_style"]

# Okabe & Ito (2008); each role has one colour throughout the book.
EPISTEMIC, ALEATORIC, TRUTH = "#0072B2", "#E69F00", "#222222"
DATA, HIT, MISS = "#555555", "#56B4E9", "#D55E00"


def use_style():
    """Apply the book's figure style to the current session.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from mcunc import plot
    >>> with plt.rc_context():
    ...     plot.use_style()
    ...     plt.rcParams["axes.spines.top"]
    False
    """
    plt.style.use(str(files("mcunc") / "book.mplstyle"))


def line_with_bands(
    ax, x, mean, mean_interval=None, observation_interval=None, label="fit", mean_label="the mean"
):
    """Draw a fitted line with bands for its mean and for an observation.

    Parameters
    ----------
    ax : Axes
    x, mean : (M,) arrays, x sorted
    mean_interval, observation_interval : (M, 2) arrays, optional
    label, mean_label : str, labels of the line and of the mean's band

    Returns
    -------
    Axes

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from mcunc import linear, plot
    >>> fit = linear.fit_least_squares([[1, 0], [1, 1], [1, 2]], [0.1, 0.9, 2.3])
    >>> line = fit.predict([[1, 0], [1, 2]])
    >>> fig, ax = plt.subplots()
    >>> ax = plot.line_with_bands(ax, [0, 2], line.mean, line.mean_interval())
    >>> ax.get_legend_handles_labels()[1]
    ['the mean', 'fit']
    >>> plt.close(fig)
    """
    if observation_interval is not None:
        ax.fill_between(
            x, *observation_interval.T, color=ALEATORIC, alpha=0.28, lw=0, label="an observation"
        )
    if mean_interval is not None:
        ax.fill_between(x, *mean_interval.T, color="white", lw=0)  # so that the colours do not mix
        ax.fill_between(x, *mean_interval.T, color=EPISTEMIC, alpha=0.4, lw=0, label=mean_label)
    ax.plot(x, mean, color=EPISTEMIC, label=label)
    return ax


def points(ax, x, y, label="data"):
    """Scatter observations (n,) against x (n,).

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from mcunc import plot
    >>> fig, ax = plt.subplots()
    >>> ax = plot.points(ax, [0, 1, 2], [0.1, 0.9, 2.3])
    >>> len(ax.collections[0].get_offsets())
    3
    >>> plt.close(fig)
    """
    ax.scatter(x, y, s=22, color=DATA, edgecolor="white", linewidth=0.5, zorder=3, label=label)
    return ax


def truth(ax, x, y, label="truth"):
    """Draw the true curve, dashed in black.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from mcunc import plot
    >>> fig, ax = plt.subplots()
    >>> plot.truth(ax, [0, 1], [0, 2]).lines[0].get_label()
    'truth'
    >>> plt.close(fig)
    """
    ax.plot(x, y, color=TRUTH, ls="--", lw=1.6, zorder=4, label=label)
    return ax


def curve_with_spread(ax, x, centre, lower, upper, label, **style):
    """Draw a curve (M,) with a shaded spread between lower and upper (M,).

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from mcunc import plot
    >>> fig, ax = plt.subplots()
    >>> ax = plot.curve_with_spread(ax, [0, 1], [0, 1], [-1, 0], [1, 2], label="mean of ten fits")
    >>> len(ax.lines), len(ax.collections)
    (1, 1)
    >>> plt.close(fig)
    """
    (line,) = ax.plot(x, centre, label=label, **style)
    ax.fill_between(x, lower, upper, color=line.get_color(), alpha=0.18, lw=0)
    return ax


def coverage_map(ax, coverage, rows, columns, level=0.95):
    """Draw a heat map of coverage, a (len(rows), len(columns)) array of fractions.

    Cells at or above the nominal level are white; the further below, the darker the orange.  Every
    cell shows its percentage.

    Examples
    --------
    >>> import numpy as np
    >>> import matplotlib.pyplot as plt
    >>> from mcunc import plot
    >>> fig, ax = plt.subplots()
    >>> ax = plot.coverage_map(ax, np.array([[0.95, 0.81]]), ["n = 10"], ["t", "normal"])
    >>> [text.get_text() for text in ax.texts]
    ['95', '81']
    >>> plt.close(fig)
    """
    import seaborn as sns  # here alone: half a second that no other figure needs

    sns.heatmap(
        100 * coverage, ax=ax, vmin=0, vmax=100 * level,
        cmap=sns.light_palette(MISS, reverse=True, as_cmap=True),
        annot=True, fmt=".0f", annot_kws={"size": 10}, linewidths=0.6, linecolor="#dddddd",
        cbar=False, xticklabels=columns, yticklabels=rows,
    )  # fmt: skip
    ax.tick_params(length=0, rotation=0)
    return ax


def estimates(ax, names, centres, ends, label, offset=0.0, **style):
    """Draw k named estimates (k,) with intervals (k, 2), in rows shifted by `offset`.

    Examples
    --------
    >>> import numpy as np
    >>> import matplotlib.pyplot as plt
    >>> from mcunc import plot
    >>> fig, ax = plt.subplots()
    >>> ends = np.array([[0.1, 0.5], [0.3, 0.4]])
    >>> ax = plot.estimates(ax, ["dropout", "ensemble"], ends.mean(axis=1), ends, "log loss")
    >>> [text.get_text() for text in ax.get_yticklabels()]
    ['dropout', 'ensemble']
    >>> plt.close(fig)
    """
    rows = np.arange(len(names)) + offset
    error = np.abs(ends - centres[:, None]).T
    ax.errorbar(centres, rows, xerr=error, fmt="o", capsize=3, label=label, **style)
    ax.set_yticks(np.arange(len(names)), names)
    return ax


def pictures(axes, images, titles=None):
    """Show images (N, H, W, 3) in [0, 1], one on each of N Axes, with optional titles.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from mcunc import birdwatch, plot
    >>> fig, axes = plt.subplots(1, 2)
    >>> birds = birdwatch.draw_birds(2, seed=0)
    >>> len(plot.pictures(axes, birds.pictures, ["first", "second"]))
    2
    >>> plt.close(fig)
    """
    axes = np.ravel(axes)
    for i, (ax, image) in enumerate(zip(axes, images, strict=True)):
        ax.imshow(image, interpolation="bilinear")
        ax.set_axis_off()
        if titles is not None:
            ax.set_title(titles[i], fontsize=10, fontweight="normal", loc="center")
    return axes


def activation_map(ax, picture, values, limit, cmap="RdBu_r"):
    """Draw a class activation map over its picture, which is shown in grey.

    Parameters
    ----------
    ax : Axes
    picture : (H, W, 3) array in [0, 1]
    values : (h, w) array, such as a row of `cam.class_activation_maps`, or a standard deviation
    limit : float > 0
        Value at the end of the colour scale.  Use the same for all maps that you compare.
    cmap : str
        Colour map.  The scale runs from -`limit` if the name ends in "_r", otherwise from 0.

    Returns
    -------
    Axes

    Examples
    --------
    >>> import numpy as np
    >>> import matplotlib.pyplot as plt
    >>> from mcunc import plot
    >>> fig, ax = plt.subplots()
    >>> ax = plot.activation_map(ax, np.ones((8, 8, 3)), np.eye(2), limit=1)
    >>> len(ax.images)
    2
    >>> plt.close(fig)
    """
    extent = (0, picture.shape[1], picture.shape[0], 0)
    ax.imshow(picture.mean(axis=2), extent=extent, cmap="gray", vmin=-0.5, vmax=1.1)
    low = -limit if cmap.endswith("_r") else 0
    ax.imshow(
        values, extent=extent, cmap=cmap, vmin=low, vmax=limit, alpha=0.7, interpolation="bilinear"
    )
    ax.set_axis_off()
    return ax


def confidence_histogram(ax, table):
    """Draw the fraction of cases in each bin, with lines at mean confidence and accuracy.

    Parameters
    ----------
    ax : Axes
    table : calibration.BinTable of M bins

    Returns
    -------
    Axes

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from mcunc import calibration, plot
    >>> fig, ax = plt.subplots()
    >>> table = calibration.bin_table([0.9, 0.9, 0.6, 0.6], [1, 0, 1, 0], bins=5)
    >>> plot.confidence_histogram(ax, table).get_legend_handles_labels()[1]
    ['mean confidence 0.750', 'accuracy 0.500']
    >>> plt.close(fig)
    """
    total = table.count.sum()
    left, width = table.edges[:-1], np.diff(table.edges)
    ax.bar(left, table.count / total, width, align="edge", color=HIT, edgecolor="white", lw=0.6)
    lines = (
        ("mean confidence", table.confidence_sum.sum() / total, EPISTEMIC, "-"),
        ("accuracy", table.outcome_sum.sum() / total, MISS, "--"),
    )
    for name, value, colour, style in lines:
        ax.axvline(value, color=colour, ls=style, lw=2, label=f"{name} {value:.3f}")
    ax.set(xlim=(0, 1), ylim=(0, 1.6 * table.count.max() / total))  # room for the legend
    ax.legend(loc="upper left")
    return ax


def reliability_diagram(ax, table, band=None):
    """Draw the observed frequency of each bin, with gaps to the confidence or with a null band.

    Without a band, the gap between the frequency and the mean confidence of each bin is shaded,
    after Guo et al. (2017), figure 1.  It ends at the mean confidence, not at the middle of the
    bin.  With a band, boxes show the range of the frequencies of a calibrated model.  Frequencies
    outside their box have another colour and a diamond.

    Parameters
    ----------
    ax : Axes
    table : calibration.BinTable of M bins; empty bins are not drawn
    band : (lower, upper), each (M,), optional, as from `calibration.CalibrationNull.band`

    Returns
    -------
    Axes

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from mcunc import calibration, plot
    >>> fig, ax = plt.subplots()
    >>> table = calibration.bin_table([0.9, 0.9, 0.6, 0.6], [1, 0, 1, 0], bins=5)
    >>> plot.reliability_diagram(ax, table).get_legend_handles_labels()[1]
    ['share right', 'gap to confidence']
    >>> plt.close(fig)
    """
    filled = table.count > 0
    left, right = (edges[filled].astype(float) for edges in (table.edges[:-1], table.edges[1:]))
    share = table.frequency[filled]
    if band is None:
        lower, upper = np.zeros(len(share)), share - table.gap[filled]
        _draw_gaps(ax, left, right, share, upper)
    else:
        lower, upper = (np.asarray(end)[filled] for end in band)
        _draw_null_boxes(ax, left, right, share, lower, upper)
    ax.plot([0, 1], [0, 1], color=TRUTH, ls="--", lw=1.2)
    ax.set(xlim=(0, 1), ylim=(-0.02, 1.02))  # so that shares of 0 and 1 show
    hidden = {  # bins under a legend
        "upper left": (left < 0.5) & (np.maximum(share, upper) > 0.75),
        "lower right": (right > 0.5) & (np.minimum(share, lower) < 0.25),
    }
    loc = min(hidden, key=lambda corner: hidden[corner].sum())
    ax.legend(loc=loc, fontsize="small", handlelength=1.4)
    return ax


def _draw_gaps(ax, left, right, share, confidence):
    """Bars up to the frequency, shaded from there to the mean confidence."""
    place = {"x": left, "width": right - left, "align": "edge"}
    ax.bar(height=share, color=HIT, edgecolor="white", lw=0.6, label="share right", **place)
    ax.bar(
        height=confidence - share, bottom=share, color=MISS, alpha=0.4, hatch="////",
        edgecolor=MISS, lw=0, label="gap to confidence", **place,
    )  # fmt: skip
    ax.hlines(share, left, right, color=EPISTEMIC, lw=2)


def _draw_null_boxes(ax, left, right, share, lower, upper):
    """Boxes from `lower` to `upper`, and frequencies, with a diamond outside their box."""
    ax.bar(
        left, upper - lower, right - left, lower, align="edge", color="0.85", edgecolor="0.4",
        lw=0.8, label="each bin if calibrated",
    )  # fmt: skip
    inside = (lower <= share) & (share <= upper)
    for chosen, colour, name in ((inside, EPISTEMIC, "inside"), (~inside, MISS, "outside")):
        label = f"{name} ({chosen.sum()})"
        ends = share[chosen], left[chosen], right[chosen]
        ax.hlines(*ends, color=colour, lw=3, zorder=4, label=label)
    middle = (left + right) / 2
    ax.plot(middle[~inside], share[~inside], "D", ms=6, color=MISS, zorder=5)
