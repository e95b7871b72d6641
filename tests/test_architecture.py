"""The layers of the package: imports run one way."""

import ast
from pathlib import Path

import pytest

# Lower lines may import from upper ones, never the other way round.
LAYERS = (
  {
    "capture",
    "colours",
    "condition",
    "errors",
    "files",
    "jsonl",
    "presence",
    "shapes",
  },
  {"cluster", "command", "together", "unpickle"},
  {"means", "rotation"},
  {"rolling"},
  {"diagnosis", "progressive"},
  {"balance", "data"},
  {"workdir"},
  {"models"},
  {"evaluation", "pretrained"},
  {"training"},
  {"analysis"},
  {"report"},
  {"config"},
  {"analyse", "convert", "doctor", "export", "main", "study"},
  {"__main__", "predict"},
)
# What a layer may import of the package at all, where that is less.
ONLY = {
  "__main__": {"command", "errors"},
  "cluster": {"errors"},
  "command": {"errors"},
  "together": {"errors", "presence"},
  "unpickle": {"errors"},
  "rotation": {"shapes"},
  "means": {"shapes"},
  "rolling": {"means", "rotation", "shapes"},
  "diagnosis": {"colours", "errors", "means", "rolling", "rotation", "shapes"},
  "progressive": {"rolling", "rotation", "shapes"},
  "balance": set(),
  "data": {"command", "errors", "jsonl", "unpickle"},
  "workdir": {"cluster", "data", "errors", "files"},
  "report": {"colours", "command", "condition", "errors", "jsonl"},
}
FORBIDDEN = {"tensorflow", "torch"}


def _imports(path: Path) -> set[str]:
  """Dotted names of all modules that a file imports, at any level."""
  names = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.module:
      names.add(node.module)
  return names


def _part(name: str) -> str | None:
  parts = name.split(".")
  return parts[1] if parts[0] == "rollingq_jax" and len(parts) > 1 else None


@pytest.fixture
def files(repo_root: Path) -> dict[Path, str]:
  """Every file of the package and the part it belongs to."""
  package = repo_root / "rollingq_jax"
  paths = [p for p in package.rglob("*.py") if p != package / "__init__.py"]
  assert len(paths) > 20
  return {p: p.relative_to(package).parts[0].removesuffix(".py") for p in paths}


def test_a_module_imports_only_from_the_layers_before_it(files):
  rank = {part: i for i, layer in enumerate(LAYERS) for part in layer}
  for path, part in files.items():
    for imported in filter(None, map(_part, _imports(path))):
      allowed = imported == part or rank[imported] < rank[part]
      allowed &= imported in ONLY.get(part, rank) or imported == part
      assert allowed, f"{path.name} ({part}) imports {imported}"


def test_neither_tensorflow_nor_torch_is_imported_anywhere(files):
  for path in files:
    roots = {name.split(".")[0] for name in _imports(path)}
    assert not roots & FORBIDDEN, path


def test_the_report_needs_no_jax_and_the_data_no_model(files):
  for path, part in files.items():
    roots = {name.split(".")[0] for name in _imports(path)}
    if part == "report":
      assert not roots & {"jax", "flax", "optax"}, path
    if part == "data":
      assert not roots & {"jax", "flax", "optax"}, path


def test_no_file_outgrows_its_subject(files):
  for path in files:
    lines = len(path.read_text().splitlines())
    assert lines <= 450, f"{path.name} has {lines} lines"
