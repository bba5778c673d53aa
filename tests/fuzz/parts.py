"""Inputs of several parts, for example a configuration and its policy, and changes of texts."""

import random

from tests.fuzz.target import Mutator

SEPARATOR = b"\n%%%%\n"
"""Between two parts of an input; no format that is fuzzed contains this line."""


def split_parts(content: bytes, count: int) -> list[bytes]:
    """Return exactly ``count`` parts of an input; missing parts are empty."""
    parts = content.split(SEPARATOR, count - 1)
    return [*parts, *[b""] * (count - len(parts))]


def join_parts(*parts: bytes) -> bytes:
    """Return the input with these parts."""
    return SEPARATOR.join(parts)


def parts_mutator(*mutators: Mutator) -> Mutator:
    """Return a mutator that changes one part; there is a mutator for each part."""

    def mutate(content: bytes, source: random.Random) -> bytes | None:
        parts = content.split(SEPARATOR, len(mutators) - 1)
        index = source.randrange(len(mutators)) if source.random() < 0.3 else 0
        parts += [b""] * (index + 1 - len(parts))
        changed = mutators[index](parts[index], source)
        if changed is None:
            return None
        return join_parts(*parts[:index], changed, *parts[index + 1 :])

    return mutate


def word_mutator(*words: str) -> Mutator:
    """Return a mutator that inserts words, and repeats parts of a text."""
    encoded = [word.encode() for word in words]

    def mutate(content: bytes, source: random.Random) -> bytes:
        for _ in range(source.choice((1, 1, 2, 5))):
            position = source.randrange(len(content) + 1)
            end = min(len(content), position + source.choice((0, 0, 1, 2, 8)))
            inserted = (
                source.choice(encoded) if source.random() < 0.8 else content[position:end] * source.choice((2, 9, 99))
            )
            content = content[:position] + inserted + content[end:]
        return content

    return mutate
