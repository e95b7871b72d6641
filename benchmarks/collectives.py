"""Collective operations in a compiled program, and what they send.

Bytes are those that one device sends in a ring, which are those that it
receives: of an array of S bytes over n devices

    all-reduce           2 (n - 1) / n S
    all-gather             (n - 1) / n S   S after it
    reduce-scatter         (n - 1) / n S   S before it
    all-to-all             (n - 1) / n S
    collective-permute                 S

An all-reduce of which each device keeps one part in k counts as a
reduce-scatter over k devices and an all-reduce of the part over the n / k
others. TPU and GPU compilers make that of it; the CPU's does not.
"""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from rollingq_jax.errors import UserError

KINDS = (
  "all-reduce",
  "all-gather",
  "reduce-scatter",
  "all-to-all",
  "collective-permute",
)
# Bits of XLA's types; pred takes a byte.
_BITS = {"pred": 8, "bf16": 16, "s": 0, "u": 0, "f": 0, "c": 0}
_LINE = re.compile(
  rf"^\s*(?:ROOT )?%?([\w.-]+) = (.*?) ({'|'.join(KINDS)})(-start)?\("
)
_ARRAY = re.compile(r"\b(pred|bf16|[suf]\d+)\w*\[([\d,]*)\]")


class Collective(NamedTuple):
  """One operation, on one device."""

  kind: str
  # Of its result; of its operand where it is a reduce-scatter.
  size: int
  # Devices that take part together.
  group: int
  # Parts of the result of which a device keeps one alone; 1: it keeps all.
  parts: int = 1
  # Where in the program it comes from.
  origin: str = ""


def find_collectives(text: str, num_devices: int) -> list[Collective]:
  """Those in the text of an HLO module, in its order.

  The body of a loop is counted once.

  Args:
    text: of a partitioned module.
    num_devices: it runs on.

  Raises:
    UserError: groups of devices in a form that is not known.
  """
  lines = text.splitlines()
  found = {}
  for line in lines:
    match = _LINE.match(line)
    if match:
      found[match[1]] = _collective(line, match, num_devices)
  kept = _kept(lines, {n for n, x in found.items() if x.kind == "all-reduce"})
  return [
    x._replace(parts=x.size // kept[name]) if name in kept else x
    for name, x in found.items()
  ]


def sent_bytes(collective: Collective, *, scatter: bool = True) -> float:
  """Bytes that a device sends, by the formulas above.

  Args:
    collective: from `find_collectives`.
    scatter: whether an all-reduce of which parts are kept is cheaper.
  """
  kind, size, n, parts, _ = collective
  if kind == "collective-permute":
    return float(size)
  if kind != "all-reduce":
    return size * (n - 1) / n
  k = math.gcd(parts, n) if scatter else 1
  rest = n // k
  return size * (k - 1) / k + 2 * size / k * (rest - 1) / rest


def total_sent(
  collectives: Sequence[Collective], *, scatter: bool = True
) -> dict[str, float]:
  """Bytes that a device sends, by kind; kinds that there are."""
  sums: dict[str, float] = {}
  for collective in collectives:
    sent = sent_bytes(collective, scatter=scatter)
    sums[collective.kind] = sums.get(collective.kind, 0.0) + sent
  return sums


def array_bytes(shape: str) -> list[int]:
  """Of each array in the text of a shape, which may be a tuple."""
  return [
    math.prod(int(x) for x in dims.split(",") if x) * _bits(kind) // 8
    for kind, dims in _ARRAY.findall(shape)
  ]


def _bits(kind: str) -> int:
  return _BITS.get(kind) or int(kind[1:])


def _collective(
  line: str, match: re.Match[str], num_devices: int
) -> Collective:
  _, shape, kind, start = match.groups()
  sizes = array_bytes(shape)
  group = _group_size(line, num_devices)
  # An asynchronous one gives its operand too, first; permutes, two flags more.
  size = sizes[1] if start and kind != "all-reduce" else sum(sizes)
  origin = re.search(r'op_name="([^"]*)"', line)
  return Collective(
    kind,
    size * group if kind == "reduce-scatter" else size,
    group,
    origin=origin[1] if origin else "",
  )


def _group_size(line: str, num_devices: int) -> int:
  """Devices of a group, in each of the three forms that XLA prints."""
  if "source_target_pairs=" in line:
    return num_devices
  if match := re.search(r"replica_groups=\[(\d+),(\d+)\]", line):
    return int(match[2])
  if match := re.search(r"replica_groups=\{(?:\{([\d,]*)\}|\})", line):
    return len(match[1].split(",")) if match[1] else num_devices
  if match := re.search(r"replica_groups=mesh\[(.*?)\].*? \{('.*?)\}", line):
    sizes = dict(re.findall(r"'(\w+)'=(\d+)", match[1]))
    names = re.findall(r"'(\w+)'(?!:)", match[2])
    parts = re.findall(r"'\w+':\(\d+\)(\d+)", match[2])
    return math.prod(map(int, [*(sizes[name] for name in names), *parts]))
  raise UserError(f"no groups of devices in this line of HLO: {line.strip()}")


def _kept(lines: Sequence[str], names: set[str]) -> dict[str, int]:
  """Bytes of the part that is kept, of results that are only cut."""
  kept: dict[str, set[int]] = {}
  for line in lines:
    made, _, rest = line.partition(" = ")
    used = {x for x in re.findall(r"%([\w.-]+)", rest) if x in names}
    is_cut = re.search(r"\bdynamic-slice\(", rest)
    for name in used - {made.replace("ROOT", "").strip(" %")}:
      kept.setdefault(name, set()).update(
        array_bytes(rest)[:1] if is_cut else [0]
      )
  return {
    name: size
    for name, sizes in kept.items()
    for size in sizes
    if len(sizes) == 1 and size
  }
