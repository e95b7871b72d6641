"""Checks what `diagnose` is given, and brings it into one form."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rollingq_jax.shapes import Array, Bool, Float, Int

# Of one layer: (query, key) or (query, key, mask)
AttentionInput: TypeAlias = Sequence[ArrayLike | None]
Ids: TypeAlias = ArrayLike | Sequence[Any]
# Which queries of a sample are looked at; see `diagnose`.
Queries: TypeAlias = slice | ArrayLike | Sequence[Any] | None


class Layer(NamedTuple):
  """What one attention layer is measured from."""

  # The queries that are looked at, p of each sample.
  query: Float[Array, "b p h d"]
  # Keys of g <= h heads, each read by h / g heads of the query.
  key: Float[Array, "b n g d"]
  # Keys that a query sees; one row where all queries see the same.
  seen: Bool[Array, "b _ n"]
  # Modality of each key; negative: not counted.
  ids: Int[Array, "b n"]


def modality_names(
  ids: Int[np.ndarray, "... n"], names: Sequence[str] | None
) -> tuple[str, ...]:
  """The names, or "modality 0" and so on.

  Raises:
    ValueError: fewer than two modalities, an id without a name or a modality
      without a token.
  """
  found = sorted({int(i) for i in np.unique(ids) if i >= 0})
  count = max(found, default=-1) + 1 if names is None else len(names)
  if count < 2:
    raise ValueError(
      "diagnose compares modalities and needs at least 2; modality_ids has "
      f"the ids {found}" + ("" if names is None else f" and names {names}")
    )
  if found != list(range(count)):
    raise ValueError(
      f"diagnose expects tokens of {count} modalities, with the ids 0 to "
      f"{count - 1}; modality_ids has {found}"
    )
  if names is None:
    return tuple(f"modality {index}" for index in range(count))
  return tuple(names)


def as_ids(modality_ids: Ids) -> Int[np.ndarray, "... n"]:
  """Ids as an array of integers, [n] or [batch, n].

  Raises:
    ValueError: another shape, or numbers that are not integers.
  """
  ids = np.asarray(modality_ids)
  if ids.ndim not in (1, 2) or not np.issubdtype(ids.dtype, np.integer):
    raise ValueError(
      "modality_ids must be integers [n] or [batch, n], one for each key; got "
      f"{ids.dtype} {ids.shape}"
    )
  return ids


def as_layer(
  name: str,
  given: AttentionInput,
  ids: Int[np.ndarray, "... n"],
  queries: Queries,
) -> Layer:
  """A layer in one form.

  Raises:
    ValueError: shapes that do not belong together, or queries that are not
      there; the message names the layer.
  """
  if len(given) not in (2, 3):
    raise ValueError(
      f"layer {name!r}: expected (query, key) or (query, key, mask); got "
      f"{len(given)} arrays"
    )
  query, key, *rest = (None if x is None else jnp.asarray(x) for x in given)
  query, key = _check_query_and_key(name, query, key)
  batch, length, _, _ = query.shape
  keys = key.shape[1]
  if ids.shape not in ((keys,), (1, keys), (batch, keys)):
    raise ValueError(
      f"layer {name!r} has {keys} keys a sample and {batch} samples, but "
      f"modality_ids has the shape {ids.shape}; expected ({keys},) or "
      f"({batch}, {keys}). Diagnose layers over other tokens apart"
    )
  seen = _as_rows(name, rest[0] if rest else None, (batch, length, keys))
  index = _positions(name, queries, batch, length)
  if seen.shape[1] > 1:
    seen = jnp.take_along_axis(seen, index[..., None], axis=1)
  return Layer(
    query=jnp.take_along_axis(query, index[..., None, None], axis=1),
    key=key,
    seen=seen,
    ids=jnp.asarray(np.broadcast_to(ids, (batch, keys)), jnp.int32),
  )


def _check_query_and_key(
  name: str, query: Array | None, key: Array | None
) -> tuple[Array, Array]:
  """Both with four axes; the queries' heads are a multiple of the keys'."""
  shapes = [None if x is None else x.shape for x in (query, key)]
  got = f"layer {name!r}: got a query {shapes[0]} and a key {shapes[1]}; "
  if query is None or key is None or query.ndim not in (3, 4) or key.ndim != 4:
    raise ValueError(
      got + "expected a query [batch, q, heads, d] or [batch, heads, d] and a "
      "key [batch, n, heads, d]"
    )
  if query.ndim == 3:
    query = query[:, None]
  if query.shape[0] != key.shape[0] or query.shape[3] != key.shape[3]:
    raise ValueError(got + "expected the same batch and the same width d")
  if key.shape[2] == 0 or query.shape[2] % key.shape[2]:
    raise ValueError(
      got + "expected as many heads, or a multiple of the key's (grouped-query "
      "attention)"
    )
  return query, key


def _as_rows(
  name: str, mask: Array | None, sizes: tuple[int, int, int]
) -> Bool[Array, "b _ n"]:
  """The mask as [batch, queries or 1, keys]."""
  batch, length, keys = sizes
  if mask is None:
    return jnp.ones((batch, 1, keys), bool)
  rows = mask[:, None] if mask.ndim == 2 else mask
  if mask.ndim == 4 and mask.shape[1] == 1:
    rows = mask[:, 0]
  fitting = {(b, q, keys) for b in (1, batch) for q in (1, length)}
  if rows.shape not in fitting:
    raise ValueError(
      f"layer {name!r}: the mask {mask.shape} does not fit {batch} samples, "
      f"{length} queries and {keys} keys; expected [batch, n], [batch, q, n] "
      "or [batch, 1, q, n]"
    )
  # On the host, where numbers of any kind compare.
  values = np.asarray(rows)
  if not np.all((values == 0) | (values == 1)):
    raise ValueError(
      f"layer {name!r}: the mask has numbers other than 0 and 1; expected True "
      "where a key is seen, not what is added to scores"
    )
  seen = jnp.asarray(values.astype(bool))
  return jnp.broadcast_to(seen, (batch, *rows.shape[1:]))


def _positions(
  name: str, queries: Queries, batch: int, length: int
) -> Int[Array, "b p"]:
  """Positions of the queries that are looked at, of each sample."""
  if queries is None or isinstance(queries, slice):
    index = np.arange(length)[queries or slice(None)][None]
  else:
    index = np.asarray(queries)
    if index.shape not in ((), (batch,)) or index.dtype.kind not in "iu":
      raise ValueError(
        f"queries is {index.dtype} {index.shape}; expected a position, a "
        f"slice, None for all, or a position for each of {batch} samples"
      )
    index = index.reshape(-1, 1)
  if not index.size or index.min() < -length or index.max() >= length:
    raise ValueError(
      f"layer {name!r} has {length} queries a sample; queries={queries} asks "
      "for others"
    )
  return jnp.asarray(np.broadcast_to(index % length, (batch, index.shape[1])))
