"""Classes of a sentiment in [-3, 3], as CMU-MOSI and CMU-MOSEI give it."""

import numpy as np

from rollingq_jax.errors import UserError

LARGEST = 3
CLASS_NAMES = {
  2: ("negative", "non-negative"),
  3: ("negative", "neutral", "positive"),
  7: ("-3", "-2", "-1", "0", "1", "2", "3"),
}


def name_classes(num_classes: int) -> tuple[str, ...]:
  """Names of the classes.

  Raises:
    UserError: a number of classes that has no definition.
  """
  if num_classes not in CLASS_NAMES:
    raise UserError(
      f"config.num_classes is {num_classes}; sentiment has 2 classes (negative "
      "or not), 3 (cuts at -.5 and .5) or 7 (rounded)"
    )
  return CLASS_NAMES[num_classes]


def sentiment_classes(sentiment: np.ndarray, num_classes: int) -> np.ndarray:
  """Classes int32 of sentiments.

  - 2: negative (below 0), non-negative;
  - 3: negative (below -.5), neutral, positive (above .5);
  - 7: clipped to [-3, 3] and rounded, halves to the even number.

  Raises:
    UserError: another number of classes.
  """
  name_classes(num_classes)
  if num_classes == 2:
    return (sentiment >= 0).astype(np.int32)
  if num_classes == 3:
    return (sentiment >= -0.5).astype(np.int32) + (sentiment > 0.5)
  clipped = np.clip(sentiment, -LARGEST, LARGEST)
  return (np.round(clipped) + LARGEST).astype(np.int32)


def sentiment_targets(
  sentiment: np.ndarray, num_classes: int
) -> dict[str, np.ndarray]:
  """What a sample has of it: `target`, itself, and `label`, its class.

  Args:
    sentiment: in [-3, 3].
    num_classes: 0 for no label.
  """
  target = {"target": sentiment.astype(np.float32)}
  if not num_classes:
    return target
  return target | {"label": sentiment_classes(sentiment, num_classes)}


def find_out_of_range(sentiment: np.ndarray) -> int | None:
  """The first row that is no number in [-3, 3]."""
  # NaN is none either.
  wrong = np.flatnonzero(~(np.abs(sentiment) <= LARGEST))
  return int(wrong[0]) if len(wrong) else None
