"""The command `predict`: what trained networks answer for pictures, as a table, JSON or figure."""

import itertools
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.cells import cell_len
from rich.console import Console

from cifar_jax.analysis.fitted import VALIDATION, Fitted
from cifar_jax.data.sources.decode import change_notes
from cifar_jax.errors import UserError, counted, printable
from cifar_jax.library.pictures import Picture, decode_sources, find_sources
from cifar_jax.library.predictor import Predictions, Predictor, load_predictor
from cifar_jax.runner.console import Display
from cifar_jax.storage import write_bytes

FORMAT = 1  # of the JSON
UNLIKE = "unlike its training images"
MOST_DRAWN, PREVIEW = 24, 320  # pictures in a montage; their largest width and height in pixels


class Source(NamedTuple):
    """Whose networks answer; fields as the arguments of `load_predictor`."""

    directory: Path
    arm: str | None = None
    file: Path | None = None
    dataset: str | None = None
    data_dir: str | None = None


@dataclass(frozen=True)
class Wanted:
    """What the user asks for.

    Attributes:
        top: number of classes to name.
        json: print JSON, not a table.
        montage: path of the figure, or None.
    """

    top: int = 3
    json: bool = False
    montage: Path | None = None


@dataclass(frozen=True, eq=False)
class Answer:
    """A picture with its row in the predictions of its batch; without them it was not read."""

    picture: Picture
    predictions: Predictions | None = None
    row: int = 0

    @property
    def unlike(self) -> bool | None:
        """Whether it is unlike the training images; None if unknown."""
        found = self.predictions.unlike if self.predictions else None
        return None if found is None else bool(found[self.row])

    @property
    def agree(self) -> str:
        """How many networks of an ensemble agree, such as "2 of 3"; empty for one network."""
        if self.predictions is None or len(self.predictions.logits) == 1:
            return ""
        return f"{self.predictions.agree[self.row]} of {len(self.predictions.logits)}"


def _check_montage(path: Path) -> None:
    """Check that a figure can be written.

    Raises:
        UserError: it cannot.
    """
    directory = path.absolute().parent
    if path.suffix.lower() != ".png":
        raise UserError(f"--montage {path}: must end in .png")
    if path.is_dir() or not directory.is_dir():
        raise UserError(f"--montage {path}: is a directory, or is in none that exists")
    if not os.access(directory, os.W_OK):
        raise UserError(f"--montage {path}: {directory} cannot be written")


def predict_run(images: Sequence[str], source: Source, wanted: Wanted) -> int:
    """Predict pictures, and print the answers. Return how many pictures could not be read.

    Answers go to standard output, notes and progress to standard error.

    Args:
        images: paths of files and folders, or "-" for standard input.
        source: of the networks.
        wanted: by the user.

    Raises:
        UserError: there are no such networks, or the figure cannot be written.
    """
    if wanted.montage is not None:
        _check_montage(wanted.montage)
    display = Display(Console(stderr=True, highlight=False, soft_wrap=True))
    predictor = load_predictor(**source._asdict(), display=display)
    for note in predictor.notes:
        display.say(note)
    answers = _answers(images, predictor, wanted, display)
    if wanted.json:
        print(json.dumps(_to_json(answers, predictor, wanted.top), indent=2, allow_nan=False))
    else:
        for line in _table(answers, predictor, wanted.top):
            print(printable(line))
    if wanted.montage is not None:
        _draw(wanted.montage, answers, wanted.top)
    return sum(answer.predictions is None for answer in answers)


def _answers(
    images: Sequence[str], predictor: Predictor, wanted: Wanted, display: Display
) -> list[Answer]:
    """Decode and predict pictures, batch by batch."""
    sources = find_sources(images, sys.stdin.buffer)
    previews = MOST_DRAWN if wanted.montage else 0
    found: list[Answer] = []
    for pictures in decode_sources(sources, predictor.options, previews, PREVIEW):
        pixels = [picture.decoded.pixels for picture in pictures if picture.decoded]
        predictions = predictor.predict(np.stack(pixels)) if pixels else None
        rows = itertools.count()
        found += [
            Answer(picture, predictions, next(rows)) if picture.decoded else Answer(picture)
            for picture in pictures
        ]
        if len(sources) > len(pictures):
            display.progress("predicting", len(found), len(sources), plain=False)
    display.end_progress()
    return found


