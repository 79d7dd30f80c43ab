"""How many edits lie between two transcripts: token and word error rates, and greedy CTC decoding."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

from w8a16.errors import ShapeError


def edit_distance(reference: Sequence[Hashable], other: Sequence[Hashable]) -> int:
    """The least number of insertions, deletions and substitutions that turn one into the other.

    Source: V. Levenshtein, Soviet Physics Doklady 10 (1966).

    Example:
        >>> edit_distance("kitten", "sitting")
        3
    """
    row = list(range(len(other) + 1))  # distances from what was read of `reference` to starts of `other`
    for i, token in enumerate(reference, start=1):
        diagonal, row[0] = row[0], i
        for j, candidate in enumerate(other, start=1):
            kept_or_replaced = diagonal + (token != candidate)
            diagonal = row[j]
            row[j] = min(row[j] + 1, row[j - 1] + 1, kept_or_replaced)
    return row[-1]


def error_rate(references: Sequence[Sequence[Hashable]], others: Sequence[Sequence[Hashable]]) -> float:
    """Edits over all pairs, divided by the tokens of all references; 0 if there are neither.

    For words, pass lists of words. More edits than tokens make it larger than 1; it is infinite where
    all references are empty and the others are not.

    Raises:
        ShapeError: not one for each.

    Example:
        >>> error_rate(["the cat sat".split()], ["the cat".split()])
        0.3333333333333333
    """
    if len(references) != len(others):
        raise ShapeError(f"expected a transcript for each reference, got {len(references)} and {len(others)}")
    edits = sum(edit_distance(ours, theirs) for ours, theirs in zip(references, others, strict=True))
    tokens = sum(map(len, references))
    if edits == 0:
        return 0.0
    return edits / tokens if tokens else float("inf")


def ctc_collapse(frames: Iterable[int], blank: int = 0) -> list[int]:
    """The tokens that the best label of each frame stands for: repeats become one, blanks go.

    Source: A. Graves et al., Connectionist Temporal Classification, ICML 2006, section 3.

    Example:
        >>> ctc_collapse([0, 7, 7, 0, 7, 5, 5, 0])
        [7, 7, 5]
    """
    tokens, before = [], blank
    for label in frames:
        if label not in (before, blank):
            tokens.append(label)
        before = label
    return tokens


def split_words(tokens: Sequence[int], separator: int) -> list[tuple[int, ...]]:
    """Words as tuples of tokens, where one token separates them.

    Example:
        >>> split_words([5, 6, 4, 4, 7], separator=4)
        [(5, 6), (7,)]
    """
    words: list[list[int]] = [[]]
    for token in tokens:
        if token == separator:
            words.append([])
        else:
            words[-1].append(token)
    return [tuple(word) for word in words if word]
