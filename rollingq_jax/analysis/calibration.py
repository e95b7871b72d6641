"""Is the model as often right as it is sure?"""

from typing import Any

import numpy as np

from rollingq_jax.analysis.ranking import max_softmax

BINS = 15


def calibration(
  logits: np.ndarray, labels: np.ndarray, bins: int = BINS
) -> dict[str, Any]:
  """Expected calibration error and the bins of a reliability diagram.

  Bins of confidence, the largest class probability, are of equal width and hold
  their upper ends. The error is the mean over samples of |accuracy -
  confidence| of their bin.

  Args:
    logits: [n, c], with at least one sample.
    labels: [n].
    bins: how many.
  """
  confidence = max_softmax(logits)
  right = logits.argmax(axis=1) == labels
  edges = np.linspace(0.0, 1.0, bins + 1)
  index = np.clip(np.searchsorted(edges, confidence) - 1, 0, bins - 1)
  rows = [
    {"low": float(edges[i]), "high": float(edges[i + 1])}
    | _bin(confidence[index == i], right[index == i])
    for i in range(bins)
  ]
  gaps = [
    row["count"] * abs(row["accuracy"] - row["confidence"])
    for row in rows
    if row["count"]
  ]
  return {"ece": sum(gaps) / len(labels), "bins": rows}


def _bin(confidence: np.ndarray, right: np.ndarray) -> dict[str, Any]:
  if not len(right):
    reason = "no sample"
    return {
      "count": 0,
      "confidence": None,
      "confidence_why": reason,
      "accuracy": None,
      "accuracy_why": reason,
    }
  return {
    "count": len(right),
    "confidence": float(confidence.mean()),
    "accuracy": float(right.mean()),
  }