def _table(answers: Sequence[Answer], predictor: Predictor, top: int) -> list[str]:
    """Return the lines of a table, and notes below it."""
    several = len(predictor.networks) > 1
    heads = ["image", "answer", *["next"] * (min(top, len(predictor.classes)) - 1)]
    rows = [[*heads, *(["seeds that agree"] if several else []), ""]]
    for answer in answers:
        name = printable(answer.picture.name)
        if answer.predictions is None:
            rows.append([name, answer.picture.error])
            continue
        best = answer.predictions.top(answer.row, top)
        words = [f"{printable(label)} {100 * share:.1f} %" for label, share in best]
        rows.append(
            [name, *words, *([answer.agree] if several else []), UNLIKE * bool(answer.unlike)]
        )
    whole = [row for row in rows if len(row) == len(rows[0])]
    widths = [max(map(cell_len, column)) for column in zip(*whole, strict=True)]
    widths[0] = max(cell_len(row[0]) for row in rows)
    lines = [
        "  ".join(_pad(cell, width) for cell, width in zip(row, widths, strict=False)).rstrip()
        for row in rows
    ]
    return [*lines, "", *_changes(answers, predictor.side), *_explained(predictor.fitted, answers)]


def _pad(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text))


def _changes(answers: Sequence[Answer], side: int) -> list[str]:
    """Return notes on rotated, cropped and resized pictures."""
    read = [answer.picture for answer in answers if answer.picture.decoded]
    changes = [picture.decoded.changes for picture in read if picture.decoded]
    return change_notes([picture.name for picture in read], changes, side)


def _explained(fitted: Fitted, answers: Sequence[Answer]) -> list[str]:
    """Say what the confidences are, and what "unlike" means if an answer is."""
    lines = []
    if fitted.temperature is not None:
        of = f"{fitted.images:,} validation images"
        where = f"from {fitted.source}" if fitted.source != VALIDATION else f"fitted on {of}"
        lines.append(f"confidences are calibrated: temperature {fitted.temperature:.2f}, {where}")
    unlike = sum(bool(answer.unlike) for answer in answers)
    if unlike:
        lines.append(
            f"{counted(unlike, 'image')} {UNLIKE}: a lower energy score than 95 % of the "
            f"validation images (threshold {fitted.threshold:.2f}); do not rely on the answer"
        )
    return lines


def _to_json(answers: Sequence[Answer], predictor: Predictor, top: int) -> dict[str, Any]:
    """Return all answers as plain data."""
    fitted = predictor.fitted
    return {
        "format": FORMAT,
        "networks": [str(network.path) for network in predictor.networks],
        "seeds": list(predictor.seeds),
        "classes": list(predictor.classes),
        "temperature": fitted.temperature,
        "temperature_from": fitted.source if fitted.temperature else None,
        "energy_threshold": fitted.threshold,
        "validation_images": fitted.images,
        "notes": list(predictor.notes),
        "images": [_picture(answer, top) for answer in answers],
    }


def _picture(answer: Answer, top: int) -> dict[str, Any]:
    """Return one answer as plain data."""
    picture, found, row = answer.picture, answer.predictions, answer.row
    if found is None or picture.decoded is None:
        return {"image": picture.name, "error": picture.error}
    width, height = picture.decoded.size
    return {
        "image": picture.name,
        "width": width,
        "height": height,
        "changes": sorted(picture.decoded.changes),
        "answer": found.names[row],
        "confidence": float(found.confidence[row]),
        "top": [{"class": name, "probability": share} for name, share in found.top(row, top)],
        "probabilities": found.probabilities[row].tolist(),
        "energy": float(found.energy[row]),
        "unlike_training": answer.unlike,
        "answer_of_each_network": [found.classes[vote] for vote in found.votes[:, row]],
        "networks_that_agree": int(found.agree[row]),
        "disagreement_nats": float(found.disagreement[row]),
    }


def _draw(path: Path, answers: Sequence[Answer], top: int) -> None:
    """Write the figure of the first pictures that were read."""
    from cifar_jax.report.drawing import render
    from cifar_jax.report.montage import Answered, montage

    drawn: list[Answered] = []
    for answer in answers[:MOST_DRAWN]:
        decoded, found = answer.picture.decoded, answer.predictions
        if decoded is None or decoded.preview is None or found is None:
            continue
        agree = f"{answer.agree} seeds agree" if answer.agree else ""
        name, whole = Path(answer.picture.name).name, np.asarray(decoded.preview)
        best = found.top(answer.row, min(top, 3))
        drawn.append(Answered(name, whole, decoded.pixels, best, agree, bool(answer.unlike)))
    if not drawn:
        raise UserError(f"--montage {path}: no image could be read, so there is no figure")
    title = "The whole image, what the network sees, and its answer"
    if len(answers) > MOST_DRAWN:
        title += f"; the first {MOST_DRAWN} of {len(answers):,} images"
    write_bytes(path, render(lambda: montage(drawn, title)).png())
