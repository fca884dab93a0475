r"""Small drawn birds whose true posterior is known: the running example of the book.

Species come in sister pairs.  A pair shows in everything (plumage, bill, crest, tail) and is
never in doubt; its two species differ in one part only, the breast, whose hue is drawn from

.. math:: h \mid s \sim N(m_s, \sigma^2), \qquad
          m_s = c \mp \tfrac12\,d\,\sigma \quad (c = 35, \sigma = 20 \text{ degrees})

with :math:`d` the separation of the sisters, "ruddy" below and "golden" above.  Pose, light,
background and the place of the leaf are drawn independently of the species, so they cancel in
Bayes' rule; species have equal priors; and the hue can be read off the pixels (`read_hue`).  So

.. math:: p(s \mid x) = \begin{cases}
            N(h; m_s, \sigma^2) / \sum_{t} N(h; m_t, \sigma^2) & \text{breast open} \\
            1/2                                               & \text{breast under the leaf}
          \end{cases}

over the two sisters, and 0 for all other species.  This is the truth about *aleatoric*
uncertainty.  It holds as long as training leaves the hue alone: mirroring or a small shift is
harmless, jittering its colours is not.  The hue runs along a line, -130 to 200 degrees of the
colour circle, not around it: no two hues share a colour, and six standard deviations fit on
either side, so that nothing is truncated or wrapped.

Introduced in chapter 1 of the book, whose running example they are.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from mcunc._internal.checks import as_array, check_count

HUE_CENTRE, HUE_SD = 35.0, 20.0  # degrees
HUE_RANGE = (-130.0, 200.0)  # 30 degrees short of a full circle, so that colour -> hue is unique

# What a pair looks like: colours of body, belly, wing, cap, cheek and bill; then, in pixels of a
# 64-pixel picture, length and depth of the bill, length of the tail and its rise in degrees,
# height of the crest, fork of the tail; and the size of the cap.
_PAIRS = {
    "chickadee": ("93a7b8 f5efe2 566a80 22252e fbf8f0 33343a", 4.2, 2.8, 15, -16, 0, 0, 1.0),
    "finch": ("8f8e55 efe7c4 5a5831 75858f a9a66c e0b26c", 5.4, 6.2, 13, -8, 0, 1, 0.7),
    "jay": ("6d89cb e9eef7 3a55a0 3f5cb0 e6edf8 23262f", 6.2, 3.6, 19, -20, 9, 0, 0.8),
    "wren": ("a0765a efe0c8 6d4a30 7b5236 f2e4cc 5a4433", 7.4, 2.2, 15, 34, 0, 0, 0.6),
    "swallow": ("33567a f7f1e8 1f3450 1d3049 33567a 22252e", 3.6, 2.8, 20, -12, 0, 2, 0.6),
    "waxwing": ("b89e8a f1e7cd 7c6f6c a3836d 3a3034 2d2b2e", 4.4, 3.4, 14, -18, 6, 0, 0.8),
}
_UNSEEN_PAIRS = {
    "kingfisher": ("24a6b3 f9f3e6 137d95 0f6f8c f4f4ee 2a2c33", 12.0, 3.8, 8, -14, 4, 0, 1.0),
    "dove": ("e4dedd fbf7f3 bfb5b6 d9d0d2 efe9e8 c9786c", 4.6, 2.8, 18, -14, 0, 0, 0.3),
}
_BREAST = (8.9, 2.4)  # its centre, bill to the right
_LEAF = (15.0, 9.8)  # half length and half width, enough to hide the breast and its soft edge

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
_BLOBS = 9
_LATENTS = np.dtype(
    [("label", np.int64), ("pair", np.int64), ("hue", float), ("covered", bool)]
    + [(name, float) for name in _NUISANCES]
    + [("background", float, (2 + 4 * _BLOBS,))]
)


@dataclass(frozen=True, eq=False)
class Birds:
    """Pictures of birds with everything that is known about them.

    Attributes
    ----------
    pictures : (N, size, size, 3) float32 array, red, green, blue in [0, 1]
    labels : (N,) integer array, species; sisters are 2k and 2k + 1
    posterior : (N, K) array, the exact p(species | picture); NaN for unseen species
    hue : (N,) array, of the breast, in degrees, whether or not it can be seen
    covered : (N,) bool array, True where the leaf hides the breast
    masks : (N, size, size) bool array
        Every pixel that the hue can influence, or could if the leaf were not there.
    latents : (N,) structured array, all that is needed to `render` the pictures again
    species, separation : the arguments of `draw_birds`
    eight_bit : bool, whether the pictures were rounded to 256 levels
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
    """Return the names of the species, sisters side by side, ruddy before golden.

    Parameters
    ----------
    species : int, an even number from 2 to 12
    unseen : bool
        Append the four species that are in no training set: labels K to K + 3.

    Returns
    -------
    list of str, the name of label k at place k

    Raises
    ------
    ValueError
        If `species` is not an even number from 2 to 12.
    """
    pairs = list(_PAIRS)[: _check_species(species) // 2] + (list(_UNSEEN_PAIRS) if unseen else [])
    return [f"{sister} {pair}" for pair in pairs for sister in ("ruddy", "golden")]


def true_posterior(hue, covered, pair, species=8, separation=1.5):
    r"""Return the exact p(species | picture).

    Between the sisters of an open bird the ratio of two normal densities of equal width is
    logistic in the hue, :math:`p(\text{golden}) = \mathrm{sigmoid}(d (h - c) / \sigma)`.

    Parameters
    ----------
    hue : (N,) array, degrees within HUE_RANGE
    covered : (N,) bool array
    pair : (N,) integer array; the pair of label k is k // 2
    species : int, K, an even number from 2 to 12
    separation : float, distance of the sisters' mean hues in standard deviations, 0 to 4

    Returns
    -------
    (N, K) array; rows sum to 1, except that birds of a pair outside 0..K/2 - 1, which are out
    of distribution and have no posterior, get NaN.

    Raises
    ------
    ValueError
        If an argument is out of range or the arrays differ in length.
    """
    species, separation = _check_species(species), _check_number("separation", separation, 0.0, 4.0)
    hue = as_array("hue", hue, ndim=1)
    _check_hue("hue", hue)
    covered = _check_flags("covered", covered, len(hue))
    pair = np.asarray(pair)
    if pair.shape != hue.shape or pair.dtype.kind not in "iu" or (pair < 0).any():
        raise ValueError(f"pair: must be {len(hue)} whole numbers from 0, one per hue")
    log_odds = np.where(covered, 0.0, separation * (hue - HUE_CENTRE) / HUE_SD)
    posterior = np.zeros((len(hue), species))
    seen = pair < species // 2
    rows = np.flatnonzero(seen)
    posterior[rows, 2 * pair[seen]] = expit(-log_odds[seen])
    posterior[rows, 2 * pair[seen] + 1] = expit(log_odds[seen])
    posterior[~seen] = np.nan
    return posterior


def draw_latents(n, seed=0, covered=0.25, species=8, separation=1.5, unseen=False):
    """Draw what determines the pictures, without drawing the pictures.

    The nuisances and the standardised hue come from streams of their own, so that the same seed
    gives the same poses, leaves and lights whatever `covered`, `species` and `separation` are.

    Parameters
    ----------
    n : int, number of birds
    seed : int
    covered : float, probability in [0, 1] that the leaf covers the breast
    species : int, K, an even number from 2 to 12, equally likely
    separation : float, distance of the sisters' mean hues in standard deviations, 0 to 4
    unseen : bool, draw species K to K + 3 instead, of pairs that are in no training set

    Returns
    -------
    (n,) structured array; `latents["hue"]` and so on are its columns

    Raises
    ------
    ValueError
        If an argument is out of range, or a hue falls more than six standard deviations from
        its mean (two in a billion), since cutting it off would falsify the posterior.
    """
    n, seed = check_count("n", n), check_count("seed", seed, minimum=0)
    species, separation = _check_species(species), _check_number("separation", separation, 0.0, 4.0)
    covered = _check_number("covered", covered, 0.0, 1.0)
    choice, hues, nuisances = (np.random.default_rng([seed, stream]) for stream in range(3))
    birds = np.zeros(n, dtype=_LATENTS)
    first, count = (species, 2 * len(_UNSEEN_PAIRS)) if unseen else (0, species)
    birds["label"] = first + choice.integers(count, size=n)
    birds["pair"] = birds["label"] // 2 + (len(_PAIRS) - species // 2 if unseen else 0)
    sign = 2 * (birds["label"] % 2) - 1
    birds["hue"] = HUE_CENTRE + HUE_SD * (sign * separation / 2 + hues.standard_normal(n))
    _check_hue("seed", birds["hue"])
    birds["covered"] = nuisances.random(n) < covered
    for name, (low, high) in _NUISANCES.items():
        birds[name] = nuisances.uniform(low, high, n)
    birds["background"] = nuisances.random((n, 2 + 4 * _BLOBS))
    return birds


def draw_birds(
    n, seed=0, covered=0.25, species=8, separation=1.5, unseen=False, size=64, eight_bit=False
):
    """Draw birds and their exact posterior.

    Never jitter colours in training on these pictures: the posterior would no longer be theirs.

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
    """
    latents = draw_latents(n, seed, covered, species, separation, unseen)
    return _birds(latents, species, separation, size, eight_bit)


def intervene(birds, **changes):
    """Draw the same birds again with some latents set by hand and all else equal.

    `intervene(birds, covered=True)` hides the breast, `intervene(birds, hue=60)` repaints it.
    A bird repainted or covered keeps its label; its posterior is that of the new picture.

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
        If a name is not one of these, or a value is outside the range it is drawn from.
    """
    latents, n = birds.latents.copy(), len(birds.latents)
    for name, value in changes.items():
        if name not in ("hue", "covered", *_NUISANCES):
            known = ", ".join(("hue", "covered", *_NUISANCES))
            raise ValueError(f"changes: {name!r} cannot be set; choose from {known}")
        value = np.full(n, value) if np.ndim(value) == 0 else value
        if name == "covered":
            value = _check_flags(name, value, n)
        else:
            value = as_array(name, value, ndim=1)
            low, high = HUE_RANGE if name == "hue" else _NUISANCES[name]
            if len(value) != n or (value < low).any() or (value > high).any():
                raise ValueError(f"{name}: give one number or {n}, each from {low} to {high}")
        latents[name] = value
    size = birds.pictures.shape[1]
    return _birds(latents, birds.species, birds.separation, size, birds.eight_bit)


def read_hue(pictures, masks):
    """Read the hue of the breast off the pixels.

    Light multiplies red, green and blue by one factor, so the hue of the HSV colour model is that
    of the paint.  The outermost two pixels of each mask, where the edge may mix with what lies
    beneath, are left out.  The error is below 0.01 degrees for float pictures and below 0.25
    degrees (an eightieth of a standard deviation) for eight-bit ones.  Where a leaf covers the
    breast the answer is the hue of the leaf.

    Parameters
    ----------
    pictures : (N, size, size, 3) array in [0, 1]
    masks : (N, size, size) bool array, the pixels of the breast

    Returns
    -------
    (N,) array, degrees, from -145 to 215

    Raises
    ------
    ValueError
        If shapes disagree, a mask is too small, or its pixels are grey and have no hue.
    """
    pictures, masks = np.asarray(pictures), np.asarray(masks)
    if pictures.ndim != 4 or pictures.shape[-1] != 3 or not pictures.size:
        raise ValueError(f"pictures: expected shape (N, size, size, 3), got {pictures.shape}")
    if masks.shape != pictures.shape[:3] or masks.dtype != bool:
        raise ValueError(f"masks: expected booleans of shape {pictures.shape[:3]}")
    inside = _erode(_erode(masks))
    if not inside.any(axis=(1, 2)).all():
        raise ValueError("masks: a mask has no pixel two away from its edge; draw larger birds")
    red, green, blue = np.einsum("nyx,nyxc->cn", inside, pictures, dtype=np.float64)
    top, chroma = np.maximum(red, np.maximum(green, blue)), np.ptp([red, green, blue], axis=0)
    if not (chroma > 0).all():
        raise ValueError("pictures: the masked pixels of a picture are grey or NaN: no hue")
    sextant = np.select(
        [top == red, top == green],
        [(green - blue) / chroma, (blue - red) / chroma + 2],
        (red - green) / chroma + 4,
    )
    start = HUE_RANGE[0] - 15  # amid the 30 degrees that are not used
    return (60 * sextant - start) % 360 + start


def render(latents, size=64, eight_bit=False):
    """Draw the pictures that latents describe.

    Parameters
    ----------
    latents : (N,) structured array from `draw_latents`
    size : int, pixels along each side, 64 to 512
    eight_bit : bool, round to the 256 levels of an 8-bit image (the result is float all the same)

    Returns
    -------
    pictures : (N, size, size, 3) float32 array in [0, 1]
    masks : (N, size, size) bool array, every pixel that the hue can influence when open

    Raises
    ------
    ValueError
        If `latents` is of another type or `size` is out of range.
    """
    if getattr(latents, "dtype", None) != _LATENTS or latents.ndim != 1 or not len(latents):
        raise ValueError("latents: expected a non-empty array made by draw_latents")
    if check_count("size", size, minimum=64) > 512:
        raise ValueError(f"size: must be at most 512 pixels, got {size}")
    pictures = np.empty((len(latents), size, size, 3), np.float32)
    masks = np.empty((len(latents), size, size), bool)
    chunk = max(1, 96 * 64**2 // size**2)  # small enough for the processor's cache
    # birds with the leaf in like places share a chunk, so that little is painted in vain
    order = np.argsort(latents["covered"] + 1.0 * _leaf_shown(latents), kind="stable")

    def draw(start):
        part = order[start : start + chunk]
        pictures[part], masks[part] = _draw_chunk(latents[part], size)

    starts = range(0, len(latents), chunk)
    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # numpy lets go of the lock as it paints
            list(pool.map(draw, starts))
    except RuntimeError:  # no more threads here, or none at all, as in a browser
        for start in starts:
            draw(start)
    if eight_bit:
        pictures = np.round(pictures * 255) / np.float32(255)
    return pictures, masks


def _birds(latents, species, separation, size, eight_bit):
    pictures, masks = render(latents, size, eight_bit)
    # Copies: torch takes no column of a structured array.
    names = ("label", "hue", "covered", "pair")
    label, hue, covered, pair = (latents[name].copy() for name in names)
    posterior = true_posterior(hue, covered, pair, species, separation)
    known = (hue, covered, masks, latents, species, separation, bool(eight_bit))
    return Birds(pictures, label, posterior, *known)


def _check_species(species):
    if check_count("species", species, minimum=2) % 2 or species > 2 * len(_PAIRS):
        raise ValueError(f"species: must be an even number from 2 to 12, got {species}")
    return int(species)


def _check_number(name, value, low, high):
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = np.nan
    if not low <= number <= high:
        raise ValueError(f"{name}: must be a number from {low} to {high}, got {value!r}")
    return number


def _check_flags(name, value, length):
    value = np.asarray(value)
    if value.dtype != bool or value.shape != (length,):
        raise ValueError(f"{name}: must be {length} booleans, got {value.dtype} {value.shape}")
    return value


def _check_hue(name, hue):
    low, high = HUE_RANGE
    if (hue < low).any() or (hue > high).any():
        raise ValueError(f"{name}: gives a hue outside {low} to {high} degrees; take another")


def _erode(masks):
    """Drop the pixels of each mask that touch its outside or the frame, diagonals included."""
    for axis in (1, 2):
        kept = np.zeros_like(masks)
        below, middle, above = (
            tuple(slice(first, last) if k == axis else slice(None) for k in range(3))
            for first, last in ((0, -2), (1, -1), (2, None))
        )
        kept[middle] = masks[below] & masks[middle] & masks[above]
        masks = kept
    return masks


# ------------------------------------------------------------------------------------ painting
# Everything is elementwise arithmetic on (birds, rows, columns), so that a picture does not
# depend, to the last bit, on the others it is drawn with.


def _rgb(codes):
    """(n, 3) float32 colours of hexadecimal codes."""
    return np.array([[int(c[i : i + 2], 16) / 255 for i in (0, 2, 4)] for c in codes], np.float32)


def _hue_colour(hue):
    """(n, 3) colours of the breast: HSV with saturation .8 and value .93."""
    k = (np.array([5.0, 3.0, 1.0]) + np.asarray(hue)[:, None] / 60) % 6
    return (0.93 * (1 - 0.8 * np.clip(np.minimum(k, 4 - k), 0, 1))).astype(np.float32)


def _mix(a, b, weight):
    """Colours between `a` and `b`, one weight per bird."""
    return a + (b - a) * np.asarray(weight, np.float32)[:, None]


class _Pose:
    """A frame of reference per bird: where it lies in the picture, how large and how turned."""

    def __init__(self, x, y, scale, angle):
        self.x, self.y, self.scale, self.angle = np.broadcast_arrays(x, y, scale, np.radians(angle))

    def place(self, x, y):
        """Positions in the picture of points given in this frame."""
        cos, sin = self.scale * np.cos(self.angle), self.scale * np.sin(self.angle)
        return self.x + cos * x - sin * y, self.y + sin * x + cos * y

    def inner(self, x, y, scale=1.0, angle=0.0):
        """The frame at a point of this one, turned by `angle` degrees."""
        return _Pose(*self.place(x, y), self.scale * scale, np.degrees(self.angle) + angle)


class _Canvas:
    """A chunk of pictures, painted back to front.

    Shapes answer with a box, the slices outside of which they are nowhere, and their depth: the
    distance to the edge in pixels of a 64-pixel picture, positive inside.
    """

    def __init__(self, n, size):
        self.pixel = 64 / size
        self.planes = np.empty((3, n, size, size), np.float32)
        self.axis = (np.arange(size) + 0.5) * self.pixel
        self.whole = (slice(None), slice(0, size), slice(0, size))

    def _box(self, x, y, reach_x, reach_y):
        """Slices around centres x, y, wide enough for soft edges too."""
        size, margin = len(self.axis), 2.0

        def span(centre, reach):
            low = int(((centre - reach).min() - margin) / self.pixel)
            high = int(((centre + reach).max() + margin) / self.pixel) + 1
            return slice(min(max(low, 0), size), min(max(high, 0), size))

        return slice(None), span(y, reach_y), span(x, reach_x)

    def _linear(self, box, x, y, a, b, c=0.0):
        """a (column - x) + b (row - y) + c over the box."""
        across = np.multiply.outer(a, self.axis[box[2]]) - (a * x - c)[:, None]
        down = np.multiply.outer(b, self.axis[box[1]]) - (b * y)[:, None]
        return across.astype(np.float32)[:, None, :] + down.astype(np.float32)[:, :, None]

    def ellipse(self, pose, x, y, a, b, angle=0.0, box=None):
        """Box (or the one given) and approximate depth of an ellipse with semi-axes a, b."""
        x, y = pose.place(x, y)
        a, b, turn = pose.scale * a, pose.scale * b, pose.angle + np.radians(angle)
        cos, sin = np.cos(turn), np.sin(turn)
        box = box or self._box(x, y, np.hypot(a * cos, b * sin), np.hypot(a * sin, b * cos))
        # (u / a)^2 + (v / b)^2 with the square completed in the columns: fewer passes
        xx, yy = (cos / a) ** 2 + (sin / b) ** 2, (sin / a) ** 2 + (cos / b) ** 2
        xy = cos * sin * (a**-2.0 - b**-2.0)
        q = self._linear(box, x, y, np.sqrt(xx), xy / np.sqrt(xx))
        q *= q
        rest = (yy - xy**2 / xx)[:, None] * np.subtract.outer(-y, -self.axis[box[1]]) ** 2
        q += rest.astype(np.float32)[:, :, None]
        np.subtract(1, q, out=q)
        q *= (np.sqrt(a * b) / 2).astype(np.float32)[:, None, None]
        return box, q

    def polygon(self, pose, *points):
        """Box and depth of a convex polygon whose points go clockwise as seen.

        Tips must be blunt: the soft edge of a sharp one would reach out of the box.
        """
        corners = [np.broadcast_arrays(*pose.place(x, y)) for x, y in points]
        x, y = (np.stack(values) for values in zip(*corners, strict=True))
        middle_x, middle_y = (x.max(0) + x.min(0)) / 2, (y.max(0) + y.min(0)) / 2
        box = self._box(middle_x, middle_y, np.ptp(x, axis=0) / 2, np.ptp(y, axis=0) / 2)
        depth = None
        for k in range(len(points)):
            dx, dy = x[k] - x[k - 1], y[k] - y[k - 1]
            length = np.hypot(dx, dy)
            edge = self._linear(box, x[k], y[k], -dy / length, dx / length)
            depth = edge if depth is None else np.minimum(depth, edge, out=depth)
        return box, depth

    def line(self, pose, x0, y0, x1, y1, w0, w1):
        """Box and depth of a straight stroke of half-width w0 tapering to w1."""
        length = np.hypot(x1 - x0, y1 - y0)
        nx, ny = (y1 - y0) / length, -(x1 - x0) / length
        over = (x0 + w0 * nx, y0 + w0 * ny), (x1 + w1 * nx, y1 + w1 * ny)
        under = (x1 - w1 * nx, y1 - w1 * ny), (x0 - w0 * nx, y0 - w0 * ny)
        return self.polygon(pose, *over, *under)

    def alpha(self, depth, softness=0.0):
        """Opacity with an edge one pixel wide, or `softness` pixels of a 64-pixel picture."""
        depth = depth * np.float32(1 / max(softness, self.pixel))
        depth += np.float32(0.5)
        return np.clip(depth, 0, 1, out=depth)

    def paint(self, box, alpha, colour, light=1.0):
        """Lay one colour per bird over the planes; an opacity of exactly 1 leaves no trace."""
        view = self.planes[(slice(None), *box)]
        view *= 1 - alpha
        view += (alpha * light) * np.asarray(colour, np.float32).T[:, :, None, None]


# ----------------------------------------------------------------------------------- the scene
# Drawn facing right, mirrored at the end.  Lengths in pixels of a 64-pixel picture.


def _draw_chunk(latents, size):
    """Pictures and masks of a few birds."""
    canvas = _Canvas(len(latents), size)
    bird = _Pose(latents["x"], latents["y"], latents["scale"], latents["tilt"])
    gain = latents["brightness"].astype(np.float32)[:, None, None]
    traits = _traits(latents["pair"])
    _paint_background(canvas, latents["background"], gain)
    _paint_branch(canvas, latents, gain)
    _paint_tail(canvas, bird, traits, gain)
    silhouette, light = _paint_body(canvas, bird, traits, latents["light"], gain)
    _paint_wing(canvas, bird, traits, light)
    _paint_face(canvas, bird, traits, silhouette, light)
    mask = _paint_breast(canvas, bird, latents["hue"], silhouette, light)
    _paint_leaf(canvas, bird, latents, gain)
    planes, left = np.clip(canvas.planes, 0, 1, out=canvas.planes), latents["mirror"] < 0.5
    planes[:, left], mask[left] = planes[:, left, :, ::-1], mask[left, :, ::-1]
    return np.moveaxis(planes, 0, -1), mask


def _traits(pair):
    """Columns of the table of pairs, one value per bird."""
    rows = [*_PAIRS.values(), *_UNSEEN_PAIRS.values()]
    traits = {}
    for k, name in enumerate(("body", "belly", "wing", "cap", "cheek", "bill")):
        traits[name] = _rgb([row[0].split()[k] for row in rows])[pair]
    numbers = ["bill_length", "bill_depth", "tail_length", "tail_angle", "crest", "fork", "hood"]
    for k, name in enumerate(numbers, start=1):
        traits[name] = np.array([row[k] for row in rows], float)[pair]
    return traits


def _paint_background(canvas, random, gain):
    """A sky gradient and foliage out of focus, on cells of 4 pixels enlarged by cubic splines."""
    sky = _rgb(("b4d4ea", "f2d8c2", "cfe2d6", "c3cce6"))  # morning, dusk, mist, rain
    ground = _rgb(("dfeacb", "dfbf9f", "9dbb93", "a3b5b0"))
    foliage = _rgb(("4c7a58", "86a860", "c9d296", "f6f0dc"))  # dark to light
    centres, random = np.arange(-2, 68, 4, dtype=np.float32), random.astype(np.float32)
    u, v = random[:, :1], random[:, 1:2]
    moods = np.hstack([(1 - u) * (1 - v), u * (1 - v), (1 - u) * v, u * v])[:, :, None]
    above, below = ((moods * colours).sum(axis=1).T for colours in (sky, ground))
    height = np.clip(centres / 64, 0, 1)[:, None]
    cells = above[:, :, None, None] * (1 - height) + below[:, :, None, None] * height
    cells = np.repeat(cells, len(centres), axis=3)
    for x, y, radius, tone in random[:, 2:].reshape(len(random), _BLOBS, 4).transpose(1, 2, 0):
        q = (centres - 70 * x[:, None] + 3)[:, None, :] ** 2
        q = q + (centres - 70 * y[:, None] + 3)[:, :, None] ** 2
        alpha = 0.75 * np.clip(1.3 - q / (6 + 16 * radius[:, None, None]) ** 2, 0, 1)
        shade = np.stack([np.interp(tone, np.linspace(0, 1, 4), c) for c in foliage.T]).astype(
            np.float32
        )
        cells += alpha * (shade[:, :, None, None] - cells)
    t = np.abs(canvas.axis[:, None] - centres) / 4
    spline = np.where(t < 1, 2 / 3 - t**2 + t**3 / 2, np.clip(2 - t, 0, None) ** 3 / 6)
    spline = (spline / spline.sum(axis=1, keepdims=True)).astype(np.float32)
    # one small product per picture and colour, so that chunks do not matter
    np.matmul(spline @ cells, spline.T, out=canvas.planes)
    canvas.planes *= gain


def _paint_branch(canvas, latents, gain):
    n, slope = len(latents), np.radians(latents["branch"])
    x, y = latents["x"], latents["y"] + 21.0 * latents["scale"]
    rows = canvas._box(x, y, 0.0, 3.0 + 35.0 * np.tan(np.abs(slope)))[1]
    box = (slice(None), rows, canvas.whole[2])
    below = canvas._linear(box, x, y, -np.sin(slope), np.cos(slope))
    bark = 0.95 - 0.12 * below - 0.12 * np.clip(2 - 3 * np.abs(below - 0.8), 0, 1)  # a crack
    alpha = canvas.alpha(3.0 - np.abs(below), 1.3)
    canvas.paint(box, alpha, _rgb(["7a5f47"] * n), bark * gain)
    branch = _Pose(x, y, 1.0, latents["branch"])
    for along in (-17.0, 15.0):
        box, depth = canvas.ellipse(branch, along, 0.6, 2.4, 0.9)
        canvas.paint(box, 0.6 * canvas.alpha(depth), _rgb(["463425"] * n), gain)


def _paint_tail(canvas, bird, traits, gain):
    """Tail and legs, which the body overlaps."""
    n = len(gain)
    length, colour = traits["tail_length"], traits["wing"]
    root = bird.inner(-10.0, 8.5, angle=traits["tail_angle"])  # its x axis runs to the bill
    for spread, shade in ((1, 0.78), (-1, 1.0)):
        tip = spread * (0.8 + 1.3 * traits["fork"])
        box, depth = canvas.line(root, 4.0, 0.0, -length, tip, 3.0, 2.3 - 0.7 * traits["fork"])
        canvas.paint(box, canvas.alpha(depth), colour, 0.9 * shade * gain)
    box, depth = canvas.line(root, 0.0, 0.0, 1.0 - length, -0.6 * tip, 0.3, 0.3)
    canvas.paint(box, 0.45 * canvas.alpha(depth), 0.5 * colour, gain)
    legs = _rgb(["6b4a3a"] * n)
    for x, shade in ((5.5, 0.75), (0.5, 1.0)):
        leg, foot = (x, 13.0, x + 0.5, 18.8, 0.75, 0.6), (x - 0.6, 18.9, x + 3.2, 18.9, 0.7, 0.5)
        for stroke in (leg, foot):
            box, depth = canvas.line(bird, *stroke)
            canvas.paint(box, canvas.alpha(depth), legs, shade * gain)


def _paint_body(canvas, bird, traits, direction, gain):
    """Body, head and crest; return the silhouette's opacity and the light on it, as planes."""
    back, top = 1.5 - traits["crest"], -16.0 - 0.55 * traits["crest"]
    box, depth = canvas.polygon(
        bird, (3.0, -11.0), (back - 0.3, top + 0.4), (back + 0.4, top - 0.4), (11.0, -16.0)
    )
    crested = (traits["crest"] > 0)[:, None, None].astype(np.float32)
    canvas.paint(box, canvas.alpha(depth) * crested, traits["cap"], gain)
    # the whole plane is the box, as the wing, the face and the breast are laid over these
    body = canvas.ellipse(bird, -1.5, 4.5, 15.0, 11.0, -30.0, box=canvas.whole)[1]
    head = canvas.ellipse(bird, 8.0, -9.0, 8.4, 7.9, -10.0, box=canvas.whole)[1]
    blend = np.clip((head - body) / 10 + 0.5, 0, 1)  # a smooth union: no crease at the neck
    depth = body + (head - body) * blend + 5 * blend * (1 - blend)
    silhouette = canvas.alpha(depth)
    turn = np.radians(direction) + bird.angle
    sun = canvas._linear(canvas.whole, *bird.place(1.0, 0.0), np.sin(turn), -np.cos(turn)) / 20
    rim = np.clip(1 - depth / 5.5, 0, 1)
    light = np.clip(0.92 + 0.14 * sun - 0.22 * rim * rim * (1 - sun), 0.45, 1) * gain
    canvas.paint(canvas.whole, silhouette, traits["body"], light)
    box, belly = canvas.ellipse(bird, 1.5, 9.0, 11.5, 7.5, -25.0)
    canvas.paint(box, canvas.alpha(belly, 3.0) * silhouette[box], traits["belly"], light[box])
    return silhouette, light


def _paint_wing(canvas, bird, traits, light):
    wing = bird.inner(-6.0, 3.2, angle=-27.0)
    colour = traits["wing"]
    box, depth = canvas.ellipse(wing, -0.8, 0.9, 11.0, 5.8)
    canvas.paint(box, 0.35 * canvas.alpha(depth, 2.5), 0.35 * colour, light[box])  # its shadow
    feathers = ((2.6, 2.9, 9.5, 0.62), (1.5, 1.6, 12.0, 0.76), (0.3, 0.1, 14.0, 0.92))
    for y0, y1, length, shade in feathers:
        box, depth = canvas.line(wing, 4.0, y0, -length, y1, 2.2, 0.3)  # the flight feathers
        canvas.paint(box, canvas.alpha(depth), shade * colour, light[box])
    pale = _mix(colour, traits["belly"], np.full(len(colour), 0.75))
    coverts = _mix(colour, traits["belly"], np.full(len(colour), 0.18))
    for x, a, b, paint in ((1.2, 6.6, 4.6, pale), (2.0, 6.4, 4.5, coverts)):
        box, depth = canvas.ellipse(wing, x, -0.4, a, b)  # a pale bar behind the coverts
        canvas.paint(box, canvas.alpha(depth), paint, light[box])


def _paint_face(canvas, bird, traits, silhouette, light):
    n = len(light)
    box, depth = canvas.ellipse(bird, 10.5, -7.2, 5.0, 3.6, -10.0)
    canvas.paint(box, canvas.alpha(depth, 1.5) * silhouette[box], traits["cheek"], light[box])
    box, depth = canvas.ellipse(bird, 6.5, -14.5, 9.5, 5.6 * traits["hood"], 14.0)
    canvas.paint(box, canvas.alpha(depth, 1.2) * silhouette[box], traits["cap"], light[box])
    tip, half = 14.8 + traits["bill_length"], traits["bill_depth"] / 2
    for top, bottom, shade in ((-half, half, 1.0), (0.0, half, 0.72)):  # the lower half darker
        box, depth = canvas.polygon(
            bird, (14.4, top - 8.9), (tip, 0.1 * top - 8.8), (tip, -8.3), (14.4, bottom - 8.9)
        )
        canvas.paint(box, canvas.alpha(depth), traits["bill"], shade * light[box])
    eye = bird.inner(11.2, -10.6)
    ring, iris, glint = (0, 2.2, "efe6d6", 0.35), (0, 1.75, "17130f", 1), (0.65, 0.62, "ffffff", 1)
    for shift, radius, code, opacity in (ring, iris, glint):
        box, depth = canvas.ellipse(eye, shift, -shift, radius, radius)
        canvas.paint(box, opacity * canvas.alpha(depth), _rgb([code] * n))


def _paint_breast(canvas, bird, hue, silhouette, light):
    """The part that tells sisters apart; nothing but the leaf is painted over it."""
    box, depth = canvas.ellipse(bird, *_BREAST, 5.2, 6.6, 14.0)
    alpha = canvas.alpha(depth) * silhouette[box]
    canvas.paint(box, alpha, _hue_colour(hue), light[box])
    mask = np.zeros(light.shape, bool)
    mask[box] = alpha > 0
    return mask


def _leaf_shown(latents):
    return latents["covered"] | (latents["leaf"] > 0.25)


def _leaf_pose(bird, latents):
    """Over the breast with room to spare, or well clear of it over tail, wing and branch."""
    dx, dy, turn = latents["leaf_x"], latents["leaf_y"], latents["leaf_angle"]
    over, clear = latents["covered"], ~latents["covered"]
    x = over * (_BREAST[0] + 0.7 * dx) + clear * (-17.0 + 5.0 * dx)
    y = over * (_BREAST[1] + 0.7 * dy) + clear * (6.0 + 8.0 * dy)
    return bird.inner(x, y, angle=over * (-158.0 + 12.0 * turn) + clear * (-95.0 + 35.0 * turn))


def _paint_leaf(canvas, bird, latents, gain):
    """A leaf on a stem that leaves the frame; its x axis runs from stem to tip."""
    shown = _leaf_shown(latents)[:, None, None].astype(np.float32)
    if not shown.any():
        return
    leaf = _leaf_pose(bird, latents)
    green = _mix(_rgb(["67a350"]), _rgb(["b0a54e"]), latents["leaf_tone"])
    length, width = _LEAF
    box, depth = canvas.line(leaf, -60.0, 0.0, -13.0, 0.0, 1.2, 0.7)
    canvas.paint(box, canvas.alpha(depth) * shown, 0.6 * green, gain)
    radius = (length**2 + width**2) / (2 * width)  # two arcs that meet in stem and tip
    box, _ = canvas.ellipse(leaf, 0.0, 0.0, length, width)
    _, above = canvas.ellipse(leaf, 0.0, radius - width, radius, radius, box=box)
    _, below = canvas.ellipse(leaf, 0.0, width - radius, radius, radius, box=box)
    inside, side = np.minimum(above, below), above - below
    light = 0.92 + 0.10 * np.clip(side / 4, -1, 1) - 0.10 * np.clip(1 - inside / 4, 0, 1)
    light += 0.22 * np.clip(1.2 - np.abs(side), 0, 1)  # the midrib
    canvas.paint(box, canvas.alpha(inside) * shown, green, light * gain)


def as_bytes(birds):
    """Pictures of birds drawn in 8 bits as (N, 3, size, size) uint8, as networks take them."""
    return np.ascontiguousarray(
        np.round(255 * birds.pictures).astype(np.uint8).transpose(0, 3, 1, 2)
    )
