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

`scene` holds latents, posterior and hue, `painting` the pixels.
"""

from mcunc.birdwatch import scene
from mcunc.birdwatch.scene import *  # noqa: F403  (exactly its __all__)

__all__ = scene.__all__
