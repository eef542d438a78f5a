"""Command lines made of common flags and of others that replace some of them."""


def last_of_each(argv: list[str]) -> list[str]:
    """The words of a command line, of each option that is given twice only the last.

    The program refuses an option that is given twice.
    """
    starts = [at for at, word in enumerate(argv) if word.startswith("--")]
    kept: dict[str, list[str]] = {}
    for at, end in zip(starts, [*starts[1:], len(argv)], strict=True):
        kept.pop(argv[at], None)
        kept[argv[at]] = argv[at:end]
    first = argv[: starts[0]] if starts else argv
    return [*first, *(word for words in kept.values() for word in words)]
