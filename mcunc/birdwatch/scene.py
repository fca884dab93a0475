"""Latents of the birds, their exact posterior, and the hue read off the pixels.

The docstring of `mcunc.birdwatch` derives the posterior.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import minimum_filter
from scipy.special import expit

from mcunc._internal.checks import as_array, as_outcomes, check_choice, check_count
from mcunc.birdwatch import painting

__all__ = ["HUE_CENTRE", "HUE_RANGE", "HUE_SD", "Birds", "as_bytes", "draw_birds", "draw_latents"]
__all__ += ["intervene", "read_hue", "render", "species_names", "true_posterior"]

HUE_CENTRE, HUE_SD = 35.0, 20.0  # degrees
HUE_RANGE = (-130.0, 200.0)  # 30 degrees short of a full circle, so that colour -> hue is unique

# Name, low and high of each nuisance; all uniform.  Positions in pixels of a 64-pixel picture.
_NUISANCES = {
    "x": (29.0, 35.0),
    "y": (28.0, 33.0),
    "scale": (0.90, 1.06),
    "tilt": (-9.0, 9.0),  # degrees, bill down positive
    "mirror": (0.0, 1.0),  # facing left below 1/2
    "light": (-70.0, 70.0),  # degrees from overhead; positive lights the face
    "brightness": (0.84, 1.0),
    "branch": (-7.0, 7.0),  # degrees
    "leaf": (0.0, 1.0),  # no leaf below 1/4, unless covered
    "leaf_x": (-1.0, 1.0),
    "leaf_y": (-1.0, 1.0),
    "leaf_angle": (-1.0, 1.0),
    "leaf_tone": (0.0, 1.0),  # green to olive
}
_LATENTS = np.dtype(
    [("label", np.int64), ("pair", np.int64), ("hue", float), ("covered", bool)]
    + [(name, float) for name in _NUISANCES]
    + [("background", float, (2 + 4 * painting.BLOBS,))]
)


@dataclass(frozen=True, eq=False)
class Birds:
    """Pictures of birds with their labels, exact posterior, masks and latents.

    Attributes
    ----------
    pictures : (N, size, size, 3) float32 array, red, green, blue in [0, 1]
    labels : (N,) integer array, species; sisters are 2k and 2k + 1
    posterior : (N, K) array, the exact p(species | picture); NaN for unseen species
    hue : (N,) array, hue of the breast in degrees, even if it is covered
    covered : (N,) bool array, True if the leaf hides the breast
    masks : (N, size, size) bool array
        True for every pixel that the hue can influence, or could influence without the leaf.
    latents : (N,) structured array, from which `render` draws the pictures again
    species, separation : the arguments of `draw_birds`
    eight_bit : bool, whether the pictures are rounded to 256 levels

    Examples
    --------
    >>> from mcunc import birdwatch
    >>> birds = birdwatch.draw_birds(3, covered=1.0)
    >>> birds.posterior.max(axis=1).tolist()  # under the leaf the sisters are equally likely
    [0.5, 0.5, 0.5]
    """

    pictures: np.ndarray
    labels: np.ndarray
    posterior: np.ndarray
    hue: np.ndarray
    covered: np.ndarray
    masks: np.ndarray
    latents: np.ndarray
    species: int = 8
    separation: float = 1.5
    eight_bit: bool = False


def species_names(species=8, unseen=False):
    """Return the names of the species, with sisters side by side, ruddy before golden.

    Parameters
    ----------
    species : int, K, an even number from 2 to 12
    unseen : bool
        Append the four species that are in no training set, with labels K to K + 3.

    Returns
    -------
    list of str, the name of label k at position k

    Raises
    ------
    ValueError
        If `species` is not an even number from 2 to 12.

    Examples
    --------
    >>> from mcunc import birdwatch
    >>> birdwatch.species_names(2)
    ['ruddy chickadee', 'golden chickadee']
    """
    pairs = list(painting.PAIRS)[: _check_species(species) // 2]
    pairs += painting.UNSEEN_PAIRS if unseen else []
    return [f"{sister} {pair}" for pair in pairs for sister in ("ruddy", "golden")]


def true_posterior(hue, covered, pair, species=8, separation=1.5):
    r"""Return the exact p(species | picture).

    Parameters
    ----------
    hue : (N,) array, degrees within HUE_RANGE
    covered : (N,) bool array
    pair : (N,) integer array; the pair of label k is k // 2
    species : int, K, an even number from 2 to 12
    separation : float, distance of the sisters' mean hues in standard deviations, 0 to 4

    Returns
    -------
    (N, K) array
        Rows sum to 1.  Birds of a pair above K/2 - 1 are out of distribution and have no posterior;
        their rows are NaN.

    Raises
    ------
    ValueError
        If an argument is out of range or the arrays differ in length.

    Notes
    -----
    The log ratio of two normal densities with equal variance is linear in the hue.  For an open
    breast the golden sister therefore has probability :math:`\mathrm{sigmoid}(d (h - c) / \sigma)`.

    Examples
    --------
    >>> import numpy as np
    >>> from mcunc import birdwatch
    >>> hue, covered = [35.0, 65.0, 65.0], np.array([False, False, True])
    >>> birdwatch.true_posterior(hue, covered, np.array([0, 0, 0]), species=2).round(1).tolist()
    [[0.5, 0.5], [0.1, 0.9], [0.5, 0.5]]
    """
    species, separation = _check_species(species), _within("separation", separation, 0.0, 4.0)
    hue = _within("hue", hue, *HUE_RANGE, ndim=1)
    covered = _check_flags("covered", covered, len(hue))
    pair = np.asarray(pair)
    if pair.shape != hue.shape or pair.dtype.kind not in "iu" or (pair < 0).any():
        raise ValueError(f"pair: must be {len(hue)} whole numbers from 0, one per hue")
    log_odds = np.where(covered, 0.0, separation * (hue - HUE_CENTRE) / HUE_SD)
    posterior = np.full((len(hue), species), np.nan)
    rows = np.flatnonzero(pair < species // 2)
    posterior[rows] = 0.0
    posterior[rows, 2 * pair[rows]] = expit(-log_odds[rows])
    posterior[rows, 2 * pair[rows] + 1] = expit(log_odds[rows])
    return posterior


def draw_latents(n, seed=0, covered=0.25, species=8, separation=1.5, unseen=False):
    """Draw the latent variables of birds, without rendering the pictures.

    Nuisances and the standardised hue have separate random streams.  The same seed therefore gives
    the same poses, leaves and lights for any `covered`, `species` and `separation`.

    Parameters
    ----------
    n : int, number of birds
    seed : int
    covered : float, probability in [0, 1] that the leaf covers the breast
    species : int, K, an even number from 2 to 12, equally likely
    separation : float, distance of the sisters' mean hues in standard deviations, 0 to 4
    unseen : bool, draw species K to K + 3 instead, whose pairs are in no training set

    Returns
    -------
    (n,) structured array with columns such as ``latents["hue"]``

    Raises
    ------
    ValueError
        If an argument is out of range, or a hue falls outside HUE_RANGE.  This needs at least six
        standard deviations, a probability below two in a billion for each bird.

    Examples
    --------
    >>> from mcunc import birdwatch
    >>> latents = birdwatch.draw_latents(1000, seed=0, covered=0)
    >>> latents["hue"].shape, bool(latents["covered"].any())
    ((1000,), False)
    """
    n, seed = check_count("n", n), check_count("seed", seed, minimum=0)
    species, separation = _check_species(species), _within("separation", separation, 0.0, 4.0)
    covered = _within("covered", covered, 0.0, 1.0)
    choice, hues, nuisances = (np.random.default_rng([seed, stream]) for stream in range(3))
    birds = np.zeros(n, dtype=_LATENTS)
    first, count = (species, 2 * len(painting.UNSEEN_PAIRS)) if unseen else (0, species)
    birds["label"] = first + choice.integers(count, size=n)
    birds["pair"] = birds["label"] // 2 + (len(painting.PAIRS) - species // 2 if unseen else 0)
    sign = 2 * (birds["label"] % 2) - 1
    birds["hue"] = HUE_CENTRE + HUE_SD * (sign * separation / 2 + hues.standard_normal(n))
    _within("seed: its most extreme hue", birds["hue"], *HUE_RANGE, ndim=1)
    birds["covered"] = nuisances.random(n) < covered
    for name, (low, high) in _NUISANCES.items():
        birds[name] = nuisances.uniform(low, high, n)
    birds["background"] = nuisances.random(birds["background"].shape)
    return birds


def draw_birds(
    n, seed=0, covered=0.25, species=8, separation=1.5, unseen=False, size=64, eight_bit=False
):
    """Draw birds and their exact posterior.

    Do not jitter colours when you train on these pictures, because that changes the posterior.

    Parameters
    ----------
    n, seed, covered, species, separation, unseen : see `draw_latents`
    size, eight_bit : see `render`

    Returns
    -------
    Birds

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> from mcunc import birdwatch
    >>> birds = birdwatch.draw_birds(5, seed=0)
    >>> birds.pictures.shape, birds.posterior.shape
    ((5, 64, 64, 3), (5, 8))
    """
    latents = draw_latents(n, seed, covered, species, separation, unseen)
    return _birds(latents, species, separation, size, eight_bit)


def intervene(birds, **changes):
    """Draw the same birds again with some latents changed and all others equal.

    ``intervene(birds, covered=True)`` hides the breast, and ``intervene(birds, hue=60)`` repaints
    it.  Labels do not change; the posterior is recomputed for the new pictures.

    Parameters
    ----------
    birds : Birds
    **changes : scalar or (N,) array
        `hue` (degrees), `covered` (bool), or a nuisance: x, y (pixels of a 64-pixel picture),
        scale, tilt, light, branch (degrees), brightness, mirror (facing left below 1/2), leaf
        (none below 1/4 unless covered), leaf_x, leaf_y, leaf_angle (-1 to 1), leaf_tone (0 to 1).

    Returns
    -------
    Birds

    Raises
    ------
    ValueError
        If a name is not one of these, or a value is outside the range of `draw_latents`.

    Examples
    --------
    >>> from mcunc import birdwatch
    >>> birds = birdwatch.draw_birds(2, seed=0, covered=0)
    >>> hidden = birdwatch.intervene(birds, covered=True)
    >>> bool((hidden.labels == birds.labels).all()), hidden.posterior.max().item()
    (True, 0.5)
    """
    latents, n = birds.latents.copy(), len(birds.latents)
    for name, value in changes.items():
        check_choice("changes", name, ("hue", "covered", *_NUISANCES))
        value = np.full(n, value) if np.ndim(value) == 0 else value
        if name == "covered":
            latents[name] = _check_flags(name, value, n)
        else:
            limits = HUE_RANGE if name == "hue" else _NUISANCES[name]
            latents[name] = _within(name, as_outcomes(name, value, n), *limits, ndim=1)
    size = birds.pictures.shape[1]
    return _birds(latents, birds.species, birds.separation, size, birds.eight_bit)


def read_hue(pictures, masks):
    """Read the hue of the breast off the pixels.

    Light multiplies red, green and blue by the same factor, so it does not change the hue of the
    HSV colour model.  The outermost two pixels of each mask, which may mix with the colours
    beneath, are left out.  The error is below 0.01 degrees for float pictures and below 0.25
    degrees (an eightieth of a standard deviation) for eight-bit pictures.  If a leaf covers the
    breast, the result is the hue of the leaf.

    Parameters
    ----------
    pictures : (N, size, size, 3) array in [0, 1]
    masks : (N, size, size) bool array, the pixels of the breast

    Returns
    -------
    (N,) array, hues in degrees from -145 to 215

    Raises
    ------
    ValueError
        If shapes disagree, a mask is too small, or its pixels are grey and have no hue.

    Examples
    --------
    >>> from mcunc import birdwatch
    >>> birds = birdwatch.draw_birds(3, covered=0)
    >>> error = birdwatch.read_hue(birds.pictures, birds.masks) - birds.hue
    >>> bool(abs(error).max() < 0.01)
    True
    """
    pictures, masks = np.asarray(pictures), np.asarray(masks)
    if pictures.ndim != 4 or pictures.shape[-1] != 3 or not pictures.size:
        raise ValueError(f"pictures: expected shape (N, size, size, 3), got {pictures.shape}")
    if masks.shape != pictures.shape[:3] or masks.dtype != bool:
        raise ValueError(f"masks: expected booleans of shape {pictures.shape[:3]}")
    inside = minimum_filter(masks, size=(1, 5, 5), mode="constant")
    if not inside.any(axis=(1, 2)).all():
        raise ValueError("masks: a mask has no pixel two away from its edge; draw larger birds")
    red, green, blue = np.einsum("nyx,nyxc->cn", inside, pictures, dtype=np.float64)
    top, chroma = np.maximum(red, np.maximum(green, blue)), np.ptp([red, green, blue], axis=0)
    if not (chroma > 0).all():
        raise ValueError("pictures: the masked pixels of a picture are grey or NaN: no hue")
    sixths = (green - blue) / chroma, (blue - red) / chroma + 2, (red - green) / chroma + 4
    sextant = np.select([top == red, top == green], sixths[:2], sixths[2])
    start = HUE_RANGE[0] - 15  # in the middle of the 30 degrees that are not used
    return (60 * sextant - start) % 360 + start


def render(latents, size=64, eight_bit=False):
    """Draw the pictures of latents.

    Parameters
    ----------
    latents : (N,) structured array from `draw_latents`
    size : int, height and width in pixels, 64 to 512
    eight_bit : bool, whether to round to the 256 levels of an 8-bit image, still as floats

    Returns
    -------
    pictures : (N, size, size, 3) float32 array in [0, 1]
    masks : (N, size, size) bool array, True for pixels that the hue of an open breast can influence

    Raises
    ------
    ValueError
        If `latents` is of another type or `size` is out of range.

    Examples
    --------
    >>> from mcunc import birdwatch
    >>> pictures, masks = birdwatch.render(birdwatch.draw_latents(2), size=96)
    >>> pictures.shape, masks.shape
    ((2, 96, 96, 3), (2, 96, 96))
    """
    if getattr(latents, "dtype", None) != _LATENTS or latents.ndim != 1 or not len(latents):
        raise ValueError("latents: expected a non-empty array made by draw_latents")
    size = check_count("size", size, minimum=64, maximum=512)
    pictures, masks = painting.paint(latents, size)
    if eight_bit:
        pictures = np.round(pictures * 255) / np.float32(255)
    return pictures, masks


def as_bytes(birds):
    """Return the pictures as bytes, channels first, the input format of the networks.

    Parameters
    ----------
    birds : Birds, drawn with ``eight_bit=True``

    Returns
    -------
    (N, 3, size, size) uint8 array

    Examples
    --------
    >>> from mcunc import birdwatch
    >>> birds = birdwatch.draw_birds(4, eight_bit=True)
    >>> birdwatch.as_bytes(birds).shape
    (4, 3, 64, 64)
    """
    return np.round(255 * birds.pictures).astype(np.uint8).transpose(0, 3, 1, 2).copy()


def _birds(latents, species, separation, size, eight_bit):
    pictures, masks = render(latents, size, eight_bit)
    # Copies: torch takes no column of a structured array.
    label, hue, covered, pair = (latents[k].copy() for k in ("label", "hue", "covered", "pair"))
    posterior = true_posterior(hue, covered, pair, species, separation)
    known = (hue, covered, masks, latents, species, separation, bool(eight_bit))
    return Birds(pictures, label, posterior, *known)


def _check_species(species):
    if check_count("species", species, minimum=2) % 2 or species > 2 * len(painting.PAIRS):
        raise ValueError(f"species: must be an even number from 2 to 12, got {species}")
    return int(species)


def _within(name, value, low, high, ndim=0):
    """A number, or an array of numbers, from low to high."""
    array = as_array(name, value, ndim)
    if array.min() < low or array.max() > high:
        raise ValueError(f"{name}: must lie between {low} and {high}, got {value!r:.80}")
    return array if ndim else float(array)


def _check_flags(name, value, length):
    value = np.asarray(value)
    if value.dtype != bool or value.shape != (length,):
        raise ValueError(f"{name}: must be {length} booleans, got {value.dtype} {value.shape}")
    return value
