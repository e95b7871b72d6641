"""A few test samples as the model saw them, and what it looked at."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import softmax

from rollingq_jax.analysis.collect import Samples
from rollingq_jax.analysis.restore import Trained
from rollingq_jax.data.audio import time_axis
from rollingq_jax.data.dropout import without
from rollingq_jax.data.pipeline import evaluation_batches
from rollingq_jax.models.encoders import patch_grid
from rollingq_jax.models.frames import DEVIATION, MEAN, input_of
from rollingq_jax.models.token_quality import STRIDE

COUNT = 24

Batch = dict[str, Any]
Arrays = dict[str, np.ndarray]


def browse(
  trained: Trained, samples: Samples, count: int = COUNT
) -> tuple[dict[str, Any], Arrays]:
  """What browser.json says and the arrays of browser.npz.

  Args:
    trained: run and parameters.
    samples: of the test split, as collected.
    count: at most so many, half of them wrong where there are as many.
  """
  run = trained.run
  rows = chosen_rows(samples, count)
  batch = samples_at(trained, rows)
  apply = jax.jit(run.model.apply)
  variables = jax.device_get(trained.state.variables)
  output: Any = jax.device_get(apply(variables, batch))
  names = tuple(run.config.modalities)
  lacking = {
    name: jax.device_get(apply(variables, without(batch, name, names))).logits
    for name in names
    if len(names) > 1
  }
  layouts = {
    name: layout(run.config, name, batch[name].shape) for name in names
  }
  seen = token_attention(output, run.streams, layouts)
  about: dict[str, Any] = {
    "samples": [
      _sample(samples, index, row, output, lacking)
      for index, row in enumerate(rows.tolist())
    ],
    "class_names": list(run.dataset.class_names),
    "modalities": layouts,
  }
  missing = [name for name in names if name not in seen]
  if missing:
    about["attention_why"] = (
      f"no attention over the tokens of {', '.join(missing)} alone"
    )
  arrays = {name: shown(run.config, batch, name) for name in names}
  arrays |= {f"{name}_attention": x for name, x in seen.items()}
  masks = {f"{name}_mask" for name in names} & batch.keys()
  return about, arrays | {name: batch[name] for name in sorted(masks)}


def chosen_rows(samples: Samples, count: int) -> np.ndarray:
  """Rows of right and of wrong samples, each spread over the split.

  In a regression, rows spread over the split.
  """
  rows = samples["row"]
  if "label" not in samples:
    return _spread(rows, count)
  right = samples["logits"].argmax(axis=1) == samples["label"]
  wrong = _spread(rows[~right], max(count // 2, count - int(right.sum())))
  return np.sort(
    np.concatenate([wrong, _spread(rows[right], count - len(wrong))])
  )


def samples_at(trained: Trained, rows: Sequence[int] | np.ndarray) -> Batch:
  """Test samples of some rows, corrupted as they are tested, on the host."""
  run = trained.run
  config = run.config.copy_and_resolve_references()
  config.data.length_buckets = 1
  batches = evaluation_batches(
    run.dataset.splits["test"], config, device_count=run.mesh.size
  )
  size = len(batches[0]["mask"])  # pyright: ignore
  picked = []
  for row in rows:
    batch: Any = batches[int(row) // size]
    picked.append({name: x[int(row) % size] for name, x in batch.items()})
  return {name: np.stack([x[name] for x in picked]) for name in picked[0]}


def layout(config: Any, name: str, shape: Sequence[int]) -> dict[str, Any]:
  """Kind of a modality and how its tokens, in order, lie on its input.

  Of a spectrogram `tokens` are frequencies x times, and `patch` is the size of
  one where what fills none is left out; `time` is the time axis of its array.

  Args:
    config: of the run.
    name: of the modality.
    shape: of the input, samples first.
  """
  encoder = config.model.encoders[name]
  if encoder.kind == "text":
    return {"kind": "text", "tokens": [1, shape[1]]}
  if encoder.kind == "sequence":
    length = math.ceil(shape[1] / encoder.frames_per_token)
    return {"kind": "sequence", "tokens": [1, length]}
  if encoder.kind == "spectrogram":
    patch = tuple(encoder.patch_size)
    grid = patch_grid(shape[2], shape[1], patch)
    return _spectrogram(grid, 1, time_axis(shape[1:]), patch)
  is_image = len(shape) == 5
  size = _frame_size(config, name, shape) if is_image else tuple(shape[1:3])
  if encoder.kind == "patches":
    grid = patch_grid(size[0], size[1], tuple(encoder.patch_size))
    return {"kind": "image", "tokens": [shape[1], *grid]}
  grid = tuple(math.ceil(x / STRIDE) for x in size)
  if is_image:
    return {"kind": "image", "tokens": [shape[1], *grid]}
  return _spectrogram(grid, 0, time_axis(shape[1:]))


def token_attention(
  output: Any, streams: Sequence[str], layouts: dict[str, dict[str, Any]]
) -> Arrays:
  """Attention [n, tokens] of the last layer, adding up to each share.

  The mean over heads; a modality's class token is left out. Modalities whose
  tokens the attention does not see one by one are not in it.
  """
  if output.aux is None:
    return {}
  attention = output.aux.attention.mean(axis=1)
  lengths = [keys.shape[1] for keys in output.aux.keys]
  starts = 1 + np.cumsum([0, *lengths])
  found = {}
  for name, start, length in zip(streams, starts, lengths, strict=False):
    if name not in layouts or length != math.prod(layouts[name]["tokens"]) + 1:
      continue
    own = attention[:, start + 1 : start + length]
    share = output.aux.attention_share[name][:, None]
    total = own.sum(axis=1, keepdims=True)
    own = own * share / np.where(total > 0, total, 1.0)
    found[name] = _by_frequency(own, layouts[name]).astype(np.float32)
  return found


def shown(config: Any, batch: Batch, name: str) -> np.ndarray:
  """A modality's input; frames as bytes, each sample's range stretched.

  Frames that came as bytes have their own colours.
  """
  values = batch[name]
  if values.ndim < 5:
    return values
  if values.dtype == np.uint8:
    size = _frame_size(config, name, values.shape)
    own = {k: jnp.asarray(x) for k, x in batch.items() if k.startswith(name)}
    seen = np.asarray(input_of(own, name, jnp.float32, size))
    return _bytes(seen * np.array(DEVIATION) + np.array(MEAN))
  axes = tuple(range(1, values.ndim))
  low = values.min(axis=axes, keepdims=True)
  reach = values.max(axis=axes, keepdims=True) - low
  return _bytes((values - low) / np.where(reach > 0, reach, 1.0))


def _sample(
  samples: Samples, index: int, row: int, output: Any, lacking: Arrays
) -> dict[str, Any]:
  key = "label" if "label" in samples else "target"
  found = {"row": row, "label": samples[key][row].item()}
  found |= _prediction(output.logits[index], key)
  found["without"] = {
    name: _prediction(logits[index], key) for name, logits in lacking.items()
  }
  shares = {} if output.aux is None else output.aux.attention_share
  found["share"] = {name: float(x[index]) for name, x in shares.items()}
  return found


def _prediction(logits: np.ndarray, key: str) -> dict[str, Any]:
  if key == "target":
    return {
      "prediction": float(logits[0]),
      "probability": None,
      "probability_why": "a number has no probability",
    }
  chances = softmax(logits.astype(np.float64))
  return {
    "prediction": int(chances.argmax()),
    "probability": float(chances.max()),
  }


def _spectrogram(
  grid: Sequence[int],
  row_axis: int,
  time: int,
  patch: Sequence[int] | None = None,
) -> dict[str, Any]:
  """Layout of a spectrogram that the model has cut into rows and columns.

  Args:
    grid: rows and columns of tokens, which come row by row.
    row_axis: axis of the array that the rows lie along.
    time: axis of the array that is time.
    patch: size of a token along rows and columns, where there are patches.
  """
  by_time = row_axis == time
  turn = -1 if by_time else 1
  facts = {"kind": "spectrogram", "tokens": list(grid[::turn]), "time": time}
  facts |= {"patch": list(patch[::turn])} if patch else {}
  return facts | ({"by": "time"} if by_time else {})


def _by_frequency(values: np.ndarray, where: dict[str, Any]) -> np.ndarray:
  """Tokens of a spectrogram row by row, the lowest frequency first."""
  if "by" not in where:
    return values
  rows, columns = where["tokens"]
  turned = values.reshape(-1, columns, rows).transpose(0, 2, 1)
  return turned.reshape(len(values), -1)


def _frame_size(
  config: Any, name: str, shape: Sequence[int]
) -> tuple[int, int]:
  """Height and width of what the model sees of a frame."""
  if name in config.data.shapes and len(config.data.shapes[name]) == 4:
    height, width = config.data.shapes[name][1:3]
    return height, width
  return shape[2], shape[3]


def _spread(rows: np.ndarray, count: int) -> np.ndarray:
  places = np.linspace(0, len(rows) - 1, min(count, len(rows)))
  return rows[places.round().astype(int)]


def _bytes(values: np.ndarray) -> np.ndarray:
  return np.round(255 * np.clip(values, 0.0, 1.0)).astype(np.uint8)
