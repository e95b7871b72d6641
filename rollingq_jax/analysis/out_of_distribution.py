"""Does the model tell what it was not made for? The test split is positive."""

from typing import Any

import numpy as np

from rollingq_jax.analysis.collect import Samples
from rollingq_jax.analysis.ranking import max_softmax, negative_energy, ranking


def scores(samples: Samples, *, classes: bool) -> dict[str, np.ndarray]:
  """Scores [n] that are larger for what the model was made for.

  Args:
    samples: as collected.
    classes: whether the logits are of classes.
  """
  found = {}
  if classes:
    found["max_softmax"] = max_softmax(samples["logits"])
    found["energy"] = negative_energy(samples["logits"])
  if "entropy" in samples:
    # Attention is expected to be more even where nothing is known.
    found["attention_entropy"] = -samples["entropy"]
  return found


def out_of_distribution(
  inside: Samples, outside: dict[str, Samples], *, classes: bool
) -> list[dict[str, Any]]:
  """A row for each score and each kind of other samples.

  Args:
    inside: the test split.
    outside: other samples, by kind.
    classes: whether the logits are of classes.
  """
  own = scores(inside, classes=classes)
  others = {
    name: scores(found, classes=classes) for name, found in outside.items()
  }
  return [
    {"score": name, "against": against} | ranking(values, found[name])._asdict()
    for against, found in others.items()
    for name, values in own.items()
  ]
