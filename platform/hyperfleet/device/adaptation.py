"""Adaptation on the device without cloud, labels and backpropagation: what generated heads compete with.

Every function answers the samples of one device in order of time. An answer uses the samples up to its own
and none after it. Nothing is sent.
"""

import numpy as np
from jaxtyping import Float, Int
from scipy.special import log_softmax, softmax

# Iterations after which expectation-maximisation has settled for streams of tens of samples.
NUM_EM_STEPS = 30
# Samples kept per class by T3A (its paper tries 1 to 100), and neighbors of LAME's affinity.
T3A_KEPT = 20
LAME_NEIGHBORS = 5
NUM_LAME_STEPS = 50


def prior_corrected(
    logits: Float[np.ndarray, "sample output"], prior: Float[np.ndarray, " output"]
) -> Int[np.ndarray, " sample"]:
    """Answer with posteriors under the device's own class prior, estimated by expectation-maximisation.

    `prior` are the class frequencies in training. Saerens, Latinne and Decaestecker, Neural Computation 2002,
    equations 2.7 to 2.9.
    """
    posterior = softmax(logits, axis=1)
    answers = np.empty(len(logits), np.int64)
    for seen in range(1, len(logits) + 1):
        own, corrected = prior, posterior[:seen]
        for _ in range(NUM_EM_STEPS):
            corrected = posterior[:seen] * (own / prior)
            corrected /= corrected.sum(axis=1, keepdims=True)
            own = corrected.mean(axis=0)
        answers[seen - 1] = corrected[-1].argmax()
    return answers


def t3a(
    hidden: Float[np.ndarray, "sample hidden"],
    logits: Float[np.ndarray, "sample output"],
    weight: Float[np.ndarray, "output hidden"],
) -> Int[np.ndarray, " sample"]:
    """Answer by the nearest class mean of the surest samples so far, which begins at the head's weights.

    T3A, Iwasawa and Matsuo, NeurIPS 2021: `T3A_KEPT` samples of least entropy per pseudo-label; directions
    are compared, so that the bias counts for pseudo-labels only. The paper lets the weights compete with the
    samples for a place; here they always keep theirs, because devices have few samples.
    """
    log_p = log_softmax(logits, axis=1)
    entropy = -(np.exp(log_p) * log_p).sum(axis=1)
    pseudo = logits.argmax(axis=1)
    unit, start = _unit(hidden), _unit(weight)
    kept: dict[int, list[int]] = {}
    centers = start.copy()
    answers = np.empty(len(hidden), np.int64)
    for sample in range(len(hidden)):
        label = int(pseudo[sample])
        members = sorted([*kept.get(label, []), sample], key=lambda each: entropy[each])[:T3A_KEPT]
        kept[label] = members
        centers[label] = _unit((start[label] + unit[members].sum(axis=0))[None])[0]
        answers[sample] = (centers @ unit[sample]).argmax()
    return answers


def lame(
    hidden: Float[np.ndarray, "sample hidden"], logits: Float[np.ndarray, "sample output"]
) -> Int[np.ndarray, " sample"]:
    """Answer with posteriors that agree between neighbors.

    LAME, Boudiaf, Mueller, Ben Ayed and Bertinetto, CVPR 2022: fixed point of its equation 6 with a
    k-nearest-neighbor affinity.
    """
    log_p = log_softmax(logits, axis=1)
    unit = _unit(hidden)
    answers = np.empty(len(hidden), np.int64)
    for seen in range(1, len(hidden) + 1):
        affinity = _neighbors(unit[:seen])
        assigned = np.exp(log_p[:seen])
        for _ in range(NUM_LAME_STEPS):
            assigned = softmax(log_p[:seen] + affinity @ assigned, axis=1)
        answers[seen - 1] = assigned[-1].argmax()
    return answers


def _unit(rows: Float[np.ndarray, "row hidden"]) -> Float[np.ndarray, "row hidden"]:
    unit: np.ndarray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return unit


def _neighbors(unit: Float[np.ndarray, "sample hidden"]) -> Float[np.ndarray, "sample sample"]:
    """Return the symmetric affinity: 1/2 per direction in which one is among the other's neighbors."""
    affinity = np.zeros((len(unit), len(unit)))
    count = min(LAME_NEIGHBORS, len(unit) - 1)
    if count:
        cosine = unit @ unit.T
        np.fill_diagonal(cosine, -np.inf)
        nearest = np.argpartition(-cosine, count - 1, axis=1)[:, :count]
        np.put_along_axis(affinity, nearest, 1.0, axis=1)
    return (affinity + affinity.T) / 2
