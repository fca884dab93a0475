"""Paint the pictures of birdwatch: shapes with soft edges, from back to front.

All arithmetic is elementwise on (birds, rows, columns), so a picture is identical to the last bit
whichever others are drawn with it.  Birds are drawn facing right and mirrored at the end.  Lengths
are in pixels of a 64-pixel picture.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

__all__ = ["BLOBS", "PAIRS", "UNSEEN_PAIRS", "paint"]

# Appearance of each pair: colours of body, belly, wing, cap, cheek and bill; then, in pixels of a
# 64-pixel picture, length and depth of the bill, length of the tail, its angle in degrees, height
# of the crest and fork of the tail; and the size of the cap.
_COLOURS = ("body", "belly", "wing", "cap", "cheek", "bill")
_SIZES = ("bill_length", "bill_depth", "tail_length", "tail_angle", "crest", "fork", "hood")
PAIRS = {
    "chickadee": ("93a7b8 f5efe2 566a80 22252e fbf8f0 33343a", 4.2, 2.8, 15, -16, 0, 0, 1.0),
    "finch": ("8f8e55 efe7c4 5a5831 75858f a9a66c e0b26c", 5.4, 6.2, 13, -8, 0, 1, 0.7),
    "jay": ("6d89cb e9eef7 3a55a0 3f5cb0 e6edf8 23262f", 6.2, 3.6, 19, -20, 9, 0, 0.8),
    "wren": ("a0765a efe0c8 6d4a30 7b5236 f2e4cc 5a4433", 7.4, 2.2, 15, 34, 0, 0, 0.6),
    "swallow": ("33567a f7f1e8 1f3450 1d3049 33567a 22252e", 3.6, 2.8, 20, -12, 0, 2, 0.6),
    "waxwing": ("b89e8a f1e7cd 7c6f6c a3836d 3a3034 2d2b2e", 4.4, 3.4, 14, -18, 6, 0, 0.8),
}
UNSEEN_PAIRS = {
    "kingfisher": ("24a6b3 f9f3e6 137d95 0f6f8c f4f4ee 2a2c33", 12.0, 3.8, 8, -14, 4, 0, 1.0),
    "dove": ("e4dedd fbf7f3 bfb5b6 d9d0d2 efe9e8 c9786c", 4.6, 2.8, 18, -14, 0, 0, 0.3),
}
BLOBS = 9  # number of blobs of foliage in the background
_BREAST = (8.9, 2.4)  # its centre, bill to the right
_LEAF = (15.0, 9.8)  # half length and half width, enough to hide the breast and its soft edge


def paint(latents, size):
    """Draw pictures and masks, in several threads if possible.

    `scene.render` describes and checks the arguments, and describes the results.

    Examples
    --------
    >>> from mcunc.birdwatch import painting, scene
    >>> pictures, masks = painting.paint(scene.draw_latents(2), 64)
    >>> pictures.shape
    (2, 64, 64, 3)
    """
    pictures = np.empty((len(latents), size, size, 3), np.float32)
    masks = np.empty((len(latents), size, size), bool)
    chunk = max(1, 96 * 64**2 // size**2)  # small enough for the processor's cache
    # birds with the leaf in similar positions share a chunk, so that little is painted in vain
    order = np.argsort(latents["covered"] + 1.0 * _leaf_shown(latents), kind="stable")
    parts = [order[start : start + chunk] for start in range(0, len(latents), chunk)]

    def draw(part):
        pictures[part], masks[part] = _paint_chunk(latents[part], size)

    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # numpy lets go of the lock as it paints
            list(pool.map(draw, parts))
    except RuntimeError:  # no more threads available, or none at all, as in a browser
        list(map(draw, parts))
    return pictures, masks


def _paint_chunk(latents, size):
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
    """The traits of each bird's pair: a dict of arrays with one value per bird."""
    codes, *sizes = zip(*PAIRS.values(), *UNSEEN_PAIRS.values(), strict=True)
    colours = zip(*(code.split() for code in codes), strict=True)
    traits = {name: _rgb(column)[pair] for name, column in zip(_COLOURS, colours, strict=True)}
    columns = zip(_SIZES, sizes, strict=True)
    return traits | {name: np.array(column, float)[pair] for name, column in columns}


