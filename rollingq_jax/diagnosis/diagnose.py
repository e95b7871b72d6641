"""Looks for modality bias in any model's attention, and changes nothing.

    AIR_m   = cos_m - mean of the other modalities' cos, cos_m = E[cos(q, k^m)]
    share_m = E[softmax(scale q k) on modality m / on all modalities]
    key gap = |E[k^m] - E[k^n]|, the mean over pairs of modalities

The first is `attention_imbalance_rate`, over the samples that are given; q sees
the keys that its mask shows, and k^m is the mean of those of modality m.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from rollingq_jax.diagnosis.inputs import (
  AttentionInput,
  Ids,
  Queries,
  as_ids,
  as_layer,
  modality_names,
)
from rollingq_jax.diagnosis.measure import measure
from rollingq_jax.shapes import Float


class Diagnosis(NamedTuple):
  """What `diagnose` found in L layers of h heads, about M modalities.

  Printed, it is a table. AIR, cosines, gap and norm are NaN in a layer in which
  one of the modalities is never seen.
  """

  layers: tuple[str, ...]
  modalities: tuple[str, ...]
  # Attention imbalance rate, in [-2, 2].
  air: Float[np.ndarray, "L h M"]
  # Share of each modality in the attention that modalities get; sums to 1.
  share: Float[np.ndarray, "L h M"]
  # E[cos(q, k^m)], in [-1, 1].
  cosine_means: Float[np.ndarray, "L h M"]
  # Distance of the modalities' mean keys, in the unit of the keys.
  key_gap: Float[np.ndarray, "L h"]
  # Mean length of the modalities' mean keys, in the same unit.
  key_norm: Float[np.ndarray, "L h"]
  # Share of each modality in the tokens seen: what it gets of a zero query.
  token_share: Float[np.ndarray, "L M"]

  @property
  def relative_key_gap(self) -> Float[np.ndarray, "L h"]:
    """Key gap in units of the mean keys' length; comparable between layers."""
    return np.divide(
      self.key_gap,
      self.key_norm,
      out=np.full_like(self.key_gap, np.nan),
      where=self.key_norm > 0,
    )

  def rows(self) -> list[dict[str, Any]]:
    """One a layer and head, flat: for csv, pandas or sorting."""
    return [
      {"layer": layer, "head": head}
      | self._named("air", self.air[index, head])
      | self._named("share", self.share[index, head])
      | self._named("token_share", self.token_share[index])
      | self._named("cosine", self.cosine_means[index, head])
      | {
        "key_gap": float(self.key_gap[index, head]),
        "relative_key_gap": float(self.relative_key_gap[index, head]),
      }
      for index, layer in enumerate(self.layers)
      for head in range(self.air.shape[1])
    ]

  def _named(self, name: str, values: np.ndarray) -> dict[str, float]:
    pairs = zip(self.modalities, values, strict=True)
    return {f"{name}/{modality}": float(value) for modality, value in pairs}

  def __str__(self) -> str:
    from rollingq_jax.diagnosis.table import as_text

    return as_text(self.rows(), self.modalities)

  def plot(self) -> Any:
    """A matplotlib Figure: AIR, share and relative key gap over the layers.

    Raises:
      UserError: no matplotlib.
    """
    from rollingq_jax.diagnosis.figure import draw

    return draw(self)


def diagnose(
  attention_inputs: Mapping[str, AttentionInput],
  modality_ids: Ids,
  *,
  names: Sequence[str] | None = None,
  queries: Queries = -1,
  scale: float | None = None,
) -> Diagnosis:
  """AIR, attention share and key gap of each layer and head.

      print(diagnose({"layer 3": (query, key)}, [0] * 64 + [1] * 20))

  Args:
    attention_inputs: name of a layer -> (query, key) or (query, key, mask), as
      the softmax sees them: after norms and rotary embedding. Query
      [batch, q, heads, d] or [batch, heads, d], key [batch, n, heads, d] or of
      fewer heads (grouped-query attention), mask [batch, n], [batch, q, n] or
      [batch, 1, q, n], True where a key is seen. All layers have the same
      heads. `capture_attention` gets them out of Flax linen models.
    modality_ids: modality of each key, 0 to M - 1, [n] or [batch, n]; negative
      for what is not counted, such as padding and special tokens.
    names: of the modalities, in the order of their ids.
    queries: which queries of a sample are looked at. -1, the last one, makes a
      decoder's prediction; 0 is where most encoders have their class token. A
      slice, None for all, or a position for each sample [batch], such as
      `lengths - 1` where inputs are padded at their end.
    scale: of the scores; None for 1 / sqrt(d).

  Returns:
    A `Diagnosis`: arrays, `rows()`, `print(...)` for a table, `plot()`.

  Raises:
    ValueError: fewer than two modalities, or arrays that do not belong
      together; the message names the layer.
  """
  if not attention_inputs:
    raise ValueError("diagnose needs at least one layer; it was given none")
  ids = as_ids(modality_ids)
  modalities = modality_names(ids, names)
  layers = [
    as_layer(name, given, ids, queries)
    for name, given in attention_inputs.items()
  ]
  heads = [layer.query.shape[2] for layer in layers]
  if len(set(heads)) > 1:
    named = dict(zip(attention_inputs, heads, strict=True))
    raise ValueError(
      f"the layers differ in their heads: {named}; diagnose them apart"
    )
  found = [
    measure(
      layer,
      layer.query.shape[-1] ** -0.5 if scale is None else scale,
      len(modalities),
    )
    for layer in layers
  ]
  of_layers = jax.tree.map(lambda *x: np.stack(x), *jax.device_get(found))
  return Diagnosis(
    layers=tuple(attention_inputs),
    modalities=modalities,
    air=of_layers.air.swapaxes(1, 2),
    share=of_layers.share.swapaxes(1, 2),
    cosine_means=of_layers.cosine_means.swapaxes(1, 2),
    key_gap=of_layers.key_gap,
    key_norm=of_layers.key_norm,
    token_share=of_layers.token_share,
  )
