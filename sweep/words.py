"""Numbers in sentences."""


def counted(number: int, noun: str, plural: str = "") -> str:
    """So many things, in words: "1 run", "1,200 runs"; `plural` where that is not the noun with an s."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"