def _rgb(codes):
    """(n, 3) float32 colours from hexadecimal codes."""
    return np.array([[int(c[i : i + 2], 16) / 255 for i in (0, 2, 4)] for c in codes], np.float32)


def _hue_colour(hue):
    """(n, 3) colours of the breast: HSV with saturation 0.8 and value 0.93."""
    k = (np.array([5.0, 3.0, 1.0]) + np.asarray(hue)[:, None] / 60) % 6
    return (0.93 * (1 - 0.8 * np.clip(np.minimum(k, 4 - k), 0, 1))).astype(np.float32)


def _mix(a, b, weight):
    """Colours between `a` and `b`, one weight per bird."""
    return a + (b - a) * np.float32(weight)[..., None]


class _Pose:
    """A frame of reference per bird: its position in the picture, scale and rotation."""

    def __init__(self, x, y, scale, angle):
        self.x, self.y, self.scale, self.angle = np.broadcast_arrays(x, y, scale, np.radians(angle))

    def place(self, x, y):
        """Positions in the picture of points given in this frame."""
        cos, sin = self.scale * np.cos(self.angle), self.scale * np.sin(self.angle)
        return self.x + cos * x - sin * y, self.y + sin * x + cos * y

    def inner(self, x, y, angle=0.0):
        """The frame at a point of this one, turned by `angle` degrees."""
        return _Pose(*self.place(x, y), self.scale, np.degrees(self.angle) + angle)


class _Canvas:
    """A chunk of pictures, painted back to front.

    A shape is a box, the slices that contain it, and its depth in the box: the distance to the edge
    in pixels of a 64-pixel picture, positive inside.
    """

    def __init__(self, n, size):
        self.pixel = 64 / size
        self.planes = np.empty((3, n, size, size), np.float32)
        self.axis = (np.arange(size) + 0.5) * self.pixel
        self.whole = (slice(None), slice(0, size), slice(0, size))

    def box(self, x, y, reach_x, reach_y):
        """Slices around centres x, y that also contain soft edges."""
        size, margin = len(self.axis), 2.0

        def span(centre, reach):
            low = int(((centre - reach).min() - margin) / self.pixel)
            high = int(((centre + reach).max() + margin) / self.pixel) + 1
            return slice(min(max(low, 0), size), min(max(high, 0), size))

        return slice(None), span(y, reach_y), span(x, reach_x)

    def plane(self, box, x, y, a, b):
        """a (column - x) + b (row - y) over the box."""
        across = np.multiply.outer(a, self.axis[box[2]]) - (a * x)[:, None]
        down = np.multiply.outer(b, self.axis[box[1]]) - (b * y)[:, None]
        return across.astype(np.float32)[:, None, :] + down.astype(np.float32)[:, :, None]

    def ellipse(self, pose, x, y, a, b, angle=0.0, box=None):
        """Box (or the one passed) and approximate depth of an ellipse with semi-axes a, b."""
        x, y = pose.place(x, y)
        a, b, turn = pose.scale * a, pose.scale * b, pose.angle + np.radians(angle)
        cos, sin = np.cos(turn), np.sin(turn)
        box = box or self.box(x, y, np.hypot(a * cos, b * sin), np.hypot(a * sin, b * cos))
        # (u / a)^2 + (v / b)^2 with the square completed in the columns: fewer passes
        xx, yy = (cos / a) ** 2 + (sin / b) ** 2, (sin / a) ** 2 + (cos / b) ** 2
        xy = cos * sin * (a**-2.0 - b**-2.0)
        q = self.plane(box, x, y, np.sqrt(xx), xy / np.sqrt(xx))
        q *= q
        rest = (yy - xy**2 / xx)[:, None] * np.subtract.outer(-y, -self.axis[box[1]]) ** 2
        q += rest.astype(np.float32)[:, :, None]
        np.subtract(1, q, out=q)
        q *= (np.sqrt(a * b) / 2).astype(np.float32)[:, None, None]
        return box, q

    def polygon(self, pose, *points):
        """Box and depth of a convex polygon with points in clockwise order on the screen.

        Tips must be blunt, because the soft edge of a sharp tip would extend beyond the box.
        """
        corners = [np.broadcast_arrays(*pose.place(x, y)) for x, y in points]
        x, y = (np.stack(values) for values in zip(*corners, strict=True))
        middle_x, middle_y = (x.max(0) + x.min(0)) / 2, (y.max(0) + y.min(0)) / 2
        box = self.box(middle_x, middle_y, np.ptp(x, axis=0) / 2, np.ptp(y, axis=0) / 2)
        depth = np.float32(np.inf)
        for k in range(len(points)):
            dx, dy = x[k] - x[k - 1], y[k] - y[k - 1]
            length = np.hypot(dx, dy)
            depth = np.minimum(depth, self.plane(box, x[k], y[k], -dy / length, dx / length))
        return box, depth

    def line(self, pose, x0, y0, x1, y1, w0, w1):
        """Box and depth of a straight stroke whose half-width tapers from w0 to w1."""
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

    def fill(self, shape, colour, light=1.0, softness=0.0, opacity=1.0):
        """Paint a shape; return its box and its opacity.

        Colours are per bird.  Light and opacity are per bird or, as whole planes, per pixel.
        """
        box, depth = shape
        alpha = self.alpha(depth, softness) * self._part(opacity, box)
        self.lay(box, alpha, colour, self._part(light, box))
        return box, alpha

    def _part(self, values, box):
        return values[box] if np.shape(values)[1:] == self.planes.shape[2:] else values

    def lay(self, box, alpha, colour, light=1.0):
        """Lay one colour per bird over the planes; an opacity of 1 hides all beneath exactly."""
        view = self.planes[(slice(None), *box)]
        view *= 1 - alpha
        view += (alpha * light) * colour.T[:, :, None, None]


