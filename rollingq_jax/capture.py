"""Queries and keys out of Flax linen models, which are left as they are."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.core import Tracer

# Modules of linen's attention whose outputs are the query and the key; with
# `normalize_qk` the norms come after the projections.
_PARTS = {"query": 0, "query_ln": 0, "key": 1, "key_ln": 1}

Captured = dict[str, tuple[jax.Array, jax.Array, jax.Array | None]]


def capture_attention(
  apply: Callable[..., Any], *args: Any, **kwargs: Any
) -> tuple[Any, Captured]:
  """Calls `apply` and returns its output and what its attentions were given.

      output, layers = capture_attention(model.apply, variables, x)
      print(diagnose(layers, modality_ids))

  Sees every `nn.MultiHeadDotProductAttention` (and subclass) that is called,
  with rotary embedding or another change inside its `attention_fn` left out.
  Attention that is written by hand is not seen. May be part of a jitted
  function; but what is compiled or transformed inside `apply` (`jax.jit`,
  `nn.scan`, `nn.remat`) cannot be looked into.

  Args:
    apply: `model.apply`, or a function that calls it.
    *args: of `apply`.
    **kwargs: of `apply`.

  Returns:
    The output, and path of the module -> (query [batch, q, heads, d],
    key [batch, n, heads, d], mask [batch, heads or 1, q, n] or None), in the
    order of the calls. A module that is called again has "#2" after its path.
    Several batch axes become one.

  Raises:
    ValueError: no attention was called, or it was out of sight.
  """
  recorder = _Recorder()
  with nn.intercept_methods(recorder):
    output = apply(*args, **kwargs)
  if not recorder.layers:
    raise ValueError(
      "no nn.MultiHeadDotProductAttention was called; pass model.apply itself, "
      "not a jitted function, and hand other attentions' queries and keys to "
      "diagnose yourself"
    )
  if _traced(recorder.layers) and not _traced((args, kwargs, output)):
    raise ValueError(
      "the attention is inside jax.jit, nn.scan or nn.remat, where its query "
      "and key cannot be seen; call the model without"
    )
  return output, recorder.layers


class _Recorder:
  """Interceptor that keeps the queries, keys and masks of attentions."""

  def __init__(self):
    self.layers: Captured = {}
    # Attentions that are being called, and what is known of them.
    self._open: list[tuple[nn.Module, list[Any]]] = []

  def __call__(self, call: Any, args: Any, kwargs: Any, context: Any) -> Any:
    module = context.module
    if context.method_name != "__call__":
      return call(*args, **kwargs)
    # A subclass whose __call__ calls that of its base is one attention.
    again = self._open and self._open[-1][0] is module
    if isinstance(module, nn.MultiHeadDotProductAttention) and not again:
      return self._call_attention(module, call, args, kwargs)
    output = call(*args, **kwargs)
    is_part = self._open and module.parent is self._open[-1][0]
    if is_part and module.name in _PARTS:
      self._open[-1][1][_PARTS[module.name]] = output
    return output

  def _call_attention(
    self, module: Any, call: Any, args: Any, kwargs: Any
  ) -> Any:
    if module.decode and module.has_variable("cache", "cached_key"):
      raise ValueError(
        f"{'/'.join(module.path)} reads keys from its cache; call the model on "
        "whole sequences, with decode=False"
      )
    given = inspect.signature(type(module).__call__).bind(
      module, *args, **kwargs
    )
    parts: list[Any] = [None, None]
    self._open.append((module, parts))
    output = call(*args, **kwargs)
    self._open.pop()
    query, key = parts
    self.layers[self._name(module)] = _with_one_batch_axis(
      query, key, given.arguments.get("mask")
    )
    return output

  def _name(self, module: nn.Module) -> str:
    path = "/".join(module.path) or type(module).__name__
    calls = sum(name.partition("#")[0] == path for name in self.layers)
    return f"{path}#{calls + 1}" if calls else path


def _with_one_batch_axis(
  query: jax.Array, key: jax.Array, mask: jax.Array | None
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
  batch = query.shape[:-3]
  if mask is not None:
    mask = jnp.broadcast_to(mask, (*batch, *mask.shape[-3:]))
    mask = mask.reshape(-1, *mask.shape[-3:])
  return (
    query.reshape(-1, *query.shape[-3:]),
    key.reshape(-1, *key.shape[-3:]),
    mask,
  )


def _traced(tree: Any) -> bool:
  return any(isinstance(x, Tracer) for x in jax.tree.leaves(tree))
