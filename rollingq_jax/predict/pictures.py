"""What a model looked at, as the report's sample browser draws it."""

from types import SimpleNamespace

import numpy as np

from rollingq_jax.analysis.browser import layout, shown, token_attention
from rollingq_jax.predict.load import Model
from rollingq_jax.predict.predictor import Output
from rollingq_jax.predict.samples import Sample
from rollingq_jax.report.browser import View, draw_view


def draw(model: Model, sample: Sample, output: Output, row: int) -> list[View]:
  """A view of each modality that the sample has.

  Args:
    model: that has answered.
    sample: what it was shown.
    output: of the batch that the sample was in.
    row: its place there.
  """
  batch = {name: x[None] for name, x in sample.arrays.items()}
  there = [m for m in model.modalities if batch[f"{m}_mask"].any()]
  layouts = {m: layout(model.config, m, batch[m].shape) for m in there}
  seen = token_attention(_one(output, row), model.streams, layouts)
  views = []
  for name in there:
    share = None if output.shares is None else output.shares[name][row]
    said = "" if share is None else f", {100 * share:.0f} % of the attention"
    attention = seen[name][0] if name in seen else np.zeros(0)
    values = shown(model.config, batch, name)[0]
    real = batch[f"{name}_mask"][0]
    share = None if share is None else float(share)
    alt = f"{name}{said}"
    facts = layouts[name]
    views.append(draw_view(name, facts, values, attention, share, alt, real))
  return views


def _one(output: Output, row: int) -> SimpleNamespace:
  """A row as a model's output, as far as its attention is looked at."""
  if output.attention is None or output.lengths is None:
    return SimpleNamespace(aux=None)
  one = slice(row, row + 1)
  aux = SimpleNamespace(
    attention=output.attention[one],
    keys=[SimpleNamespace(shape=(1, int(n))) for n in output.lengths],
    attention_share={m: x[one] for m, x in (output.shares or {}).items()},
  )
  return SimpleNamespace(aux=aux)