def _paint_background(canvas, random, gain):
    """Paint a sky gradient and blurred foliage, on 4-pixel cells enlarged by cubic splines."""
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
    tones = np.linspace(0, 1, len(foliage))
    for x, y, radius, tone in random[:, 2:].reshape(len(random), BLOBS, 4).transpose(1, 2, 0):
        q = (centres - 70 * x[:, None] + 3)[:, None, :] ** 2
        q = q + (centres - 70 * y[:, None] + 3)[:, :, None] ** 2
        alpha = 0.75 * np.clip(1.3 - q / (6 + 16 * radius[:, None, None]) ** 2, 0, 1)
        shade = np.float32([np.interp(tone, tones, channel) for channel in foliage.T])
        cells += alpha * (shade[:, :, None, None] - cells)
    t = np.abs(canvas.axis[:, None] - centres) / 4
    spline = np.where(t < 1, 2 / 3 - t**2 + t**3 / 2, np.clip(2 - t, 0, None) ** 3 / 6)
    spline = (spline / spline.sum(axis=1, keepdims=True)).astype(np.float32)
    # one small product per picture and colour, so that chunks do not matter
    np.matmul(spline @ cells, spline.T, out=canvas.planes)
    canvas.planes *= gain


def _paint_branch(canvas, latents, gain):
    slope = np.radians(latents["branch"])
    x, y = latents["x"], latents["y"] + 21.0 * latents["scale"]
    box = canvas.box(x, y, 64.0, 3.0 + 35.0 * np.tan(np.abs(slope)))
    below = canvas.plane(box, x, y, -np.sin(slope), np.cos(slope))
    bark = 0.95 - 0.12 * below - 0.12 * np.clip(2 - 3 * np.abs(below - 0.8), 0, 1)  # a crack
    canvas.lay(box, canvas.alpha(3.0 - np.abs(below), 1.3), _rgb(["7a5f47"]), bark * gain)
    branch = _Pose(x, y, 1.0, latents["branch"])
    for along in (-17.0, 15.0):
        knot = canvas.ellipse(branch, along, 0.6, 2.4, 0.9)
        canvas.fill(knot, _rgb(["463425"]), gain, opacity=0.6)


