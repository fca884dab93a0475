"""Rows for judging a million predictions: curves, areas, detection."""

import numpy as np
from measure import minimums, row
from sklearn.metrics import auc, roc_auc_score, roc_curve

from mcunc import report
from mcunc.ood import detection
from mcunc.selective import RULES, accuracy_versus_uncertainty, risk_coverage

CASES = 1_000_000


def judged(confidence, right, novel):
    """Every number of both modules."""
    curve = risk_coverage(confidence, ~right)
    found = [of(rule) for rule in RULES for of in (curve.area, curve.excess_area)]
    found += [curve.generalised_area(), curve.risk_at(0.9), curve.coverage_at(0.05)]
    counts = accuracy_versus_uncertainty(-confidence, right)
    counts.agreement, counts.right_if_certain, counts.uncertain_if_wrong  # noqa: B018
    seen = detection(-confidence[~novel], -confidence[novel])
    return found, (seen.auroc, seen.auroc_error, seen.novel_accepted()), seen.curve


def peer(confidence, right, novel):
    """What scikit-learn has of it: two areas and a curve."""
    risk = np.cumsum(~right[np.argsort(-confidence)]) / np.arange(1, CASES + 1)
    area = auc(np.arange(1, CASES + 1) / CASES, risk)
    return area, roc_auc_score(novel, -confidence), roc_curve(novel, -confidence)


def million():
    """All curves and areas of a million predictions, half of them of novel cases."""
    rng = np.random.default_rng(0)
    confidence = rng.random(CASES)
    right, novel = rng.random(CASES) < 0.5 + confidence / 2, rng.random(CASES) < 0.5
    ours, theirs = judged(confidence, right, novel), peer(confidence, right, novel)
    np.testing.assert_allclose([ours[0][2], ours[1][0]], theirs[:2], rtol=1e-9)
    times = minimums(
        lambda: judged(confidence, right, novel), lambda: peer(confidence, right, novel)
    )
    what = f"{CASES:,} predictions judged: all curves and areas"
    return [row(what, times[0], "scikit-learn, an area and a curve of them", times[1], goal=1.0)]


def reports():
    """The report on a million cases of ten classes, and on ten thousand of a hundred."""
    rng, rows = np.random.default_rng(0), []
    for cases, classes, goal in ((CASES, 10, 3.0), (10_000, 100, 1.0)):
        true = 2 * rng.normal(size=(cases, classes))
        labels = (true + rng.gumbel(size=true.shape)).argmax(axis=1)
        logits = 1.3 * true
        assert abs(report(logits, labels).temperature - 1.3) < 0.1
        (seconds,) = minimums(lambda logits=logits, labels=labels: report(logits, labels))
        rows.append(row(f"report on {cases:,} cases, {classes} classes", seconds, goal=goal))
    return rows
