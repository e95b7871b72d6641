"""Clips that are longer than what a model takes of them."""

from collections.abc import Iterator, Mapping

import numpy as np

from rollingq_jax.data.clips import ClipShape

_VERBS = {"audio": "hears", "visual": "sees", "text": "reads"}
# Encoders leave out what does not fill a token: a multiple of most sizes.
_WHOLE = 16


def cut_lines(
  steps: Mapping[str, np.ndarray], shape: ClipShape, *, has_bytes: bool
) -> Iterator[str]:
  """A line for each modality of which some clips are cut.

  Args:
    steps: for each modality how much the training clips have of it: time
      steps, or characters of a text.
    shape: of the arrays that are made of them.
    has_bytes: whether texts become bytes, of which no character has less than
      one; how long they are in other tokens is not known.
  """
  for name, taken in shape._asdict().items():
    if name not in steps:
      continue
    if isinstance(taken, tuple) and len(taken) == 2:
      yield from _cut_steps(name, steps[name], taken)
    elif isinstance(taken, int) and has_bytes:
      yield from _cut_text(steps[name], taken)


def _cut_steps(
  name: str, steps: np.ndarray, taken: tuple[int, int]
) -> Iterator[str]:
  count = int(np.sum(steps > taken[0]))
  if count:
    needed = -(-int(steps.max()) // _WHOLE) * _WHOLE
    yield (
      f"{name}: {count} of {len(steps)} training clips are longer than the "
      f"{taken[0]} steps that the model takes; --config.data.shapes.{name}="
      f'"({needed}, {taken[1]})" {_VERBS[name]} all'
    )


def _cut_text(characters: np.ndarray, taken: int) -> Iterator[str]:
  count = int(np.sum(characters > taken))
  if count:
    yield (
      f"text: {count} of {len(characters)} training clips have more than "
      f"{taken} characters, and the model takes {taken} bytes; "
      f'--config.data.shapes.text="({2 * taken},)" reads more'
    )
