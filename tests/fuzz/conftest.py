"""What the fuzz tests share: a place to run in, and the count of what was generated."""

import sys
from collections.abc import Iterator
from pathlib import Path

import fuzzing
import pytest

sys.path.append(str(Path(__file__).parents[1] / "report"))  # for fake_study


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty working directory; opening the data stands for all work."""
    root = tmp_path_factory.mktemp("fuzz")

    def accept(*_: object, **__: object) -> None:
        raise fuzzing.Accepted

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("CIFAR_JAX_CACHE", str(root / "cache"))
        patch.setattr("cifar_jax.main._prepare_jax", lambda device: None)
        patch.setattr("cifar_jax.run.open_data", accept)
        patch.setattr("cifar_jax.run_study.open_data", accept)
        patch.setattr("cifar_jax.run.open_dataset", accept)
        patch.setattr("cifar_jax.run_study.open_dataset", accept)
        yield root


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if fuzzing.generated:
        terminalreporter.write_line(f"fuzz: {fuzzing.generated.total():,} generated inputs")
