"""Verify a quantized checkpoint: checksums, invariants, and every weight against its original."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from w8a16.checkpoint.container.shards import Shards
from w8a16.checkpoint.opened import Checkpoint
from w8a16.checkpoint.streaming.buffers import Buffers
from w8a16.checkpoint.streaming.files import SourceFile
from w8a16.checkpoint.verification.pairing import Original, Pairing, Weight, pair
from w8a16.checkpoint.verification.report import Finding, Report
from w8a16.checkpoint.verification.stored import (
    PartOutcome,
    StoredPart,
    StoredTally,
    check_part,
    parts_of,
    stored_parts,
    unflattened,
)
from w8a16.checkpoint.verification.weights import (
    BlockOutcome,
    Place,
    WeightBlock,
    check_block,
    weight_blocks,
)
from w8a16.checkpoint.verification.work import run_all

Progress = Callable[[int, int], None]
"""Called as `(bytes done, bytes in all)`."""


def verify_checkpoint(
    checkpoint: Checkpoint,
    original: Original | None = None,
    progress: Progress = lambda done, total: None,
) -> Report:
    """Read everything once and say what is wrong; headers and manifests have been checked by opening it.

    Memory does not grow with the size of tensors, files or checkpoints.

    Args:
        checkpoint: from `open_checkpoint`.
        original: what it was made from; then every weight must be within half a step of it, and every
            other tensor the same to the bit.
        progress: called in this thread.

    Raises:
        ResourceError: a file cannot be read, or was changed meanwhile.
    """
    pairing = Pairing() if original is None else pair(checkpoint, original)
    shards = [checkpoint.shards] if original is None else [checkpoint.shards, original.shards]
    files = [[SourceFile(header) for header in each.headers] for each in shards]
    stored, weights = StoredTally(), _WeightTally()
    jobs: list[StoredPart | WeightBlock] = list(stored_parts(checkpoint, files[0]))
    if original is not None:
        places = [_places(each, opened) for each, opened in zip(shards, files, strict=True)]
        jobs += _comparisons(pairing, *places)
    total = sum(job.size for job in jobs)
    done = 0

    def take(job: StoredPart | WeightBlock, outcome: PartOutcome | BlockOutcome) -> None:
        nonlocal done
        done += job.size
        if isinstance(job, StoredPart) and isinstance(outcome, PartOutcome):
            stored.take(job, outcome)
        elif isinstance(job, WeightBlock) and isinstance(outcome, BlockOutcome):
            weights.take(job, outcome)
        progress(done, total)

    try:
        run_all(jobs, _run, take)
        for file in (file for opened in files for file in opened):
            file.finish()
    finally:
        for file in (file for opened in files for file in opened):
            file.close()
    findings = [*pairing.findings, *stored.findings(checkpoint), *weights.findings()]
    for name, other in pairing.copies.items():
        assert original is not None  # else there are no copies
        if stored.crc(checkpoint.shards, name) != stored.crc(original.shards, other):
            findings.append(Finding(name, "kept as it was, but not the same as in the original"))
    tensors = checkpoint.shards.tensors
    return Report(
        tensors=len(tensors),
        bytes=sum(info.size for info in tensors.values()),
        checksums=len(checkpoint.manifest.checksums),
        lowest_codes=stored.lowest_codes,
        compared=len(pairing.weights) + len(pairing.copies),
        not_compared=pairing.not_compared,
        findings=tuple(findings),
    )


class _WeightTally:
    """What is off in each weight."""

    def __init__(self) -> None:
        self._off: dict[str, tuple[Weight, BlockOutcome]] = {}

    def take(self, block: WeightBlock, outcome: BlockOutcome) -> None:
        if not outcome.count:
            return
        _, known = self._off.get(block.weight.codes, (block.weight, outcome))
        count = outcome.count if known is outcome else known.count + outcome.count
        joined = BlockOutcome(count, min(known.first, outcome.first), max(known.worst, outcome.worst))
        self._off[block.weight.codes] = block.weight, joined

    def findings(self) -> Iterator[Finding]:
        for weight, off in self._off.values():
            problem = f"more than half a step from the original, by up to {off.worst:.6g} half-steps"
            yield Finding(weight.codes, problem, off.count, unflattened(off.first, weight.record.shape))


def _run(job: StoredPart | WeightBlock, buffers: Buffers) -> PartOutcome | BlockOutcome:
    return check_part(job, buffers) if isinstance(job, StoredPart) else check_block(job, buffers)


def _places(shards: Shards, files: list[SourceFile]) -> dict[str, Place]:
    return {name: Place(file, info) for file in files for name, info in file.header.tensors.items()}


def _comparisons(
    pairing: Pairing, places: dict[str, Place], originals: dict[str, Place]
) -> Iterator[StoredPart | WeightBlock]:
    for weight in pairing.weights:
        yield from weight_blocks(weight, places, originals)
    for name in dict.fromkeys(pairing.copies.values()):
        place = originals[name]
        yield from parts_of(place.file, name, place.info, None)
