"""Figures of train steps derived from others: deeper ones, on more chips."""

from benchmarks.scaling_rows import DEPTHS, Figures, Point

# Of each point that has been compiled.
Compiled = dict[Point, Figures]
Mesh = tuple[int, int]


def on_mesh(compiled: Compiled, point: Point) -> Figures | None:
  """Figures of a point, derived from those on 8 devices where it must be."""
  if found := compiled.get(point):
    return found
  data, model = (8, 1) if point.model == 1 else (1, 8)
  base = at_depth(compiled, point._replace(data=data, model=model))
  return base and moved(base, (data, model), (point.data, point.model))


def moved(x: Figures, old: Mesh, new: Mesh) -> Figures:
  """Figures of a step on another mesh, with as many samples a device.

  Each device computes the same. What it sends goes with the sharded part f of
  the parameters, over d copies that m devices share: f (m - 1) / m gathered,
  f ((m - 1) / m + 2 / m (d - 1) / d) reduced, and twice the rest around the
  ring of all.
  """
  gathered, scattered, ring = (
    _ratio(f(x, new), f(x, old)) for f in (_gathered, _scattered, _ring)
  )
  # Float32 parameters and momenta.
  state = 8 * x.parameters * (share_of(x, new) - share_of(x, old))
  return x._replace(
    arguments=round(x.arguments + state),
    scattered=_scaled(x.scattered, gathered, scattered),
    reduced=_scaled(x.reduced, gathered, ring),
  )


def share_of(x: Figures, mesh: Mesh) -> float:
  """Of parameters and optimizer state, what a device holds."""
  return x.shares[str(mesh[1])]


def _sharded(x: Figures, mesh: Mesh) -> float:
  """Part of the parameters that is divided."""
  model = mesh[1]
  return 0.0 if model == 1 else (1 - share_of(x, mesh)) / (1 - 1 / model)


def _gathered(x: Figures, mesh: Mesh) -> float:
  return _sharded(x, mesh) * (1 - 1 / mesh[1])


def _scattered(x: Figures, mesh: Mesh) -> float:
  data, model = mesh
  part = _sharded(x, mesh)
  whole = 1 - 1 / model + 2 / model * (1 - 1 / data)
  return part * whole + (1 - part) * _ring(x, mesh)


def _ring(x: Figures, mesh: Mesh) -> float:
  del x
  return 2 * (1 - 1 / (mesh[0] * mesh[1]))


def _ratio(new: float, old: float) -> float:
  return new / old if old else 0.0


def _scaled(
  sent: dict[str, float], gathered: float, reduced: float
) -> dict[str, float]:
  return {
    kind: x * (reduced if kind == "all-reduce" else gathered)
    for kind, x in sent.items()
  }


def at_depth(compiled: Compiled, point: Point) -> Figures | None:
  """Figures of a point, extrapolated where it is deeper than `DEPTHS`."""
  if point.depth in DEPTHS or point.scan:
    return compiled.get(point)
  ends = [compiled.get(point._replace(depth=depth)) for depth in DEPTHS]
  low, high = ends
  return low and high and extrapolated(low, high, point.depth)


def extrapolated(low: Figures, high: Figures, depth: int) -> Figures:
  """All figures on a line through those of two depths."""
  weight = (depth - DEPTHS[0]) / (DEPTHS[1] - DEPTHS[0])

  def line(a: float, b: float) -> float:
    return a + weight * (b - a)

  def lines(a: dict[str, float], b: dict[str, float]) -> dict[str, float]:
    return {k: line(a.get(k, 0.0), b.get(k, 0.0)) for k in a | b}

  parameters = line(low.parameters, high.parameters)
  held = lines(
    *({k: v * x.parameters for k, v in x.shares.items()} for x in (low, high))
  )
  return Figures(
    flops=line(low.flops, high.flops),
    moved=line(low.moved, high.moved),
    arguments=round(line(low.arguments, high.arguments)),
    temporary=round(line(low.temporary, high.temporary)),
    scattered=lines(low.scattered, high.scattered),
    reduced=lines(low.reduced, high.reduced),
    shares={k: v / parameters for k, v in held.items()},
    parameters=round(parameters),
  )
