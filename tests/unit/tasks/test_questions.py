"""Open-ended and multiple-choice questions: encoding, scores and counts."""

import math

import pytest
import torch

from hyperfleet.errors import ConfigError, UnknownNameError
from hyperfleet.nn import DeviceModel
from hyperfleet.nn.encoder_config import tiny
from hyperfleet.tasks import MULTIPLE_CHOICE, OPEN_ENDED_QA, RETRIEVAL, TASKS, Task, task


@pytest.fixture(scope="module")
def device() -> DeviceModel:
    torch.manual_seed(0)
    return DeviceModel(tiny(50), 1, "candidates").eval().requires_grad_(False)


def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "frames": torch.randint(0, 256, (2, 3, 64, 64, 3), dtype=torch.uint8, generator=generator),
        "token_ids": torch.randint(1, 50, (2, 5, 12), generator=generator),
        "token_mask": torch.arange(12).expand(2, 5, -1) < torch.tensor([[3, 12, 5, 7, 4]]).T[None],
    }


def test_each_candidate_is_fused_with_the_clip(device: DeviceModel) -> None:
    one = batch()
    features = task(MULTIPLE_CHOICE).encode(device, one)
    assert features.shape == (2, 5, 3, 192)
    for k in range(5):
        alone = device.encode(one["frames"], one["token_ids"][:, k], one["token_mask"][:, k])
        torch.testing.assert_close(features[:, k], alone, rtol=1e-5, atol=1e-5)


def test_the_choice_equals_a_loop_over_candidates(device: DeviceModel) -> None:
    choice, features = task(MULTIPLE_CHOICE), torch.randn(4, 5, 3, 192)
    hidden = choice.hidden(device, features)
    outputs = device.head(hidden)
    labels = torch.tensor([0, 4, 2, 1])
    chosen, loss = [], 0.0
    for i in range(4):
        scores = []
        for k in range(5):
            pooled = torch.tanh(device.pooler(features[i, k].mean(dim=0)))
            scores.append(float(pooled @ device.head.weight[0] + device.head.bias[0]))
        chosen.append(max(range(5), key=scores.__getitem__))
        loss -= math.log(math.exp(scores[labels[i]]) / sum(map(math.exp, scores))) / 4
    assert choice.judge(device, features, outputs).tolist() == chosen
    assert choice.loss(device, features, outputs, labels).item() == pytest.approx(loss, rel=1e-4)
    hits = choice.hits(torch.tensor(chosen), labels)
    assert hits["accuracy"].tolist() == [c == label for c, label in zip(chosen, labels.tolist(), strict=True)]


def test_a_clip_uploads_one_feature_that_no_order_of_the_candidates_changes() -> None:
    choice, features = task(MULTIPLE_CHOICE), torch.randn(4, 5, 3, 192)
    frames = choice.frames(features)
    assert frames.shape == (4, 3, 192)
    torch.testing.assert_close(frames[2, 1], sum(features[2, k, 1] for k in range(5)) / 5)
    torch.testing.assert_close(choice.frames(features[:, [3, 1, 0, 4, 2]]), frames)


def test_candidates_keep_their_scores_in_another_order(device: DeviceModel) -> None:
    choice, features, order = task(MULTIPLE_CHOICE), torch.randn(4, 5, 3, 192), [3, 1, 0, 4, 2]
    outputs = device.head(choice.hidden(device, features))
    torch.testing.assert_close(device.head(choice.hidden(device, features[:, order])), outputs[:, order])


def test_answers_out_of_the_vocabulary_do_not_train_and_are_wrong() -> None:
    questions = task(OPEN_ENDED_QA)
    device = DeviceModel(tiny(50), 4)
    features, outputs = torch.randn(3, 3, 192), torch.randn(3, 1, 4)
    labels = torch.tensor([2, -1, 0])
    loss = questions.loss(device, features, outputs, labels)
    expected = [-outputs[i, 0].log_softmax(dim=0)[label].item() for i, label in ((0, 2), (2, 0))]
    assert loss.item() == pytest.approx(sum(expected) / 2, rel=1e-5)
    hits = questions.hits(torch.tensor([2, 3, 0]), labels)
    assert hits["accuracy"].tolist() == [True, False, True]


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_a_model_that_diverged_is_never_right(broken: float) -> None:
    scores = torch.zeros(2, 5)
    scores[0, 3] = broken
    scores[1, 2] = 1
    choice, questions = task(MULTIPLE_CHOICE), task(OPEN_ENDED_QA)
    features = torch.zeros(2, 1, 192)
    device = DeviceModel(tiny(50), 5)
    chosen = questions.judge(device, features, scores[:, None])
    assert torch.equal(choice.judge(device, torch.zeros(2, 5, 1, 192), scores[..., None]), chosen)
    for label in range(-1, 5):
        right = questions.hits(chosen, torch.tensor([label, 2]))["accuracy"]
        assert right.tolist() == [False, True]


def test_open_questions_are_answered_from_the_mean_of_the_frames() -> None:
    questions, device = task(OPEN_ENDED_QA), DeviceModel(tiny(50), 4).eval()
    features = torch.randn(3, 3, 192)
    hidden = questions.hidden(device, features)
    assert hidden.shape == (3, 1, 96)
    torch.testing.assert_close(hidden, questions.hidden(device, features.flip(1)))
    mean = features.mean(dim=1)
    torch.testing.assert_close(hidden[:, 0], device.trunk(torch.tanh(device.pooler(mean))))
    assert torch.equal(questions.frames(features), features)


def test_sizes_of_the_heads() -> None:
    # One class more than there are answers, as in All-in-One; it is never a target.
    assert task(OPEN_ENDED_QA).num_outputs(1500) == 1501
    assert task(MULTIPLE_CHOICE).num_outputs(None) == 1
    assert task(RETRIEVAL).num_outputs(None) == 256
    with pytest.raises(ConfigError, match="vocabulary of answers"):
        task(OPEN_ENDED_QA).num_outputs(None)
    for num_outputs, readout in ((1, "answers"), (2, "candidates"), (0, "embedding")):
        with pytest.raises(ConfigError, match="outputs"):
            DeviceModel(tiny(50), num_outputs, readout)


def test_tasks_are_found_by_name() -> None:
    assert all(isinstance(each, Task) and each.name == name for name, each in TASKS.items())
    with pytest.raises(UnknownNameError, match="multiple-choice"):
        task("counting")
