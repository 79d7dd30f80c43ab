"""Each task over batches against its metric over everything at once."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from w8a16.errors import ComparisonError, ShapeError, UsageError
from w8a16.study.compare import task_named
from w8a16.study.compare.tasks import TASKS, ClassificationTask, CtcTask, ImageTask, Seq2SeqTask
from w8a16.study.metrics import error_rate, kl_divergence, neighbour_overlap, psnr, r2, recall_at_k, ssim

GENERATOR = torch.Generator().manual_seed(0)


def noisy(*shape, noise=0.5):
    a = torch.randn(*shape, generator=GENERATOR)
    return a, a + noise * torch.randn(*shape, generator=GENERATOR)


def in_batches(task, ours, theirs, inputs=lambda part: None, wrap=lambda tensor: tensor, size=4):
    """Update the task four samples at a time, and return its figures."""
    for start in range(0, len(ours), size):
        part = slice(start, start + size)
        task.update(inputs(part), wrap(ours[part]), wrap(theirs[part]))
    return SimpleNamespace(**task.result())


def value(metric):
    return metric.value


# --- language ---------------------------------------------------------------------------------------


def language(inputs, ours, theirs):
    return in_batches(task_named("language"), ours, theirs, inputs, lambda logits: {"logits": logits})


A, B = noisy(10, 7, 13)
TOKENS = torch.randint(13, (10, 7), generator=GENERATOR)
MASK = (torch.arange(7) < torch.randint(2, 8, (10, 1), generator=GENERATOR)).long()


def cross_entropy(logits, targets, kept):
    return functional.cross_entropy(logits.double()[kept], targets[kept])


def test_language():
    """Next tokens, padding left out; a token counts once, whatever batch it is in."""
    found = language(lambda part: {"input_ids": TOKENS[part], "attention_mask": MASK[part]}, A, B)
    kept = MASK.bool()
    assert found.kl.value == pytest.approx(float(kl_divergence(A, B)[kept].mean()))
    assert found.top1_agreement.value == pytest.approx(
        float((A.argmax(-1) == B.argmax(-1))[kept].double().mean())
    )
    after = kept[:, 1:]
    ours, theirs = (math.exp(cross_entropy(x[:, :-1], TOKENS[:, 1:], after)) for x in (A, B))
    assert (found.perplexity_float.value, found.perplexity_int8.value) == pytest.approx((ours, theirs))
    assert found.perplexity_difference.value == pytest.approx(theirs - ours)
    for metric in (found.kl, found.top1_agreement, found.top5_agreement, found.perplexity_difference):
        assert metric.low < metric.value < metric.high
    assert (found.kl.unit, found.kl.better, found.top5_agreement.better) == ("nats/token", "lower", "higher")


@pytest.mark.parametrize("masked", [True, False])
def test_labels_are_read_as_the_models_read_them(masked):
    """Labels that repeat the input are for the position before; those of masked tokens for their own."""
    hidden = torch.rand(10, 7, generator=GENERATOR) < 0.4
    labels = TOKENS.masked_fill(~hidden, -100)
    inputs = TOKENS.masked_fill(hidden, 12) if masked else TOKENS
    found = language(lambda part: {"input_ids": inputs[part], "labels": labels[part]}, A, B)
    if masked:
        expected = cross_entropy(A, TOKENS, hidden)
    else:
        expected = cross_entropy(A[:, :-1], TOKENS[:, 1:], hidden[:, 1:])
    assert found.perplexity_float.value == pytest.approx(math.exp(expected))


def test_language_without_tokens_or_with_one_position():
    assert not hasattr(language(lambda part: (A[part],), A, B), "perplexity_float")
    found = language(lambda part: None, A[:, 0], B[:, 0])
    assert found.kl.value == pytest.approx(float(kl_divergence(A[:, 0], B[:, 0]).mean()))


# --- embedding --------------------------------------------------------------------------------------


def test_embedding():
    """Vectors of tokens are averaged over what the mask keeps."""
    a, b = noisy(10, 7, 6, noise=0.2)
    found = in_batches(
        task_named("embedding"), a, b, lambda part: {"attention_mask": MASK[part]},
        lambda states: {"last_hidden_state": states, "pooler_output": states[:, 0]},
    )  # fmt: skip
    means = [(x * MASK[..., None]).sum(1) / MASK.sum(1, keepdim=True) for x in (a, b)]
    cosines = functional.cosine_similarity(*(m.double() for m in means))
    assert found.cosine.value == pytest.approx(float(cosines.mean()))
    assert found.cosine_least.value == pytest.approx(float(cosines.min()))
    for k in (1, 9):
        expected = neighbour_overlap(*means, k).mean()
        assert getattr(found, f"neighbours_in_common_at_{k}").value == pytest.approx(float(expected))


def test_pairs_of_texts_and_images():
    texts, images = noisy(12, 6), noisy(12, 6)
    images = [t + 0.4 * i for t, i in zip(texts, images, strict=True)]
    task = task_named("embedding")
    for part in (slice(0, 5), slice(5, 12)):
        outputs = [
            {"text_embeds": t[part], "image_embeds": i[part]} for t, i in zip(texts, images, strict=True)
        ]
        task.update(None, *outputs)
    found = task.result()
    for k in (1, 10):
        hits = [recall_at_k(t, i, k) for t, i in zip(texts, images, strict=True)]
        assert found[f"recall_at_{k}_float"].value == float(hits[0].mean())
        assert found[f"recall_at_{k}_difference"].value == pytest.approx(float((hits[1] - hits[0]).mean()))


# --- classification ---------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["batch", "task"])
def test_classification(where):
    a, b = noisy(50, 5)
    labels = torch.where(
        torch.arange(50) % 3 == 0, torch.randint(5, (50,), generator=GENERATOR), a.argmax(-1)
    )
    task = ClassificationTask(labels) if where == "task" else task_named("classification")
    found = in_batches(task, a, b, lambda part: {"labels": labels[part]} if where == "batch" else (a[part],))
    ours, theirs = (x.argmax(-1) == labels for x in (a, b))
    assert found.agreement.value == pytest.approx(float((a.argmax(-1) == b.argmax(-1)).double().mean()))
    assert found.accuracy_float.value == pytest.approx(float(ours.double().mean()))
    assert found.accuracy_difference.value == pytest.approx(
        float(theirs.double().mean() - ours.double().mean())
    )
    assert found.accuracy_difference.low <= found.accuracy_difference.value <= found.accuracy_difference.high
    assert found.only_float_right.value == int((ours & ~theirs).sum()) > 0
    assert 0 < found.mcnemar_p.value <= 1


def test_classes_of_tokens_and_pixels():
    a, b = noisy(6, 4, 5)
    labels = torch.where(torch.arange(4) < 2, -100, a.argmax(-1))
    for wrap, shape in ((lambda x: x, (6, 4)), (lambda x: x.movedim(-1, 1).unsqueeze(2), (6, 1, 4))):
        shaped = labels.reshape(shape)
        batches = [{"labels": shaped[:4]}, {"labels": shaped[4:]}]
        task = task_named("classification")
        found = in_batches(task, a, b, lambda part, batches=batches: batches[part.start // 4], wrap)
        assert found.accuracy_float.value == 1
        assert found.agreement.value == pytest.approx(
            float((a.argmax(-1) == b.argmax(-1))[:, 2:].double().mean())
        )


def test_wrong_labels_are_named():
    a, b = noisy(4, 5)
    with pytest.raises(ShapeError, match=r"labels: expected \[4\], got \[3\]"):
        task_named("classification").update({"labels": torch.zeros(3)}, a, b)
    with pytest.raises(UsageError, match="labels: expected one for each sample, got 3"):
        ClassificationTask([0, 1, 2]).update(None, a, b)


# --- transcripts ------------------------------------------------------------------------------------


def frames(labels):
    return functional.one_hot(torch.tensor(labels), 10).float() * 9


def test_ctc():
    ours = frames([[1, 1, 0, 4, 2, 2], [3, 0, 3, 3, 4, 0]])
    theirs = frames([[1, 0, 1, 4, 2, 0], [3, 3, 3, 0, 4, 5]])
    found = in_batches(CtcTask(separator=4), ours, theirs, size=1)
    # [1, 4, 2] became [1, 1, 4, 2]; [3, 3, 4] became [3, 4, 5]. Words: (1)(2), (3 3), then (1 1)(2), (3)(5).
    expected = error_rate([[1, 4, 2], [3, 3, 4]], [[1, 1, 4, 2], [3, 4, 5]])
    assert found.token_error_rate.value == expected == 3 / 6
    assert found.word_error_rate.value == 3 / 3
    assert found.sequences_unchanged.value == 0
    assert found.kl.value > 0


def test_generated_tokens():
    """Up to the end token; words by the decoder that is given."""
    ours = torch.tensor([[5, 6, 7, 2, 9], [5, 5, 2, 0, 0]])
    theirs = torch.tensor([[5, 7, 7, 2, 8], [5, 5, 2, 1, 1]])
    task = Seq2SeqTask(end=2, decode=lambda tokens: " ".join("a" * token for token in tokens))
    found = in_batches(task, ours, theirs, wrap=lambda ids: {"sequences": ids})
    assert found.token_error_rate.value == found.word_error_rate.value == 1 / 5
    assert found.sequences_unchanged.value == 0.5
    assert not hasattr(found, "kl")


def test_taught_decoders_are_compared_where_there_are_labels():
    a, b = noisy(6, 5, 9, noise=1.0)
    labels = torch.where(torch.arange(5) < 3, 1, -100).expand(6, 5)
    found = in_batches(
        task_named("seq2seq"), a, b, lambda part: {"labels": labels[part]}, lambda x: {"logits": x}
    )
    ours, theirs = (x[:, :3].argmax(-1).tolist() for x in (a, b))
    assert found.token_error_rate.value == error_rate(ours, theirs) > 0
    assert found.kl.value == pytest.approx(float(kl_divergence(a, b)[:, :3].mean()))


# --- pictures and numbers ---------------------------------------------------------------------------


@pytest.mark.parametrize("data_range", [None, 4.0])
def test_images(data_range):
    a, b = noisy(6, 3, 16, 12, noise=0.1)
    task = ImageTask(data_range)
    found = in_batches(task, a, b, wrap=lambda pictures: {"sample": pictures})
    span = a.amax((1, 2, 3)) - a.amin((1, 2, 3)) if data_range is None else data_range
    errors = 10 ** (-psnr(a, b, span) / 10)
    assert found.psnr.value == pytest.approx(-10 * math.log10(float(errors.mean())))
    assert found.psnr.low <= found.psnr.value <= found.psnr.high
    assert found.psnr_least.value == pytest.approx(float(psnr(a, b, span).min()))
    assert found.ssim.value == pytest.approx(float(ssim(a, b, span).mean()))


def test_small_flat_and_moving_pictures():
    a, b = noisy(4, 2, 1, 8, 8, noise=0.1)
    found = in_batches(task_named("image"), a, b)
    span = a.flatten(0, 1).amax((1, 2, 3)) - a.flatten(0, 1).amin((1, 2, 3))
    assert found.ssim.value == pytest.approx(float(ssim(a.flatten(0, 1), b.flatten(0, 1), span, 7).mean()))
    flat = torch.ones(2, 1, 12, 12)
    assert in_batches(task_named("image"), flat, flat).psnr.value == math.inf


@pytest.mark.parametrize("shape", [(20,), (20, 3), (20, 2, 3)])
def test_regression(shape):
    a, b = noisy(*shape)
    truth = a + 0.1
    found = in_batches(task_named("regression"), a + 100, b + 100, lambda part: {"labels": truth[part] + 100})
    flat = [x.reshape(20, -1) for x in (truth, a, b)]
    assert found.r2_against_float.value == pytest.approx(r2(flat[1], flat[2]), rel=1e-4)
    assert found.r2_int8.value == pytest.approx(r2(flat[0], flat[2]), rel=1e-4)
    assert found.r2_difference.value == pytest.approx(r2(flat[0], flat[2]) - r2(flat[0], flat[1]), rel=1e-3)
    expected = ((truth - b).square() - (truth - a).square()).mean()
    assert found.squared_error_difference.value == pytest.approx(float(expected), rel=1e-3)


# --- all of them ------------------------------------------------------------------------------------

OUTPUTS = {
    "language": (4, 7, 13),
    "embedding": (4, 7),
    "classification": (4, 7),
    "ctc": (4, 7, 5),
    "seq2seq": (4, 7, 5),
    "image": (4, 3, 16, 16),
    "regression": (4, 7),
    "any": (4, 7),
}


@pytest.mark.parametrize("name", TASKS)
def test_equal_outputs_have_no_drift_and_more_noise_has_more(name):
    a = torch.randn(OUTPUTS[name], generator=torch.Generator().manual_seed(1))
    noise = torch.randn(OUTPUTS[name], generator=torch.Generator().manual_seed(2))
    drifts = []
    for factor in (0.0, 0.01, 0.02):
        task = task_named(name)
        task.update(None, a, a + factor * noise)
        assert task.result()
        drifts.append(task.drift() if hasattr(task, "drift") else None)
    if drifts[0] is not None:
        assert drifts[0] == pytest.approx(0, abs=1e-15)
        assert drifts[2] / drifts[1] == pytest.approx(4, rel=0.15)  # the square of the noise


@pytest.mark.parametrize("name", [name for name in TASKS if name != "any"])
def test_outputs_without_what_the_task_needs(name):
    with pytest.raises(ComparisonError, match=f"task {name}: expected a float tensor with"):
        task_named(name).update(None, {"flags": torch.ones(3, dtype=torch.bool)}, {})
