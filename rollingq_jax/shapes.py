"""jaxtyping's names, for modules that have to do without it.

Without jaxtyping a shape is a word to the reader, and nothing checks it.
"""

from jax import Array

try:
  from jaxtyping import Bool, Float, Int, Shaped
except ModuleNotFoundError:
  from typing import Annotated as Bool
  from typing import Annotated as Float
  from typing import Annotated as Int
  from typing import Annotated as Shaped

__all__ = ["Array", "Bool", "Float", "Int", "Shaped"]
