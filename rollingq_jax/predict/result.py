"""What is said of a clip."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import softmax


class Result(NamedTuple):
  """A prediction, or why there is none."""

  # Name of the clip.
  clip: str
  # Name of the class; None in a regression, and without a prediction.
  label: str | None = None
  # Of that class, in [0, 1].
  probability: float | None = None
  # Of all classes.
  probabilities: dict[str, float] | None = None
  # The number, in a regression.
  value: float | None = None
  # Share of each modality in the attention that modalities get; None where the
  # fusion has no attention.
  attention_share: dict[str, float] | None = None
  # Silent sound, black frames, a missing modality.
  warnings: tuple[str, ...] = ()
  # Why there is no prediction; None: there is one.
  error: str | None = None

  def to_json(self) -> dict[str, Any]:
    """The fields that have something to say."""
    fields = {k: v for k, v in self._asdict().items() if v is not None}
    if self.error is not None:
      return {"clip": self.clip, "error": self.error}
    return fields | {"warnings": list(self.warnings)}


def make_result(
  clip: str,
  logits: Float[np.ndarray, " c"],
  shares: dict[str, float] | None,
  warnings: tuple[str, ...],
  class_names: tuple[str, ...],
) -> Result:
  """The result of a model's output for one clip.

  Args:
    clip: its name.
    logits: of the classes, or the number of a regression.
    shares: of attention.
    warnings: about the clip.
    class_names: () in a regression.
  """
  about: dict[str, Any] = {"attention_share": shares, "warnings": warnings}
  if not class_names:
    return Result(clip, value=float(logits[0]), **about)
  chances = softmax(logits.astype(np.float64))
  best = int(chances.argmax())
  return Result(
    clip,
    label=class_names[best],
    probability=float(chances[best]),
    probabilities={
      name: float(x) for name, x in zip(class_names, chances, strict=True)
    },
    **about,
  )