def _paint_tail(canvas, bird, traits, gain):
    """Paint the tail and the legs, which the body overlaps."""
    length, colour = traits["tail_length"], traits["wing"]
    root = bird.inner(-10.0, 8.5, angle=traits["tail_angle"])  # its x axis runs to the bill
    for spread, shade in ((1, 0.78), (-1, 1.0)):
        tip = spread * (0.8 + 1.3 * traits["fork"])
        half = canvas.line(root, 4.0, 0.0, -length, tip, 3.0, 2.3 - 0.7 * traits["fork"])
        canvas.fill(half, colour, 0.9 * shade * gain)
    seam = canvas.line(root, 0.0, 0.0, 1.0 - length, -0.6 * tip, 0.3, 0.3)
    canvas.fill(seam, 0.5 * colour, gain, opacity=0.45)
    for x, shade in ((5.5, 0.75), (0.5, 1.0)):
        leg, foot = (x, 13.0, x + 0.5, 18.8, 0.75, 0.6), (x - 0.6, 18.9, x + 3.2, 18.9, 0.7, 0.5)
        for stroke in (leg, foot):
            canvas.fill(canvas.line(bird, *stroke), _rgb(["6b4a3a"]), shade * gain)


def _paint_body(canvas, bird, traits, direction, gain):
    """Paint body, head and crest; return the silhouette's opacity and its light, as planes."""
    back, top = 1.5 - traits["crest"], -16.0 - 0.55 * traits["crest"]
    points = (3.0, -11.0), (back - 0.3, top + 0.4), (back + 0.4, top - 0.4), (11.0, -16.0)
    crested = (traits["crest"] > 0)[:, None, None].astype(np.float32)
    canvas.fill(canvas.polygon(bird, *points), traits["cap"], gain, opacity=crested)
    # the whole plane is the box, as the wing, the face and the breast are laid over these
    body = canvas.ellipse(bird, -1.5, 4.5, 15.0, 11.0, -30.0, box=canvas.whole)[1]
    head = canvas.ellipse(bird, 8.0, -9.0, 8.4, 7.9, -10.0, box=canvas.whole)[1]
    blend = np.clip((head - body) / 10 + 0.5, 0, 1)  # a smooth union: no crease at the neck
    depth = body + (head - body) * blend + 5 * blend * (1 - blend)
    turn = np.radians(direction) + bird.angle
    sun = canvas.plane(canvas.whole, *bird.place(1.0, 0.0), np.sin(turn), -np.cos(turn)) / 20
    rim = np.clip(1 - depth / 5.5, 0, 1)
    light = np.clip(0.92 + 0.14 * sun - 0.22 * rim * rim * (1 - sun), 0.45, 1) * gain
    _, silhouette = canvas.fill((canvas.whole, depth), traits["body"], light)
    belly = canvas.ellipse(bird, 1.5, 9.0, 11.5, 7.5, -25.0)
    canvas.fill(belly, traits["belly"], light, softness=3.0, opacity=silhouette)
    return silhouette, light


def _paint_wing(canvas, bird, traits, light):
    wing, colour = bird.inner(-6.0, 3.2, angle=-27.0), traits["wing"]
    shadow = canvas.ellipse(wing, -0.8, 0.9, 11.0, 5.8)
    canvas.fill(shadow, 0.35 * colour, light, softness=2.5, opacity=0.35)
    feathers = ((2.6, 2.9, 9.5, 0.62), (1.5, 1.6, 12.0, 0.76), (0.3, 0.1, 14.0, 0.92))
    for y0, y1, length, shade in feathers:  # the flight feathers
        canvas.fill(canvas.line(wing, 4.0, y0, -length, y1, 2.2, 0.3), shade * colour, light)
    for x, a, b, weight in ((1.2, 6.6, 4.6, 0.75), (2.0, 6.4, 4.5, 0.18)):
        feather = canvas.ellipse(wing, x, -0.4, a, b)  # a pale bar behind the coverts
        canvas.fill(feather, _mix(colour, traits["belly"], weight), light)


