"""Rows for judging predictions: curves, areas, detection, reports, and summaries of draws."""

import importlib.util
import tracemalloc
from importlib.metadata import files

import numpy as np
import torch
from measure import megabytes, minimums, row
from scipy.special import entr, softmax
from sklearn.metrics import auc, roc_auc_score, roc_curve
from torchmetrics.functional.classification import binary_auroc

from mcunc import report
from mcunc.ood import detection
from mcunc.predictive import summarise_classes
from mcunc.selective import RULES, risk_coverage

CASES = 1_000_000
DRAWS = 50


def predictions(levels=None):
    """Confidences, correct or not, and novel or not, of a million cases."""
    rng = np.random.default_rng(0)
    confidence = rng.random(CASES)
    if levels is not None:
        confidence = np.round(confidence * levels) / levels
    return confidence, rng.random(CASES) < 0.5 + confidence / 2, rng.random(CASES) < 0.5


def judged(confidence, right, novel):
    """Every number of both modules."""
    curve = risk_coverage(confidence, ~right)
    areas = [area(rule) for rule in RULES for area in (curve.aurc, curve.eaurc)]
    areas += [curve.augrc(), curve.risk_at(0.9)]
    result = detection(-confidence[~novel], -confidence[novel])
    numbers = result.auroc, result.auroc_error, result.fpr_at_tpr()
    return areas, numbers, result.curve


def peer(confidence, right, novel):
    """What scikit-learn has of it: two areas and a curve."""
    risk = np.cumsum(~right[np.argsort(-confidence)]) / np.arange(1, CASES + 1)
    area = auc(np.arange(1, CASES + 1) / CASES, risk)
    return area, roc_auc_score(novel, -confidence), roc_curve(novel, -confidence)


def million():
    """All curves and areas of a million predictions, half of them of novel cases."""
    cases = predictions()
    ours, theirs = judged(*cases), peer(*cases)
    np.testing.assert_allclose([ours[0][2], ours[1][0]], theirs[:2], rtol=1e-9)
    times = minimums(lambda: judged(*cases), lambda: peer(*cases))
    what = f"{CASES:,} predictions judged: all curves and areas"
    return [row(what, times[0], "scikit-learn, an area and a curve of them", times[1], goal=1.0)]


def torch_uncertainty():
    """The risk-coverage module of torch-uncertainty, loaded by its path.

    `import torch_uncertainty` would need lightning and timm too.
    """
    name = "classification/risk_coverage.py"
    path = next(file for file in files("torch_uncertainty") if file.match(name))
    spec = importlib.util.spec_from_file_location("risk_coverage", path.locate())
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def risk_coverage_areas():
    """AURC of a million cases, with and without ties; peers put ties in some order."""
    module, rows, index = torch_uncertainty(), [], np.arange(1, CASES + 1)
    for levels, what in ((None, ""), (1_000, ", 1,001 different confidences")):
        confidence, right, _ = predictions(levels)
        wrong, p = ~right, 0.5 + confidence / 2
        probs = torch.from_numpy(np.column_stack([p, 1 - p]))
        targets, scores = torch.from_numpy(wrong.astype(int)), torch.from_numpy(p)

        def ours(p=p, wrong=wrong):
            return risk_coverage(p, wrong).aurc()

        def metric(probs=probs, targets=targets):
            area = module.AURC()
            area.update(probs, targets)
            return area.compute().item()

        def from_scores(scores=scores, targets=targets):
            return module._aurc_rejection_rate_compute(scores, targets.double()).mean().item()

        peers = {
            "numpy": lambda p=p, wrong=wrong: (np.cumsum(wrong[np.argsort(-p)]) / index).mean(),
            "torch-uncertainty": metric,
            "torch-uncertainty, from scores": from_scores,
        }
        for other in peers.values():
            np.testing.assert_allclose(other(), ours(), rtol=1e-5 if levels is None else 1e-2)
        best, *others = minimums(ours, *peers.values())
        pairs = zip(peers, others, strict=True)
        rows += [row(f"AURC, {CASES:,} cases{what}", best, p, s, times=1) for p, s in pairs]
    return rows


def detection_areas():
    """AUROC of a million cases, half of them novel."""
    confidence, _, novel = predictions()
    score = 1 - confidence
    tensors = torch.from_numpy(score), torch.from_numpy(novel.astype(int))

    def ours():
        return detection(score[~novel], score[novel]).auroc

    peers = {
        "torchmetrics": lambda: binary_auroc(*tensors).item(),
        "scikit-learn": lambda: roc_auc_score(novel, score),
    }
    for other in peers.values():  # torchmetrics computes in float32
        np.testing.assert_allclose(other(), ours(), rtol=0, atol=1e-5)
    best, *others = minimums(ours, *peers.values())
    pairs = zip(peers, others, strict=True)
    return [row(f"AUROC, {CASES:,} cases", best, p, s, times=1) for p, s in pairs]


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


def summary_of(logits):
    """Mean, predictive and expected entropy, mutual information, variance."""
    s = summarise_classes(logits=logits)
    return s.mean, s.predictive_entropy, s.expected_entropy, s.mutual_information, s.variance


def with_numpy(logits, dtype):
    """The same in as many lines as it is commonly written."""
    probs = softmax(logits.astype(dtype, copy=False), axis=-1)
    mean, expected = probs.mean(axis=0), entr(probs).sum(axis=-1).mean(axis=0)
    total = entr(mean).sum(axis=-1)
    return mean, total, expected, total - expected, probs.var(axis=0, ddof=1)


def with_torch(logits, dtype):
    """The same with torch."""
    probs, entropy = torch.softmax(logits.to(dtype), dim=-1), torch.special.entr
    mean, expected = probs.mean(dim=0), entropy(probs).sum(dim=-1).mean(dim=0)
    total = entropy(mean).sum(dim=-1)
    return mean, total, expected, total - expected, probs.var(dim=0)


def summaries():
    """Summaries of 50 draws, and the peak memory of the larger one beside its logits."""
    rows = []
    for classes in (10, 200):
        shape = DRAWS, 10_000, classes
        logits = 2 * np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        tensor = torch.from_numpy(logits)
        peers = {
            "torch, float32": lambda tensor=tensor: with_torch(tensor, torch.float32),
            "torch, float64": lambda tensor=tensor: with_torch(tensor, torch.float64),
            "numpy, float32": lambda logits=logits: with_numpy(logits, np.float32),
            "numpy, float64": lambda logits=logits: with_numpy(logits, np.float64),
        }
        for name, other in peers.items():
            atol = 1e-10 if "64" in name else 1e-4
            for one, two in zip(summary_of(logits), other(), strict=True):
                np.testing.assert_allclose(one, two, rtol=0, atol=atol)
        best, *others = minimums(lambda logits=logits: summary_of(logits), *peers.values())
        size = f"{DRAWS} × 10,000 × {classes} float32 logits"
        pairs = zip(peers, others, strict=True)
        rows += [row(f"summary of classes, {size}", best, p, s, times=1) for p, s in pairs]
    tracemalloc.start()
    summary_of(logits)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    what = f"peak memory: summary of classes, {size}"
    return [*rows, row(what, peak / 1e6, "the logits", logits.nbytes / 1e6, most=3, show=megabytes)]


BENCHMARKS = [million, reports, risk_coverage_areas, detection_areas, summaries]
