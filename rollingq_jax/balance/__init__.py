"""Training-time methods against modality imbalance; none knows a model."""

from rollingq_jax.balance.method import Balance, Signals, no_balance
from rollingq_jax.balance.ogm import ogm
from rollingq_jax.balance.pmr import pmr

__all__ = ["Balance", "Signals", "no_balance", "ogm", "pmr"]