def _paint_face(canvas, bird, traits, silhouette, light):
    cheek = canvas.ellipse(bird, 10.5, -7.2, 5.0, 3.6, -10.0)
    canvas.fill(cheek, traits["cheek"], light, softness=1.5, opacity=silhouette)
    cap = canvas.ellipse(bird, 6.5, -14.5, 9.5, 5.6 * traits["hood"], 14.0)
    canvas.fill(cap, traits["cap"], light, softness=1.2, opacity=silhouette)
    tip, half = 14.8 + traits["bill_length"], traits["bill_depth"] / 2
    for top, bottom, shade in ((-half, half, 1.0), (0.0, half, 0.72)):  # the lower half darker
        points = (14.4, top - 8.9), (tip, 0.1 * top - 8.8), (tip, -8.3), (14.4, bottom - 8.9)
        canvas.fill(canvas.polygon(bird, *points), traits["bill"], shade * light)
    eye = bird.inner(11.2, -10.6)
    ring, iris, glint = (0, 2.2, "efe6d6", 0.35), (0, 1.75, "17130f", 1), (0.65, 0.62, "ffffff", 1)
    for shift, radius, code, opacity in (ring, iris, glint):
        disc = canvas.ellipse(eye, shift, -shift, radius, radius)
        canvas.fill(disc, _rgb([code]), opacity=opacity)


def _paint_breast(canvas, bird, hue, silhouette, light):
    """Paint the part that distinguishes sisters; only the leaf is painted over it."""
    breast = canvas.ellipse(bird, *_BREAST, 5.2, 6.6, 14.0)
    box, alpha = canvas.fill(breast, _hue_colour(hue), light, opacity=silhouette)
    mask = np.zeros(light.shape, bool)
    mask[box] = alpha > 0
    return mask


def _leaf_shown(latents):
    return latents["covered"] | (latents["leaf"] > 0.25)


def _paint_leaf(canvas, bird, latents, gain):
    """Paint a leaf on a stem that extends beyond the frame; its x axis runs from stem to tip."""
    shown = _leaf_shown(latents)[:, None, None].astype(np.float32)
    if not shown.any():
        return
    # It hides the breast with a margin, or lies well away from it over tail, wing and branch.
    dx, dy, turn = latents["leaf_x"], latents["leaf_y"], latents["leaf_angle"]
    over, clear = latents["covered"], ~latents["covered"]
    x = over * (_BREAST[0] + 0.7 * dx) + clear * (-17.0 + 5.0 * dx)
    y = over * (_BREAST[1] + 0.7 * dy) + clear * (6.0 + 8.0 * dy)
    leaf = bird.inner(x, y, over * (-158.0 + 12.0 * turn) + clear * (-95.0 + 35.0 * turn))
    green = _mix(_rgb(["67a350"]), _rgb(["b0a54e"]), latents["leaf_tone"])
    length, width = _LEAF
    stem = canvas.line(leaf, -60.0, 0.0, -13.0, 0.0, 1.2, 0.7)
    canvas.fill(stem, 0.6 * green, gain, opacity=shown)
    radius = (length**2 + width**2) / (2 * width)  # two arcs that meet in stem and tip
    box, _ = canvas.ellipse(leaf, 0.0, 0.0, length, width)
    _, above = canvas.ellipse(leaf, 0.0, radius - width, radius, radius, box=box)
    _, below = canvas.ellipse(leaf, 0.0, width - radius, radius, radius, box=box)
    inside, side = np.minimum(above, below), above - below
    light = 0.92 + 0.10 * np.clip(side / 4, -1, 1) - 0.10 * np.clip(1 - inside / 4, 0, 1)
    light += 0.22 * np.clip(1.2 - np.abs(side), 0, 1)  # the midrib
    canvas.lay(box, canvas.alpha(inside) * shown, green, light * gain)
