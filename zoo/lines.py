"""What a name may hold: one line, without what commands a terminal or turns it around."""

import unicodedata

#: Unicode's embeddings, overrides and isolates, which turn what follows around: with them one name looks like another
TURNING = {*map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}
CONTROL = {"Cc", "Cs", "Zl", "Zp"}  # control characters, halves of a surrogate pair, ends of lines and of paragraphs


def is_line(text: str) -> bool:
    """Whether a text is one line without control characters; in any script, with all of its spaces and joiners."""
    return not any(unicodedata.category(c) in CONTROL or c in TURNING for c in text)
