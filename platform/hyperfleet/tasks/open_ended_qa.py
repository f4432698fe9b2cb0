"""Open-ended video question answering: one of C answers for a clip and a question."""

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

OPEN_ENDED_QA = "open-ended-qa"
OUT_OF_VOCABULARY = -1


def answer_loss(logits: Float[Tensor, "sample class"], labels: Int[Tensor, " sample"]) -> Float[Tensor, ""]:
    """Cross entropy over the answers; samples whose answer is out of the vocabulary do not train."""
    return functional.cross_entropy(logits, labels, ignore_index=OUT_OF_VOCABULARY)


def num_correct(logits: Float[Tensor, "sample class"], labels: Int[Tensor, " sample"]) -> Int[Tensor, ""]:
    """Number of samples answered right; an answer out of the vocabulary cannot be, and counts as wrong."""
    return (logits.argmax(dim=-1) == labels).sum()
