"""Draw the picture of README.md and the front page: `python book/draw_cover.py`."""

from pathlib import Path

import numpy as np
from PIL import Image

from mcunc import birdwatch

SIZE, GAP = 220, 8


def main():
    """Eight birds, both sisters of four kinds, two of them under the leaf."""
    latents = birdwatch.draw_latents(400, seed=11)
    chosen = []
    for label, covered in ((0, 0), (3, 0), (4, 1), (6, 0), (7, 1), (5, 0), (2, 0), (1, 0)):
        found = (latents["label"] == label) & (latents["covered"] == bool(covered))
        chosen.append(np.flatnonzero(found)[len(chosen) % 3])
    pictures, _ = birdwatch.render(latents[chosen], size=SIZE)
    sheet = np.ones((2 * SIZE + GAP, 4 * SIZE + 3 * GAP, 3))
    for i, picture in enumerate(pictures):
        y, x = (i // 4) * (SIZE + GAP), (i % 4) * (SIZE + GAP)
        sheet[y : y + SIZE, x : x + SIZE] = picture
    image = Image.fromarray(np.round(255 * sheet).astype(np.uint8))
    image.save(Path(__file__).parent / "_static" / "birds.png", optimize=True)


if __name__ == "__main__":
    main()
