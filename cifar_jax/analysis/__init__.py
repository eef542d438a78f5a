"""Measure what accuracy hides, for every run of a study, paired by seed.

The command `analyse` measures each run by each *part*, keeps the numbers in `analysis.json`, and
writes the page again. The page and the command `report` read that file alone.

    part.py       what a part is, and what its section gets to draw
    trained.py    what a part measures: a run with its images, state, logits and features
    numbers.py    means, paired differences, Holm's adjustment, tables and sentences
    measure.py    measures what is missing     record.py    `analysis.json`
    sections.py   from `analysis.json` to sections of the page and lines of the model card

To add a part:

1. Write `cifar_jax/analysis/<name>.py`, and add the name to `PARTS` in `cifar_jax/names.py`.
2. In it, define the record of one run: a frozen `msgspec.Struct` of plain data. A number that may
   be undefined has the type `float | None`.
3. Write `measure(trained: TrainedRun) -> <the record>`. It takes what it needs from `trained`:
   `run.logits` and `run.label` (test images), `state`, `experiment`, `hyper`, `train_images`,
   `val_images`, `outputs(name, images, features=True)`. What is missing raises `Lacking`; then the
   user reads one line, and the other parts continue. Raise `Lacking` yourself for other data.
   A slow `measure` calls `trained.progress(fraction)`.
4. Write `numbers(record) -> list[Number]`: the numbers by which arms are compared. Those of one
   `family` share Holm's adjustment.
5. Write `section(findings) -> Section`: sentences, figures (`StudyFigure`), tables. Use
   `compare_sentences` and `numbers_table`, so that words follow from intervals.
6. End the module with `PART = Part(name=..., title=..., record=..., ...)`.

A flag of a part is a field of `Request` (trained.py) and a flag in `parsers.analyse_parser`. It is
also an entry of `Part.options`: then another value means a new measurement. Raise `Part.version` if
the same run gives another record.
"""
