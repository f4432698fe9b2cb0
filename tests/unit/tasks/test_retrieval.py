"""Retrieval: ranks, recall and the contrastive loss against loops, and the input of a head."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import top_k_accuracy_score

from hyperfleet.nn import DeviceModel
from hyperfleet.nn.encoder_config import tiny
from hyperfleet.tasks import RETRIEVAL, task
from hyperfleet.tasks.retrieval import RECALL_AT, TEMPERATURE, contrastive_loss, ranks


def unit(num: int, seed: int) -> torch.Tensor:
    drawn = torch.randn(num, 16, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(drawn, dim=1)


@settings(max_examples=50, deadline=None)
@given(
    scores=st.integers(1, 8).flatmap(lambda n: st.lists(st.integers(0, 3), min_size=n * n, max_size=n * n))
)
def test_ranks_equal_a_loop_and_equal_scores_count_against(scores: list[int]) -> None:
    size = math.isqrt(len(scores))
    table = torch.tensor(scores).view(size, size).float()
    expected = [
        sum(table[i, j].item() >= table[i, i].item() for j in range(size) if j != i) for i in range(size)
    ]
    assert ranks(table).tolist() == expected


def test_a_model_that_tells_nothing_apart_finds_nothing() -> None:
    assert ranks(torch.zeros(5, 5)).tolist() == [4] * 5
    assert ranks(torch.eye(5)).tolist() == [0] * 5


def test_scores_that_are_no_numbers_count_against() -> None:
    assert ranks(torch.full((5, 5), torch.nan)).tolist() == [4] * 5
    table = torch.eye(3)
    table[0, 2] = torch.nan
    assert ranks(table).tolist() == [1, 0, 0]


def test_recall_of_1000_clips_among_1000_equals_scikit_learn() -> None:
    video, text = unit(1000, 0), unit(1000, 1)
    text = torch.nn.functional.normalize(text + video, dim=1)
    hits = task(RETRIEVAL).hits(torch.stack([video, text], dim=1), torch.arange(1000))
    assert set(hits) == {f"{direction}@{k}" for direction in ("VR", "TR") for k in RECALL_AT}
    assert all(right.shape == (1000,) for right in hits.values())
    scores = (video @ text.T).numpy()
    # VR asks with a video among the texts, TR with a text among the videos.
    for direction, table in (("VR", scores), ("TR", scores.T)):
        for k in RECALL_AT:
            expected = top_k_accuracy_score(np.arange(1000), table, k=k)
            assert hits[f"{direction}@{k}"].double().mean().item() == pytest.approx(expected)
    assert hits["VR@1"].double().mean() != hits["TR@1"].double().mean()


def naive_loss(video: torch.Tensor, text: torch.Tensor, labels: list[int]) -> float:
    total = 0.0
    for queries, candidates in ((video, text), (text, video)):
        for i, query in enumerate(queries):
            scores = {
                j: math.exp(float(query @ candidate) / TEMPERATURE)
                for j, candidate in enumerate(candidates)
                if j == i or labels[j] != labels[i]
            }
            total -= math.log(scores[i] / sum(scores.values())) / len(video)
    return total


@pytest.mark.parametrize("labels", [[0, 1, 2, 3, 4, 5], [0, 0, 1, 2, 2, 2]])
def test_contrastive_loss_equals_a_loop_and_captions_of_a_clip_are_no_negatives(labels: list[int]) -> None:
    video, text = unit(6, 0), unit(6, 1)
    loss = contrastive_loss(video, text, torch.tensor(labels))
    assert loss.item() == pytest.approx(naive_loss(video, text, labels), rel=1e-5)


def test_nothing_is_lost_where_all_captions_are_of_one_clip() -> None:
    video, text = unit(4, 0).requires_grad_(), unit(4, 1)
    loss = contrastive_loss(video, text, torch.zeros(4, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(video.grad, torch.zeros(4, 16))


@pytest.fixture(scope="module")
def device() -> DeviceModel:
    torch.manual_seed(0)
    return DeviceModel(tiny(50), 256, "embedding").eval().requires_grad_(False)


def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "frames": torch.randint(0, 256, (3, 3, 64, 64, 3), dtype=torch.uint8, generator=generator),
        "token_ids": torch.randint(1, 50, (3, 12), generator=generator),
        "token_mask": torch.ones(3, 12, dtype=torch.bool),
    }


def test_clip_and_caption_are_encoded_apart(device: DeviceModel) -> None:
    retrieval, one = task(RETRIEVAL), batch()
    features = retrieval.encode(device, one)
    assert features.shape == (3, 4, 192)
    other_text = retrieval.encode(device, {**one, "token_ids": one["token_ids"].flip(0)})
    torch.testing.assert_close(other_text[:, :3], features[:, :3])
    torch.testing.assert_close(other_text[:, 3], features[:, 3].flip(0))
    other_clip = retrieval.encode(device, {**one, "frames": one["frames"].flip(0)})
    torch.testing.assert_close(other_clip[:, 3], features[:, 3])


def test_the_upload_and_the_heads_input_come_from_the_clip_alone(device: DeviceModel) -> None:
    retrieval = task(RETRIEVAL)
    features = torch.randn(3, 4, 192)
    other = features.clone()
    other[:, 3] += 1
    assert torch.equal(retrieval.frames(features), features[:, :3])
    assert torch.equal(retrieval.hidden(device, features), retrieval.hidden(device, other))
    torch.testing.assert_close(retrieval.hidden(device, features)[:, 0], features[:, :3].mean(dim=1))


def test_both_embeddings_have_unit_length_and_the_texts_projection_is_static(device: DeviceModel) -> None:
    features, outputs = torch.randn(3, 4, 192), torch.randn(3, 1, 256)
    judged = task(RETRIEVAL).judge(device, features, outputs)
    torch.testing.assert_close(judged.norm(dim=2), torch.ones(3, 2))
    text = device.text_projection(features[:, 3])
    torch.testing.assert_close(judged[:, 1], text / text.norm(dim=1, keepdim=True))
    loss = task(RETRIEVAL).loss(device, features, outputs, torch.arange(3))
    assert loss.item() == pytest.approx(naive_loss(judged[:, 0], judged[:, 1], [0, 1, 2]), rel=1e-4)
