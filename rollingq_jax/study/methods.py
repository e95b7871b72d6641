"""The methods that can be compared, by short names, as variants of a config."""

import difflib
import re
from collections.abc import Sequence
from typing import NamedTuple

from rollingq_jax.errors import UserError

# Beside the folders of the methods.
SWEEP_FOLDER = "sweep"


class Method(NamedTuple):
  """A system with its training method."""

  name: str
  # For tables.
  label: str
  # After the config's name and a colon.
  variant: str
  options: tuple[str, ...] = ()


METHODS = (
  Method(
    "unimodal:audio",
    "audio alone",
    "fusion=unimodal,modalities=audio,rollingq=off",
  ),
  Method(
    "unimodal:visual",
    "image alone",
    "fusion=unimodal,modalities=visual,rollingq=off",
  ),
  Method("sum", "sum", "fusion=sum"),
  Method("concat", "concat", "fusion=concat"),
  Method("film", "FiLM", "fusion=film"),
  Method("gated", "gated", "fusion=gated"),
  Method("uniform", "uniform attention", "fusion=uniform"),
  Method("attention", "attention", "fusion=attention,rollingq=off"),
  Method("rollingq", "attention + RollingQ", "fusion=attention,rollingq=on"),
  Method(
    "deep",
    "attention, 3 layers, 4 heads",
    "fusion=attention,layers=3,heads=4,rollingq=off",
  ),
  Method(
    "deep+rollingq",
    "attention, 3 layers, 4 heads + RollingQ",
    "fusion=attention,layers=3,heads=4,rollingq=on",
  ),
  Method("mbt", "MBT", "fusion=mbt,rollingq=off"),
  Method("mbt+rollingq", "MBT + RollingQ", "fusion=mbt,rollingq=on"),
  Method("mult", "MulT", "fusion=mult"),
  Method(
    "mult+attention",
    "MulT, pooled by attention",
    "fusion=mult,pool=attention,rollingq=off",
  ),
  Method("mult+rollingq", "MulT + RollingQ", "fusion=mult,rollingq=on"),
  Method(
    "jmt_fc",
    "JMT (FC)",
    "fusion=jmt",
    ("--config.model.cross.readout=linear",),
  ),
  Method("jmt", "JMT (SELF_ATTEN)", "fusion=jmt"),
  Method(
    "jmt+attention",
    "JMT, pooled by attention",
    "fusion=jmt,pool=attention,rollingq=off",
  ),
  Method("jmt+rollingq", "JMT + RollingQ", "fusion=jmt,rollingq=on"),
  Method("mmml", "MMML", "fusion=mmml"),
  Method(
    "mmml+attention",
    "MMML, pooled by attention",
    "fusion=mmml,pool=attention,rollingq=off",
  ),
  Method("mmml+rollingq", "MMML + RollingQ", "fusion=mmml,rollingq=on"),
  Method("ogm", "concat, OGM", "fusion=concat,balance=ogm"),
  Method("ogm_ge", "concat, OGM-GE", "fusion=concat,balance=ogm_ge"),
  Method("pmr", "concat, PMR", "fusion=concat,balance=pmr"),
  Method(
    "attention+ogm",
    "attention, OGM",
    "fusion=attention,rollingq=off,balance=ogm",
  ),
  Method(
    "attention+ogm_ge",
    "attention, OGM-GE",
    "fusion=attention,rollingq=off,balance=ogm_ge",
  ),
  Method(
    "attention+pmr",
    "attention, PMR",
    "fusion=attention,rollingq=off,balance=pmr",
  ),
  Method(
    "rollingq+ogm",
    "attention + RollingQ, OGM",
    "fusion=attention,rollingq=on,balance=ogm",
  ),
  Method(
    "rollingq+ogm_ge",
    "attention + RollingQ, OGM-GE",
    "fusion=attention,rollingq=on,balance=ogm_ge",
  ),
  Method(
    "rollingq+pmr",
    "attention + RollingQ, PMR",
    "fusion=attention,rollingq=on,balance=pmr",
  ),
  Method("late", "late", "fusion=late"),
  Method("late+gate", "late, gated", "fusion=late,extras=gated"),
)
# For the help and for mistakes.
PATTERNS = (
  "unimodal:MODALITY",
  "rollingqN (N rotations at most)",
  "METHOD+extras",
)
EXTRAS = "+extras"
# In the variant of a method whose class token attends to the modalities, which
# a confidence gate needs.
ATTENDING = (
  "fusion=attention",
  "fusion=uniform",
  "fusion=mbt",
  "pool=attention",
  "rollingq=on",
)


