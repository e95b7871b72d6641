"""The two protocols: ours, and the authors' as their code has it.

`honest` is configs/base.py. `reference` changes the fields below, each of which
is documented there; golden tests follow whole runs of the authors' code in it.
"""

from ml_collections import ConfigDict

PROTOCOLS = ("honest", "reference")


def set_protocol(config: ConfigDict, protocol: str) -> None:
  """Sets the fields in which the protocols differ."""
  if protocol == "reference":
    _set_reference(config)


def _set_reference(config: ConfigDict) -> None:
  rollingq = config.rollingq
  # AIR of the epoch's last batch, with the weights before its update.
  rollingq.air = "last_batch"
  # The training split once more in evaluation mode, means of batch means.
  rollingq.means = "second_pass"
  rollingq.mean_over = "batches"
  # AIR > beta, in the first imbalanced epoch, the last one included.
  rollingq.strict_threshold = True
  rollingq.patience = 1
  rollingq.start_epoch = 0
  rollingq.roll_at_end = True
  rollingq.method = "procrustes"
  # Biases, norms, tokens and tables decay too. PyTorch leaves parameters
  # without gradient alone; these models have none.
  config.optimizer.decay_mask = "all"
  config.optimizer.extra_step_per_epoch = True
  config.data.crop_each_frame = True
  # The epoch that is best on the test list is the one reported.
  config.evaluation.checkpoint = "best"
  config.evaluation.selection_split = "test"
