"""Let commands train a small CNN in place of the report's: `python small.py ARGUMENT...`.

It has one convolution. It is traced, compiled and trained in less than half the time.
"""

from collections.abc import Callable
from typing import Any

from cifar_jax.libraries import start


def shrink(set_attribute: Callable[[Any, str, Any], None] = setattr) -> None:
    """Let the commands of this process train the small CNN."""
    from cifar_jax.config import build
    from cifar_jax.core.model import CNN

    network = build.network

    def small_network(name: str, **options: Any) -> Any:
        found = network(name, **options)
        return found.clone(widths=(8,), hidden=16) if isinstance(found, CNN) else found

    set_attribute(build, "network", small_network)


if __name__ == "__main__":
    from cifar_jax.main import main_cli

    start()  # As the commands do, before `build` imports JAX.
    shrink()
    main_cli()
