"""UCI Multiple Features: six descriptions of handwritten digits.

`mfeat.npz` has a row a digit: `label` [n], and of the same picture `fac`
[n, 216] profile correlations, `fou` [n, 76] Fourier coefficients, `kar` [n, 64]
Karhunen-Loeve coefficients, `mor` [n, 6] morphological features, `pix` [n, 240]
mean pixels, 16 rows of 15, and `zer` [n, 47] Zernike moments.
"""

from typing import Any

import numpy as np

from rollingq_jax.data.datasets.divide import divide, refuse_speakers
from rollingq_jax.data.datasets.npz_file import (
  Expected,
  check_finite,
  check_range,
  check_rows,
  find_npz,
  read_npz,
)
from rollingq_jax.data.datasets.standardise import standardised
from rollingq_jax.data.source import ArraySource, Dataset

FILE = "mfeat.npz"
WIDTHS = {"fac": 216, "fou": 76, "kar": 64, "mor": 6, "pix": 240, "zer": 47}
LAYOUT = {
  **{name: Expected((None, width), "fiu") for name, width in WIDTHS.items()},
  "label": Expected((None,), "iu"),
}
CLASS_NAMES = tuple(str(digit) for digit in range(10))
NOTE = (
  "mfeat's modalities are six descriptions of one picture, not different "
  "senses; it has no published split, so test is drawn anew with each seed, as "
  "many of each digit"
)


def load(config: Any) -> Dataset:
  """The views as sequences of one feature a step, standardised by train.

  `config.seed` draws the splits.

  Raises:
    UserError: no file, one of another layout, or too few digits.
  """
  refuse_speakers(config, "mfeat", "its splits are drawn digit by digit")
  path = find_npz("mfeat", config.data.data_dir, FILE)
  arrays = read_npz(path, LAYOUT)
  check_rows(path, arrays, list(LAYOUT))
  check_finite(path, arrays, list(WIDTHS))
  check_range(path, arrays, "label", 0, len(CLASS_NAMES) - 1)
  rows = divide(str(path), arrays["label"], config.seed)
  inputs = {
    name: standardised(arrays[name], rows["train"])[..., None]
    for name in WIDTHS
  }
  inputs["label"] = arrays["label"].astype(np.int32)
  splits = {
    split: ArraySource({name: x[kept] for name, x in inputs.items()})
    for split, kept in rows.items()
  }
  return Dataset(splits, CLASS_NAMES, NOTE)
