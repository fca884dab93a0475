"""The posterior is the truth, and it can be read off the pixels."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mcunc import birdwatch as bw
from mcunc.birdwatch import scene

NUISANCES = list(scene._NUISANCES)


@pytest.fixture(scope="module")
def latents():
    return bw.draw_latents(300_000, seed=5)


def posterior_of(latents, **options):
    return bw.true_posterior(latents["hue"], latents["covered"], latents["pair"], **options)


# ---------------------------------------------------------------------------------- the truth


@pytest.mark.parametrize(("low", "high"), [(0.70, 0.72), (0.28, 0.30), (0.90, 0.92), (0.49, 0.50)])
def test_of_the_birds_given_probability_p_a_share_p_are_that_species(latents, low, high):
    posterior = posterior_of(latents)
    open_birds = ~latents["covered"]
    for sister in (0, 1):
        p = posterior[np.arange(len(latents)), 2 * latents["pair"] + sister]
        chosen = open_birds & (p >= low) & (p <= high)
        true = latents["label"][chosen] % 2 == sister
        assert chosen.sum() > 500
        error = np.sqrt((p[chosen] * (1 - p[chosen])).sum()) / chosen.sum()
        assert abs(true.mean() - p[chosen].mean()) < 6 * error  # of eight, in all 2e-8


@pytest.mark.parametrize("separation", [0.0, 0.5, 1.5, 3.0])
def test_the_best_possible_accuracy_is_the_one_of_two_normals(separation):
    latents = bw.draw_latents(100_000, seed=8, covered=0.0, separation=separation)
    posterior = posterior_of(latents, separation=separation)
    rate = (posterior.argmax(1) == latents["label"]).mean()
    expected = stats.norm.cdf(separation / 2)
    assert abs(rate - expected) < 6 * np.sqrt(expected * (1 - expected) / 1e5)  # of four: 8e-9


def test_covered_birds_split_evenly_between_the_sisters(latents):
    hidden = latents[latents["covered"]]
    golden = (hidden["label"] % 2).mean()
    assert abs(golden - 0.5) < 6 * 0.5 / np.sqrt(len(hidden))  # false alarms: 2e-9
    posterior = posterior_of(hidden[:1000])
    rows = np.arange(1000)
    for sister in (0, 1):
        assert (posterior[rows, 2 * hidden["pair"][:1000] + sister] == 0.5).all()


def test_the_posterior_is_the_ratio_of_the_normal_densities():
    hue = np.linspace(-125, 195, 97)
    for species, separation in ((2, 0.7), (8, 1.5), (12, 4.0)):
        for pair in range(species // 2):
            got = bw.true_posterior(hue, np.zeros(97, bool), np.full(97, pair), species, separation)
            means = 35 + 20 * separation * np.array([-0.5, 0.5])
            log_density = stats.norm.logpdf(hue[:, None], means, 20)
            odds = np.exp(log_density[:, 0] - log_density[:, 1])
            np.testing.assert_allclose(got[:, 2 * pair], odds / (1 + odds), rtol=1e-9, atol=1e-15)
            np.testing.assert_allclose(got.sum(axis=1), 1, rtol=1e-14)
            others = np.delete(got, [2 * pair, 2 * pair + 1], axis=1)
            assert (others == 0).all()


def test_the_hue_has_the_distribution_that_the_posterior_assumes(latents):
    for label in range(8):
        hue = latents["hue"][latents["label"] == label]
        mean = 35 + (15 if label % 2 else -15)
        assert stats.kstest(hue, stats.norm(mean, 20).cdf).pvalue > 1e-8  # of eight


def test_priors_are_equal(latents):
    assert stats.chisquare(np.bincount(latents["label"], minlength=8)).pvalue > 1e-7


def test_no_nuisance_depends_on_species_or_hue(latents):
    """Of 300,000 birds: p > 1e-9 of each, and correlations within 6.5 standard errors (1e-10)."""
    golden = latents["label"] % 2 == 1
    columns = {name: latents[name] for name in (*NUISANCES, "covered")}
    columns |= {f"background {k}": c for k, c in enumerate(latents["background"].T[:6])}
    for name, column in columns.items():
        column = column.astype(float)
        assert stats.ks_2samp(column[golden], column[~golden]).pvalue > 1e-9, name
        for other in (latents["hue"], latents["pair"]):
            assert abs(np.corrcoef(column, other)[0, 1]) < 6.5 / np.sqrt(len(latents)), name


def test_nuisances_are_the_same_draws_whatever_the_species_are():
    one = bw.draw_latents(50, seed=4)
    other = bw.draw_latents(50, seed=4, species=2, separation=3.0, unseen=True)
    for name in (*NUISANCES, "covered", "background"):
        np.testing.assert_array_equal(one[name], other[name])


# ---------------------------------------------------------------- the pictures carry just that


@pytest.mark.parametrize("size", [64, 100])
def test_the_hue_can_be_read_off_the_pixels(extremes, size):
    shown = extremes[~extremes["covered"]].copy()
    shown["hue"] = np.linspace(-130, 199.9, len(shown))
    pictures, masks = bw.render(shown, size)
    np.testing.assert_allclose(bw.read_hue(pictures, masks), shown["hue"], atol=0.01)
    assert pictures[masks].max() < 1
    assert pictures[masks].min() > 0
    eight, _ = bw.render(shown, size, eight_bit=True)
    np.testing.assert_allclose(bw.read_hue(eight, masks), shown["hue"], atol=0.25)


def test_the_posterior_follows_from_the_pixels_alone(birds):
    """Hue and cover enter the posterior only through what can be seen."""
    shown = ~birds.covered
    hue = bw.read_hue(birds.pictures[shown], birds.masks[shown])
    from_pixels = bw.true_posterior(hue, ~shown[shown], birds.latents["pair"][shown])
    np.testing.assert_allclose(from_pixels, birds.posterior[shown], atol=1e-3)


def test_eight_bit_pictures_hold_256_levels(birds):
    eight, _ = bw.render(birds.latents[:20], eight_bit=True)
    assert eight.dtype == np.float32
    np.testing.assert_allclose(eight * 255, np.round(eight * 255), atol=1e-4)
    assert abs(eight - birds.pictures[:20]).max() <= 0.5 / 255 + 1e-6


# -------------------------------------------------------------------------------- as a function


def test_shapes_types_and_ranges(birds):
    assert birds.pictures.shape == (300, 64, 64, 3)
    assert birds.pictures.dtype == np.float32
    assert birds.pictures.min() >= 0
    assert birds.pictures.max() <= 1
    assert birds.masks.shape == (300, 64, 64)
    assert birds.masks.dtype == bool
    assert birds.labels.min() == 0
    assert birds.labels.max() == 7
    assert birds.posterior.shape == (300, 8)
    assert birds.posterior.dtype == np.float64
    assert (birds.posterior[np.arange(300), birds.labels] > 0).all()
    area = birds.masks.sum(axis=(1, 2))
    assert area.min() > 60
    assert area.max() < 200


def test_torch_takes_every_array(birds):
    for name in ("pictures", "labels", "posterior", "hue", "covered", "masks"):
        array = getattr(birds, name)
        assert torch.as_tensor(array).shape == array.shape, name


def test_same_seed_same_birds_and_another_seed_others(birds):
    again = bw.draw_birds(300, seed=11)
    np.testing.assert_array_equal(again.pictures, birds.pictures)
    np.testing.assert_array_equal(again.latents, birds.latents)
    assert (bw.draw_birds(300, seed=12).labels != birds.labels).any()


def test_interventions_change_what_they_name_and_nothing_else(birds):
    moved = bw.intervene(birds, hue=np.linspace(0, 90, 300), brightness=0.9)
    for name in birds.latents.dtype.names:
        if name not in ("hue", "brightness"):
            np.testing.assert_array_equal(moved.latents[name], birds.latents[name])
    np.testing.assert_array_equal(moved.labels, birds.labels)
    np.testing.assert_array_equal(moved.hue, np.linspace(0, 90, 300))
    np.testing.assert_array_equal(bw.intervene(birds).pictures, birds.pictures)
    sweep = bw.intervene(replace(birds, latents=birds.latents[:5]), hue=20, covered=False)
    assert sweep.posterior.max() == pytest.approx(
        stats.norm.pdf(0) / (stats.norm.pdf(0) + stats.norm.pdf(1.5))
    )


def test_unseen_species_have_no_posterior_and_their_own_labels():
    birds = bw.draw_birds(40, seed=1, unseen=True)
    assert set(birds.labels) == {8, 9, 10, 11}
    assert birds.posterior.shape == (40, 8)
    assert np.isnan(birds.posterior).all()
    names = bw.species_names(unseen=True)
    assert len(names) == 12
    assert len(set(names)) == 12
    assert names[:2] == ["ruddy chickadee", "golden chickadee"]
    assert bw.species_names(unseen=True)[:8] == bw.species_names()


# -------------------------------------------------------------------------------- refused input


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 0), ("n", -3), ("n", 2.5), ("n", True), ("seed", -1), ("seed", "a"),
        ("covered", -0.1), ("covered", 1.1), ("covered", float("nan")), ("covered", "often"),
        ("species", 7), ("species", 14), ("species", 0), ("separation", -1), ("separation", 4.5),
        ("size", 63), ("size", 513), ("size", 64.0),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(name, value):
    with pytest.raises(ValueError, match=f"^{name}:"):
        bw.draw_birds(**({"n": 2} | {name: value}))


@settings(max_examples=60, deadline=None)
@given(st.floats(), st.sampled_from(["hue", "scale", "leaf_x", "covered", "label"]))
def test_interventions_outside_the_drawn_range_are_refused(value, name):
    birds = bw.draw_birds(1)
    low, high = bw.HUE_RANGE if name == "hue" else scene._NUISANCES.get(name, (np.inf, -np.inf))
    if low <= value <= high:
        assert bw.intervene(birds, **{name: value}).latents[name][0] == value
    else:
        with pytest.raises(ValueError, match=name):
            bw.intervene(birds, **{name: value})


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats() | st.floats(-130, 200), max_size=4), st.integers(0, 4), st.integers(-2, 6)
)
def test_the_posterior_is_a_distribution_or_the_input_is_refused(hue, length, pair):
    covered, pairs = np.zeros(length, bool), np.full(len(hue), pair)
    low, high = bw.HUE_RANGE
    if not hue or not all(low <= h <= high for h in hue) or length != len(hue) or pair < 0:
        with pytest.raises(ValueError, match=r"^(hue|covered|pair):"):
            bw.true_posterior(hue, covered, pairs)
    elif pair > 3:
        assert np.isnan(bw.true_posterior(hue, covered, pairs)).all()
    else:
        posterior = bw.true_posterior(hue, covered, pairs)
        assert (posterior >= 0).all()
        np.testing.assert_allclose(posterior.sum(axis=1), 1, rtol=1e-12)


def test_read_hue_refuses_what_it_cannot_read(birds):
    pictures, masks = birds.pictures[:2], birds.masks[:2]
    bad = [
        ("pictures", pictures[..., :2], masks), ("pictures", pictures[0], masks),
        ("masks", pictures, masks[:1]), ("masks", pictures, masks.astype(int)),
        ("masks", pictures, masks & False), ("pictures", pictures * 0 + 0.5, masks),
        ("pictures", pictures * np.nan, masks),
    ]  # fmt: skip
    for name, picture, mask in bad:
        with pytest.raises(ValueError, match=f"^{name}:"):
            bw.read_hue(picture, mask)


def test_render_refuses_anything_but_latents(birds):
    for bad in (birds, birds.latents[:0], np.zeros(3), None, birds.latents[:4].reshape(2, 2)):
        with pytest.raises(ValueError, match=r"^latents:"):
            bw.render(bad)
