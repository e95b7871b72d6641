"""Compiled programs that outlive a process."""

import jax
import platformdirs


def compiled_programs() -> str:
  """Where they are kept: in the user's own folder, unless one is set."""
  folder = platformdirs.user_cache_path("rollingq_jax") / "compiled"
  return jax.config.jax_compilation_cache_dir or str(folder)  # pyright: ignore


def keep_compiled_programs() -> None:
  """Turns on jax's persistent compilation cache, unless the user set one."""
  jax.config.update("jax_compilation_cache_dir", compiled_programs())
