"""PMR: the weaker modality is drawn towards its class prototypes.

    P_m[c] = mean feature of class c over part of the training split
    d_m    = |feature_m - P_m[c]|, logits of the prototype classifier: -d_m
    rho_m  = ratio of the label scores of softmax(-d_m)
    loss  += alpha CE(-d_m) for each modality with rho_m < 1

Source: Fan et al., CVPR 2023. Their paper also regularises the entropy of the
stronger modality in the first epochs; their code does not, nor does this.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from rollingq_jax.balance.method import Balance, Signals, same_gradients
from rollingq_jax.balance.scores import discrepancy_ratios, label_score


class PMRState(NamedTuple):
  """Prototypes, and the sums that the next ones are made of."""

  prototypes: dict[str, Float[Array, "c d"]]
  # Sum of the features of each class that have been observed.
  sums: dict[str, Float[Array, "c d"]]
  # Their number.
  counts: Float[Array, " c"]
  # Whether a class has had any sample yet, in any estimate.
  known: Bool[Array, " c"]


def pmr(
  *, alpha: float, num_classes: int, momentum: float, observed_share: float
) -> Balance:
  """Prototypical modality rebalance.

  Args:
    alpha: weight of the weaker modality's prototype loss.
    num_classes: number of classes.
    momentum: of old prototypes, from the end of the second epoch on.
    observed_share: of an epoch's batches that prototypes are made of.
  """

  def init(features: dict[str, Array]) -> PMRState:
    def zeros() -> dict[str, Array]:
      return {
        name: jnp.zeros((num_classes, x.shape[-1]), jnp.float32)
        for name, x in features.items()
      }

    counts = jnp.zeros(num_classes, jnp.float32)
    return PMRState(zeros(), zeros(), counts, jnp.zeros(num_classes, bool))

  def loss(state: PMRState, signals: Signals) -> Float[Array, ""]:
    return alpha * prototype_loss(state, signals)

  def close(state: PMRState, epoch: Int[Array, ""]) -> PMRState:
    return update_prototypes(state, jnp.where(epoch > 0, momentum, 0.0))

  return Balance(
    init=init,
    loss=loss,
    modulate=same_gradients,
    observe=add_features,
    close=close,
    observed_share=observed_share,
  )


def distances(
  features: Float[Array, "b d"], prototypes: Float[Array, "c d"]
) -> Float[Array, "b c"]:
  """Euclidean distance of every feature to every prototype."""
  difference = features[:, None].astype(jnp.float32) - prototypes[None]
  square = jnp.sum(difference**2, axis=-1)
  # The root has no gradient at 0.
  is_zero = square == 0
  return jnp.where(is_zero, 0.0, jnp.sqrt(jnp.where(is_zero, 1.0, square)))


def prototype_loss(state: PMRState, signals: Signals) -> Float[Array, ""]:
  """Cross entropies of the weaker modalities' prototype classifiers.

  Samples of classes that have no prototype yet, and classes without one, do not
  count.
  """
  mask = signals.mask & state.known[signals.labels]
  logits = {
    name: jnp.where(
      state.known[None], -distances(x, state.prototypes[name]), -jnp.inf
    )
    for name, x in signals.features.items()
  }
  scores = {
    name: label_score(x, signals.labels, mask)
    for name, x in jax.lax.stop_gradient(logits).items()
  }
  ratios = discrepancy_ratios(scores)
  losses = [
    jnp.where(ratios[name] < 1, _cross_entropy(x, signals.labels, mask), 0.0)
    for name, x in logits.items()
  ]
  return jnp.sum(jnp.stack(losses))


def add_features(state: PMRState, signals: Signals) -> PMRState:
  """Adds a batch's features to the sums of their classes."""
  num_classes = state.counts.shape[0]
  member = jax.nn.one_hot(signals.labels, num_classes, dtype=jnp.float32)
  member = member * signals.mask[:, None].astype(jnp.float32)
  sums = {
    name: state.sums[name]
    + jnp.einsum(
      "bc,bd->cd",
      member,
      x.astype(jnp.float32),
      precision=jax.lax.Precision.HIGHEST,
    )
    for name, x in signals.features.items()
  }
  counts = state.counts + jnp.sum(member, axis=0)
  return state._replace(sums=sums, counts=counts)


def update_prototypes(state: PMRState, momentum: Float[Array, ""]) -> PMRState:
  """P <- (1 - m) mean + m P, and empties the sums.

  A class without samples keeps its prototype; one that had none takes the mean.
  """
  seen = state.counts > 0
  share = jnp.where(state.known, momentum, 0.0)[:, None]

  def update(old: Array, total: Array) -> Array:
    mean = total / jnp.maximum(state.counts, 1.0)[:, None]
    return jnp.where(seen[:, None], (1 - share) * mean + share * old, old)

  return PMRState(
    prototypes={
      name: update(old, state.sums[name])
      for name, old in state.prototypes.items()
    },
    sums=jax.tree.map(jnp.zeros_like, state.sums),
    counts=jnp.zeros_like(state.counts),
    known=state.known | seen,
  )


def _cross_entropy(
  logits: Float[Array, "b c"],
  labels: Int[Array, " b"],
  mask: Bool[Array, " b"],
) -> Float[Array, ""]:
  safe = jnp.where(mask[:, None], logits, 0.0)
  losses: Any = optax.softmax_cross_entropy_with_integer_labels(safe, labels)
  total = jnp.sum(jnp.where(mask, losses, 0.0))
  return total / jnp.maximum(jnp.sum(mask, dtype=jnp.float32), 1.0)
