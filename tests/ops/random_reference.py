"""ops/kernels/random.h again in numpy, written from its description: what the tests compare with."""

import numpy as np

MASK = np.uint64(0xFFFFFFFF)
DROPOUT, ORDER = 0x44524F50, 0x4F524445


def philox(seed, tag, c0, c1, c2, c3):
    """Four uint64 arrays holding the 32-bit words of Philox4x32-10."""
    counters = np.broadcast_arrays(c0, c1, c2, c3)
    c0, c1, c2, c3 = (np.asarray(c).astype(np.uint64) for c in counters)
    seed = int(seed) & 0xFFFFFFFFFFFFFFFF
    k0, k1 = (seed & 0xFFFFFFFF) ^ tag, seed >> 32
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (
            (p1 >> np.uint64(32)) ^ c1 ^ np.uint64(k0),
            p1 & MASK,
            (p0 >> np.uint64(32)) ^ c3 ^ np.uint64(k1),
            p0 & MASK,
        )
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3


def dropout_mask(seed, step, layer, p, time_steps, batch, hidden):
    """[T, B, H] float64: 0 where a unit is dropped, the scale where it is kept."""
    threshold = int(np.float32(p) * np.float32(65536) + np.float32(0.5))
    blocks = (time_steps + 7) // 8
    block = np.arange(blocks).reshape(-1, 1, 1)
    row = np.arange(batch).reshape(1, -1, 1)
    unit = np.arange(hidden).reshape(1, 1, -1)
    step = int(step)
    words = philox(
        seed, DROPOUT, row, unit | block << 16 | layer << 24, step & 0xFFFFFFFF, step >> 32
    )
    halves = np.stack([half for w in words for half in (w & np.uint64(0xFFFF), w >> np.uint64(16))])
    keep = np.moveaxis(halves >= threshold, 0, 1).reshape(blocks * 8, batch, hidden)
    return keep[:time_steps] * (65536.0 / (65536.0 - threshold))


def order(count, seed, epoch):
    """[count] int64: the sample trained at each position of the epoch."""
    keys = [int(w) for c in (0, 1) for w in philox(seed, ORDER, epoch, c, 0, 0)]
    half = 1
    while half < 16 and 1 << 2 * half < count:
        half += 1
    mask = (1 << half) - 1

    def walk(position):
        while True:
            left, right = position >> half, position & mask
            for key in keys:
                mixed = ((right ^ key) * 0x9E3779B1) & 0xFFFFFFFF
                mixed ^= mixed >> 15
                mixed = (mixed * 0x85EBCA77) & 0xFFFFFFFF
                mixed ^= mixed >> 13
                left, right = right, (left ^ mixed) & mask
            position = left << half | right
            if position < count:
                return position

    return np.array([walk(i) for i in range(count)])
