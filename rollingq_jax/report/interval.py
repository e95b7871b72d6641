"""How far a share of samples may be off."""

import math

from rollingq_jax.report.content import Number

# 97.5 % of the normal distribution lie below.
_Z = 1.959963984540054


def wilson(share: Number, count: int) -> tuple[float, float]:
  """Wilson's 95 % interval of a share of independent samples.

  Args:
    share: in [0, 1].
    count: of all samples, above 0.
  """
  weight = _Z**2 / count
  centre = (share + weight / 2) / (1 + weight)
  spread = share * (1 - share) / count + weight / (4 * count)
  half = _Z * math.sqrt(spread) / (1 + weight)
  return max(0.0, centre - half), min(1.0, centre + half)
