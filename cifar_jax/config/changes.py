"""Compare two configs."""

import dataclasses
from typing import Any, NamedTuple

from cifar_jax.config.settings import SECTIONS, Config

# Fields that may differ in one experiment: they name, find or load the same images.
SAME_EXPERIMENT = ("data.dataset", "data.data_dir", "data.folder_is_cifar10", "data.pipeline")


class Change(NamedTuple):
    """A field with different values in two configs. `field` is `section.name`."""

    field: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.field}: {self.before} -> {self.after}"


def changes(before: Config, after: Config, free: tuple[str, ...] = ()) -> list[Change]:
    """Return the fields that differ, in the order of the sections.

    Args:
        before, after: to compare. Their names may differ.
        free: other fields, and whole sections, that may differ.
    """
    found = []
    for section, kind in SECTIONS.items():
        for name in (field.name for field in dataclasses.fields(kind)):
            old, new = (getattr(getattr(config, section), name) for config in (before, after))
            field = f"{section}.{name}"
            if old != new and not {section, field} & set(free):
                found.append(Change(field, old, new))
    return found