def find_method(name: str) -> Method:
  """The method of a short name.

  Args:
    name: of METHODS, `unimodal:` and any modality, `rollingq` and how many
      rotations a head may make at most, or any of these of several modalities
      and `+extras`: losses of single modalities, a gated residual and, where a
      class token attends, its gate.

  Raises:
    UserError: no method has this name.
  """
  known = {method.name: method for method in METHODS}
  if name in known:
    return known[name]
  if match := re.fullmatch(r"unimodal:(\w+)", name):
    modality = match[1]
    variant = f"fusion=unimodal,modalities={modality},rollingq=off"
    return Method(name, f"{modality} alone", variant)
  if match := re.fullmatch(r"rollingq(\d+)", name):
    rolled = known["rollingq"]
    limit = f"--config.rollingq.max_rotations={match[1]}"
    return Method(
      name, f"{rolled.label} x {match[1]}", rolled.variant, (limit,)
    )
  base = name.removesuffix(EXTRAS)
  if base != name and not base.startswith(("late", "unimodal")):
    return _with_extras(find_method(base))
  nearest = difflib.get_close_matches(name, known, n=1)
  hint = f"; did you mean {nearest[0]}?" if nearest else ""
  raise UserError(
    f"--methods: there is no method {name!r}{hint}; known are "
    f"{', '.join([*known, *PATTERNS])}, and one of your own is "
    "name=variant=value,variant=value"
  )


def parse_methods(text: str) -> list[Method]:
  """Methods of a list such as `concat,mine=fusion=sum,balance=pmr,rollingq1`.

  Args:
    text: short names, or a name of one's own with `=` before the first of its
      variants, and options `--config.path=value` among them.

  Raises:
    UserError: an unknown name, one that is there twice, or none.
  """
  methods: list[Method] = []
  is_own = False
  for item in filter(None, (word.strip() for word in text.split(","))):
    if item.startswith("--config."):
      _check_has_owner(item, is_own)
      methods[-1] = _with_option(methods[-1], item)
    elif item.count("=") == 1:
      _check_has_owner(item, is_own)
      last = methods[-1]
      methods[-1] = last._replace(variant=f"{last.variant},{item}")
    elif "=" in item:
      name, _, variant = item.partition("=")
      methods.append(Method(name, name, variant))
      is_own = True
    else:
      methods.append(find_method(item))
      is_own = False
  _check_folders(methods)
  return methods


def folder_name(name: str) -> str:
  """The name as a folder may have it."""
  return re.sub(r"[^\w.+=-]", "_", name).lstrip(".") or "_"


def _with_extras(method: Method) -> Method:
  gate = ",gate=on" if any(x in method.variant for x in ATTENDING) else ""
  return method._replace(
    name=f"{method.name}{EXTRAS}",
    label=f"{method.label} + extras",
    variant=f"{method.variant},extras=loss+gated{gate}",
  )


def _with_option(method: Method, option: str) -> Method:
  return method._replace(options=(*method.options, option))


def _check_has_owner(item: str, is_own: bool) -> None:
  if not is_own:
    raise UserError(
      f"--methods: {item!r} belongs to no method; give it a name as in "
      f"mine={'fusion=attention,' if item.startswith('--') else ''}{item}"
    )


def _check_folders(methods: Sequence[Method]) -> None:
  if not methods:
    raise UserError(
      "--methods names none; write for example --methods concat,rollingq"
    )
  seen: dict[str, str] = {}
  for method in methods:
    # Folders of some systems do not tell capital letters from small ones.
    folder = folder_name(method.name).lower()
    if folder == SWEEP_FOLDER:
      raise UserError(f"--methods: {method.name!r} is kept for the sweep")
    if folder in seen:
      raise UserError(
        f"--methods: {method.name!r} and {seen[folder]!r} would share a "
        "folder; give them other names"
      )
    seen[folder] = method.name
