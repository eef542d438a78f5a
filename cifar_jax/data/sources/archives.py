"""Find the files of a published dataset, or download them."""

import errno
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cifar_jax.data.sources.contents import Progress
from cifar_jax.data.sources.spec import File, Published, damage
from cifar_jax.errors import MachineError, UserError, one_line
from cifar_jax.failures import FULL
from cifar_jax.inputs import expand_home
from cifar_jax.storage import sync, temporary_directory

if TYPE_CHECKING:
    import requests

_MANUAL = "downloads/manual"
_PROBE_SECONDS = 3.0
_STALL_SECONDS = 30.0
_SCHEMES = ("https",)  # of a file's address, and of every redirect
# Folders and archives of the versions of CIFAR-10 and CIFAR-100 that are pickles.
_PICKLED = (
    ("cifar-10-python.tar.gz", "cifar-10-batches-py", "cifar-10-binary.tar.gz"),
    ("cifar-100-python.tar.gz", "cifar-100-python", "cifar-100-binary.tar.gz"),
)


def data_directory(data_dir: str | Path | None) -> Path:
    """Return `data_dir`, else $TFDS_DATA_DIR, else ~/tensorflow_datasets, as tfds does.

    Raises:
        UserError: it is in an unknown home directory.
    """
    if data_dir:
        return expand_home(data_dir, "--data-dir")
    if chosen := os.environ.get("TFDS_DATA_DIR"):
        return expand_home(chosen, "TFDS_DATA_DIR")
    try:
        return Path("~/tensorflow_datasets").expanduser()
    except RuntimeError:
        raise UserError(
            "no home directory to save datasets in; name a directory with --data-dir"
        ) from None


def reject_pickled(path: Path, what: str) -> None:
    """Raise if `path` is or contains CIFAR's "python version", whose batches are pickles.

    Raises:
        UserError: beginning with `what`. Reading a pickle can run any program.
    """
    for *pickled, allowed in _PICKLED:
        for found in (path, *(path / name for name in pickled)):
            if found.name in pickled and os.path.exists(found):
                raise UserError(
                    f"{what} {found}: pickled batches are not read, because a pickle can run any "
                    f"program; allowed: {allowed} from https://www.cs.toronto.edu/~kriz/{allowed}"
                )


def _session() -> "requests.Session":
    """Return a session without adapters for other schemes than https."""
    import requests

    session = requests.Session()
    https = session.adapters["https://"]
    session.adapters.clear()
    for scheme in _SCHEMES:
        session.mount(f"{scheme}://", https)
    return session


def unreachable(url: str) -> str | None:
    """Return in a few words why the server cannot be reached, or None if it answers.

    Sends one request for the headers. Takes at most about four seconds, even if name resolution
    hangs.
    """
    import requests

    reasons: list[str | None] = []

    def ask() -> None:
        try:
            with _session() as session:
                response = session.head(url, timeout=_PROBE_SECONDS, allow_redirects=True)
        except requests.exceptions.InvalidSchema:
            reasons.append("it leads away from https")
        except requests.RequestException as error:
            timed_out = isinstance(error, requests.Timeout)
            reasons.append("no answer" if timed_out else "no connection")
        else:
            reasons.append(None if response.ok else f"HTTP status {response.status_code}")

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PROBE_SECONDS + 1)
    return reasons[0] if reasons else "no answer"


def blame(error: Exception) -> type[UserError]:
    """Return `MachineError` for a full disk or too little memory, also if a library wraps it."""
    full = getattr(error, "errno", None) in FULL or os.strerror(errno.ENOSPC) in str(error)
    return MachineError if full or isinstance(error, MemoryError) else UserError


def _downloads(directory: Path, spec: Published) -> Path:
    """Return the folder of downloads. Files of several datasets have the same names."""
    return directory / _MANUAL if len(spec.files) == 1 else directory / _MANUAL / spec.name


def find_file(directory: Path, spec: Published, file: File) -> Path | None:
    """Find and check a file, in `directory`, in the dataset's folders, or in the downloads.

    Return None if there is none, or if a damaged one in the downloads can be downloaded again.

    Raises:
        UserError: the file is not the published one.
    """
    downloads = _downloads(directory, spec)
    folders = [*(directory / name for name in spec.folders), directory, downloads]
    found = next((path for folder in folders if (path := folder / file.name).exists()), None)
    if found is None:
        return None
    try:
        difference = damage(found, file)
    except OSError as error:
        difference = error.strerror or str(error)
    if not difference:
        return found
    if found.parent == downloads and unreachable(file.url) is None:
        return None  # `_download` replaces it.
    what = "archive" if len(spec.files) == 1 else "file"
    raise UserError(
        f"{found}: not {spec.title}'s {what}, or damaged ({difference}); get it from "
        f"{file.url}, or remove the file"
    )


def _download(directory: Path, spec: Published, file: File, progress: Progress) -> Path:
    """Download a file and check it. A failure or stop leaves no file.

    The threads of tfds's downloader would survive Ctrl-C until all bytes have arrived.
    """
    target = _downloads(directory, spec) / file.name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary_directory(target.parent) as temporary:
            part = temporary / file.name
            with (
                _session() as session,
                session.get(
                    file.url,
                    stream=True,
                    timeout=_STALL_SECONDS,
                    headers={"Accept-Encoding": "identity"},
                ) as response,
                part.open("wb") as opened,
            ):
                response.raise_for_status()
                for block in response.iter_content(1 << 18):
                    opened.write(block)
                    if opened.tell() > file.size:
                        raise UserError(f"{file.url}: sends more than {file.size} bytes")
                    progress(f"downloading {spec.title}", opened.tell(), file.size)
            if difference := damage(part, file):
                raise UserError(
                    f"{file.url}: the download is not {spec.title}'s file ({difference})"
                )
            sync(part)
            os.replace(part, target)
    except OSError as error:  # Errors of requests are OSErrors too.
        raise blame(error)(
            f"{spec.title} could not be downloaded to {target.parent} ({one_line(error)})"
        ) from None
    return target


def obtain(directory: Path, spec: Published, progress: Progress) -> list[Path]:
    """Return the paths of the dataset's files. Download those that `directory` lacks.

    Raises:
        UserError: a file is damaged, or is missing and cannot be downloaded.
    """
    found = {file: find_file(directory, spec, file) for file in spec.files}
    missing = [file for file, path in found.items() if path is None]
    if missing:
        reject_pickled(directory, "--data-dir")
        if reason := unreachable(missing[0].url):
            listed = ", ".join(f"{f.url} (SHA-256 {f.sha256[:12]}...)" for f in missing)
            their = "its folder" if len(missing) == 1 else "their folder"
            raise UserError(
                f"{spec.title} is not in {directory} and cannot be downloaded from "
                f"{urlsplit(missing[0].url).netloc} ({reason}); get {listed} elsewhere and pass "
                f"{their} with --data-dir, or use --dataset DIR (an image folder) or "
                "--dataset synthetic"
            )
    return [path or _download(directory, spec, file, progress) for file, path in found.items()]
