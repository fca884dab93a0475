r"""Small drawn birds with a known posterior p(species | picture), the book's running example.

Species come in pairs of sisters.  Pairs differ in plumage, bill, crest and tail, so the pair is
never in doubt.  The two sisters of a pair differ only in the hue of the breast, which is drawn from

.. math:: h \mid s \sim N(m_s, \sigma^2), \qquad
          m_s = c \mp \tfrac12\,d\,\sigma \quad (c = 35, \sigma = 20 \text{ degrees})

with :math:`d` the separation of the sisters: minus for "ruddy", plus for "golden".  Pose, light,
background and the position of the leaf are independent of the species, so they cancel in Bayes'
rule.  Species have equal priors, and the hue can be read off the pixels (`read_hue`).  Therefore

.. math:: p(s \mid x) = \begin{cases}
            N(h; m_s, \sigma^2) / \sum_{t} N(h; m_t, \sigma^2) & \text{breast open} \\
            1/2                                               & \text{breast under the leaf}
          \end{cases}

for the two sisters t, and 0 for all other species.  This is the true *aleatoric* uncertainty.  It
stays valid only if training does not change the hue: you may mirror or shift the pictures, but not
jitter their colours.  Hues lie between -130 and 200 degrees, less than a full colour circle, so
different hues have different colours.  The range extends at least six standard deviations beyond
each mean for separations up to 4, so the hue is neither truncated nor wrapped.

The module `scene` has latents, posterior and hue; `painting` has the pixels.
"""

from mcunc.birdwatch import scene
from mcunc.birdwatch.scene import *  # noqa: F403  (exactly its __all__)

__all__ = scene.__all__
