"""What people heard in a voice and saw in a face of CREMA-D's clips.

`human_votes.npz` has a row a clip: `voice_votes` and `face_votes` [n, 6], how
many raters who only heard, or only saw, the clip chose each emotion;
`voice_levels` and `face_levels` [n, 6], the mean intensity, 0 to 100, that they
gave it, NaN where nobody chose it; `label` [n], the emotion that the actor was
asked for; `split` [n], 0 in the published train list and 1 in the test list;
`actor` [n].
"""

from pathlib import Path
from typing import Any

import numpy as np

from rollingq_jax.data.datasets.cremad import CLASS_NAMES
from rollingq_jax.data.datasets.divide import divide
from rollingq_jax.data.datasets.npz_file import (
  Arrays,
  Expected,
  check_range,
  check_rows,
  find_npz,
  read_npz,
)
from rollingq_jax.data.datasets.standardise import standardised
from rollingq_jax.data.source import ArraySource, Dataset
from rollingq_jax.errors import UserError

FILE = "human_votes.npz"
MODALITIES = ("voice", "face")
EMOTIONS = len(CLASS_NAMES)
LARGEST_LEVEL = 100
LAYOUT = {
  **{f"{m}_votes": Expected((None, EMOTIONS), "iu") for m in MODALITIES},
  **{f"{m}_levels": Expected((None, EMOTIONS), "f") for m in MODALITIES},
  "label": Expected((None,), "iu"),
  "split": Expected((None,), "biu"),
  "actor": Expected((None,), "iu"),
}

NOTE = (
  "cremad_votes is what about ten people each thought of CREMA-D's clips that "
  "they only heard (voice) or only saw (face): human ratings, not sound and "
  "picture, so no number compares with one on CREMA-D's media; {splits}"
)
SHARED = "{shared} of the {actors} actors of test are in other splits too"
DISJOINT = "no actor is in two splits, which are not the published ones"


def load(config: Any) -> Dataset:
  """The ratings of each modality as six tokens, one an emotion.

  A token is the share of the votes, the intensity (0 where nobody chose the
  emotion) and whether anybody chose it, standardised by train. `config.seed`
  chooses validation, and with `config.data.speaker_disjoint` the actors of all
  splits, as `python -m rollingq_jax.data.prepare cremad` does.

  Raises:
    UserError: no file, one of another layout, or too few actors.
  """
  arrays = _read(find_npz("cremad_votes", config.data.data_dir, FILE))
  disjoint = config.data.speaker_disjoint
  rows = divide(
    f"{FILE} (cremad_votes)",
    arrays["label"],
    config.seed,
    is_test=None if disjoint else arrays["split"] == 1,
    groups=arrays["actor"] if disjoint else None,
  )
  inputs = {name: _tokens(arrays, name) for name in MODALITIES}
  inputs = {name: standardised(x, rows["train"]) for name, x in inputs.items()}
  inputs["label"] = arrays["label"].astype(np.int32)
  splits = {
    split: ArraySource({name: x[kept] for name, x in inputs.items()})
    for split, kept in rows.items()
  }
  return Dataset(splits, CLASS_NAMES, _note(arrays["actor"], rows, disjoint))


def _note(actors: np.ndarray, rows: Arrays, disjoint: bool) -> str:
  if disjoint:
    return NOTE.format(splits=DISJOINT)
  test = np.unique(actors[rows["test"]])
  others = actors[np.concatenate([rows["train"], rows["validation"]])]
  shared = np.count_nonzero(np.isin(test, others))
  return NOTE.format(splits=SHARED.format(shared=shared, actors=len(test)))


def _tokens(arrays: Arrays, modality: str) -> np.ndarray:
  """[n, 6, 3] of share, level and flag."""
  votes = arrays[f"{modality}_votes"].astype(np.float64)
  share = votes / votes.sum(axis=1, keepdims=True)
  level = np.nan_to_num(arrays[f"{modality}_levels"]) / LARGEST_LEVEL
  return np.stack([share, level, votes > 0], axis=2)


def _read(path: Path) -> Arrays:
  arrays = read_npz(path, LAYOUT)
  check_rows(path, arrays, list(LAYOUT))
  check_range(path, arrays, "label", 0, EMOTIONS - 1)
  check_range(path, arrays, "split", 0, 1)
  for modality in MODALITIES:
    _check_ratings(path, arrays, modality)
  return arrays


def _check_ratings(path: Path, arrays: Arrays, modality: str) -> None:
  votes, levels = arrays[f"{modality}_votes"], arrays[f"{modality}_levels"]
  voted = (votes >= 0).all(axis=1) & (votes.sum(axis=1) > 0)
  if not voted.all():
    row = int(np.argmin(voted))
    raise UserError(
      f"'{modality}_votes' of {path} is {votes[row].tolist()} in row {row}; "
      "expected numbers of raters, one rater at least"
    )
  inside = (levels >= 0) & (levels <= LARGEST_LEVEL)
  known = np.where(votes > 0, inside, inside | np.isnan(levels)).all(axis=1)
  if not known.all():
    row = int(np.argmin(known))
    raise UserError(
      f"'{modality}_levels' of {path} is {levels[row].tolist()} in row {row}; "
      f"expected 0 to {LARGEST_LEVEL}, or NaN where nobody chose the emotion"
    )
