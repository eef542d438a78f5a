"""Build command lines from common flags and flags that replace some of them."""


def last_of_each(argv: list[str]) -> list[str]:
    """Return the words of a command line, with only the last of a repeated option.

    In the program a repeated option is an error.
    """
    starts = [at for at, word in enumerate(argv) if word.startswith("--")]
    kept: dict[str, list[str]] = {}
    for at, end in zip(starts, [*starts[1:], len(argv)], strict=True):
        kept.pop(argv[at], None)
        kept[argv[at]] = argv[at:end]
    first = argv[: starts[0]] if starts else argv
    return [*first, *(word for words in kept.values() for word in words)]
