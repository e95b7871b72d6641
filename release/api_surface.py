"""Every public name with its arguments, annotations and defaults, as text.

    python -m release.api_surface

writes docs/api_surface.txt, with which a test compares the code. Public are the
names in the `__all__` of the package and its subpackages. Read from the source,
nothing is imported.
"""

from collections.abc import Iterator
from pathlib import Path

import griffe

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "docs" / "api_surface.txt"
PACKAGE = "rollingq_jax"


def main() -> None:
  """Writes the file."""
  FILE.write_text(surface(ROOT))
  print(f"written: {FILE.relative_to(ROOT)}")


def surface(root: Path) -> str:
  """A line a name, sorted by module, then as `__all__` has them.

  Args:
    root: folder of the package.
  """
  package = griffe.load(
    PACKAGE,
    search_paths=[root],
    # Of this folder, wherever it is called.
    try_relative_path=False,
    resolve_aliases=True,
  )
  assert isinstance(package, griffe.Module)
  lines = [
    line
    for module in _with_exports(package)
    for name in _exported(module)
    for line in _described(f"{module.path}.{name}", _named(module, name))
  ]
  return "\n".join(lines) + "\n"


def _with_exports(module: griffe.Module) -> Iterator[griffe.Module]:
  if module.exports and module.is_init_module:
    yield module
  for name in sorted(module.modules):
    child = module.modules[name]
    if isinstance(child, griffe.Module):
      yield from _with_exports(child)


def _exported(module: griffe.Object) -> list[str]:
  return [str(name) for name in module.exports or ()]


def _named(module: griffe.Object, name: str) -> griffe.Object:
  item = module[name]
  if item.is_module:
    # The function `ogm` out of the module `ogm`, which has taken its name.
    item = item[name]
  return item.final_target if isinstance(item, griffe.Alias) else item


def _described(path: str, item: griffe.Object) -> Iterator[str]:
  if isinstance(item, griffe.Class):
    bases = ", ".join(str(base) for base in item.bases)
    yield f"class {path}({bases})"
    for name, member in item.members.items():
      if _is_public(name) and isinstance(member, griffe.Object):
        yield from _described(f"{path}.{name}", member)
  elif isinstance(item, griffe.Function):
    yield item.signature(return_type=True, name=path)
  elif isinstance(item, griffe.Attribute):
    annotation = f": {item.annotation}" if item.annotation else ""
    value = f" = {item.value}" if item.value else ""
    yield f"{path}{annotation}{value}"


def _is_public(name: str) -> bool:
  return not name.startswith("_") or name == "__call__"


if __name__ == "__main__":
  main()
