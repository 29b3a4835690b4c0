"""Signatures: a few bytes a layer by which a model's relatives are found among tens of thousands.

A layer's signature is a count sketch (Charikar et al., 2002) of its first neurons, doubly centred and of unit
length each: every coordinate gets a fixed random sign and is added into one of `SIZE` sums. Inner products
survive this on average, with a standard deviation of 1/√SIZE for unrelated layers, so the cosine of two
signatures estimates the mean correlation of the neurons. Fine-tuning, casts and quantisation move it by as
much as they move the weights; names, shards and the vocabulary do not enter it. A signature finds; it proves
nothing.

Norm gains have a signature too, because they survive a permutation of the neurons: the ranks of the gains
over the residual stream, averaged over layers. Training treats all coordinates of the residual stream alike,
so in an independent model they lie in another order.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Codes = NDArray[np.int8]

ROWS = 8
"""Neurons of a layer that enter its signature: the least that the bands of any shape hold."""
SIZE = 64
"""Numbers of a layer's signature."""
GAIN_SIZE = 256
"""Numbers of the signature of the gains: one a model, so that it must stand alone; 1/16 is its noise."""
STEP = 1 / 254
"""Of the quantisation: entries of a unit vector, cut at ±0.5, in int8; they are 1/√SIZE = 0.125 large."""


def layer_signatures(bands: Floats) -> Codes:
    """Signatures of `(layers, rows, width)` neurons, `(layers, SIZE)`; the first `ROWS` rows count."""
    head = bands[:, :ROWS]
    head = head - head.mean(2, keepdims=True)
    head = head - head.mean(1, keepdims=True)
    lengths = np.linalg.norm(head, axis=2, keepdims=True)
    head = head / np.maximum(lengths, 1e-30)
    return _codes(count_sketch(head.reshape(len(head), -1), SIZE))


def gain_signature(ranks: Floats) -> Codes:
    """Signature of a vector of `gain_ranks`, `(GAIN_SIZE,)`."""
    codes: Codes = _codes(count_sketch(ranks[None], GAIN_SIZE))[0]
    return codes


def gain_ranks(gains: Iterable[Floats]) -> Floats | None:
    """Average rank of each coordinate in `(width,)` gains of layers, unit length; None if none varies."""
    rows = [row for gain in gains if (row := _standard_ranks(gain)) is not None]
    if not rows:
        return None
    mean = np.mean(rows, axis=0)
    length = float(np.linalg.norm(mean))
    return (mean / length).astype(np.float32) if length > 1e-6 else None


def count_sketch(rows: Floats, size: int) -> Floats:
    """Fold `(n, length)` into `(n, size)` with fixed signs, the same everywhere; rows of unit length."""
    length = rows.shape[1]
    folds = math.ceil(length / size)
    padded = np.zeros((len(rows), folds * size), np.float32)
    padded[:, :length] = rows * _signs(length)
    folded = padded.reshape(len(rows), folds, size).sum(1)
    scale = np.maximum(np.linalg.norm(folded, axis=1, keepdims=True), 1e-30)
    unit: Floats = folded / scale
    return unit


def as_floats(codes: Codes) -> Floats:
    """What the codes stand for."""
    return codes.astype(np.float32) * np.float32(STEP)


def _codes(unit: Floats) -> Codes:
    codes: Codes = np.clip(np.rint(unit / STEP), -127, 127).astype(np.int8)
    return codes


@lru_cache(maxsize=8)
def _signs(length: int) -> Floats:
    bits = np.frombuffer(hashlib.shake_256(b"forkwatch.signature/1").digest(math.ceil(length / 8)), np.uint8)
    return np.unpackbits(bits)[:length].astype(np.float32) * 2 - 1


def _standard_ranks(gain: Floats) -> Floats | None:
    """Ranks, ties shared, with mean 0 and length 1; None when the gains do not vary."""
    _, inverse, counts = np.unique(gain, return_inverse=True, return_counts=True)
    if len(counts) < 2:
        return None
    ranks = (np.cumsum(counts) - (counts + 1) / 2)[inverse].astype(np.float32)
    ranks -= ranks.mean()
    unit: Floats = ranks / np.linalg.norm(ranks)
    return unit
