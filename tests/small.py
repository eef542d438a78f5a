"""Let commands train a small CNN in place of the report's: `python small.py ARGUMENT...`.

It has one convolution. It is traced, compiled and trained in less than half the time.
"""

from collections.abc import Callable
from typing import Any

from cifar_jax.libraries import start

Set = Callable[[Any, str, Any], None]


def draw_blank(set_attribute: Set = setattr) -> None:
    """Let commands of this process build each kind of figure once, and write blank files."""
    from PIL import Image

    from cifar_jax.report import drawing, figures, page_figures

    built = set()
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"/>'
    nothing = drawing.Drawn(Image.new("RGB", (1, 1)), svg)

    def blank(build: Callable[[], Any], svg: bool = False) -> drawing.Drawn:
        # Figures differ by their code; some share it, and have a title as an argument.
        titles = [value for value in getattr(build, "args", ()) if isinstance(value, str)]
        kind = getattr(build, "func", build).__code__, *titles
        if kind not in built:
            built.add(kind)
            with drawing.styled():
                build()
        return nothing

    for module in (drawing, figures, page_figures):
        set_attribute(module, "render", blank)


def shrink(set_attribute: Set = setattr) -> None:
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
