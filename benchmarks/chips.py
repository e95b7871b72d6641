"""Published figures of accelerators, and how long a step takes on them at best.

A step is the longer of computing (FLOPs at `UTILISATION` of the peak) and of
memory (bytes at the full bandwidth), and collectives after it: nothing of
them is overlapped, and each byte that a chip sends takes a one-way share of
its links.
"""

from typing import NamedTuple

# Of the peak. Large matrix products come to more, attention and norms to less.
UTILISATION = 0.4


class Chip(NamedTuple):
  """What its maker publishes, and where."""

  name: str
  # Dense, bfloat16.
  flops: float
  memory: float
  # Bytes a second.
  bandwidth: float
  # Bytes a second that it sends, over all its links: half of what is published
  # for both directions.
  link: float
  # Chips that these links join; predictions end there.
  reach: int
  source: str
  # What the source does not say, or says otherwise.
  note: str = ""


CHIPS = (
  Chip(
    "A100 80 GB",
    312e12,
    80e9,
    2.039e12,
    300e9,
    8,
    "glennklockwood.com, A100",
    "not the maker's page",
  ),
  Chip(
    "H100 SXM",
    989.4e12,
    80e9,
    3.35e12,
    450e9,
    8,
    "glennklockwood.com, H100",
    "not the maker's page",
  ),
  Chip(
    "H200",
    989.4e12,
    141e9,
    4.8e12,
    450e9,
    8,
    "AI Wiki, NVIDIA H200; glennklockwood.com, H100",
    "not the maker's page; FLOPs as H100",
  ),
  Chip(
    "TPU v4",
    275e12,
    32 * 2**30,
    1.2e12,
    269e9,
    4096,
    "docs.cloud.google.com, TPU v4",
    "link: all-reduce bandwidth of a pod, 1.1 PB/s, over 4096 chips",
  ),
  Chip(
    "TPU v5e",
    197e12,
    16e9,
    0.819e12,
    200e9,
    256,
    "docs.cloud.google.com, TPU v5e",
  ),
  Chip(
    "TPU v5p",
    459e12,
    95 * 2**30,
    2.765e12,
    600e9,
    8960,
    "docs.cloud.google.com, TPU v5p",
  ),
  Chip(
    "TPU v6e",
    918e12,
    32e9,
    1.638e12,
    400e9,
    256,
    "docs.cloud.google.com, TPU v6e",
  ),
)


class StepTime(NamedTuple):
  """Seconds of each part of a step, on one chip."""

  compute: float
  memory: float
  collectives: float

  @property
  def total(self) -> float:
    """Seconds of the step."""
    return max(self.compute, self.memory) + self.collectives


def step_time(chip: Chip, flops: float, moved: float, sent: float) -> StepTime:
  """What a step takes by the model above.

  Args:
    chip: one of `CHIPS`.
    flops: of a step, on one chip.
    moved: bytes from and to its memory.
    sent: bytes to other chips.
  """
  return StepTime(
    flops / (UTILISATION * chip.flops),
    moved / chip.bandwidth,
    sent / chip.link,
  )
