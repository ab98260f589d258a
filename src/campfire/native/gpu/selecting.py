"""Triton kernels: the best of many, exactly, in many tensors at once, by a histogram of radix digits.

A *part* is a tensor whose units compete: runs of ``grain`` neighbouring weights that live or die together. Each unit's
score becomes a key, an unsigned integer in the order of the floats, 0 where dead. Three rounds of counting digits (11, 11,
10 bits) find the key at the cut; of the units that tie there the last are kept. All counts are integers: results do not
depend on the order in which programs run.

A *chunk* is what one program takes: ``owner`` tells its part, ``place`` its first unit there. Parts are told by 8 numbers,
see `FIELDS`, and by addresses: tables of pointers, so that one launch serves every layer of a network. Loops whose length is
not known when a kernel is compiled are ``while``: Triton's interpreter takes no other.
"""

# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false, reportArgumentType=false
import triton
import triton.language as tl

FIELDS = ("units", "grain", "channels", "taps", "by_output", "by_channel", "by_tap", "first")
WIDTH = tl.constexpr(8)  # fields of a part; by_*: strides, first: where its units start among all
BINS = tl.constexpr(2048)
NAN = tl.constexpr(0xFFFFFFFF)  # above all, as numpy sorts it; never kept
KEEP_ALL = tl.constexpr(1)
REFUSED = tl.constexpr(2)


@triton.jit
def _key(bits, ABSOLUTE: tl.constexpr):
    """Of the bits of a float: -0.0 equals 0.0. Integers only, so that denormals are not flushed."""
    magnitude = bits & 0x7FFFFFFF
    if ABSOLUTE:
        bits = magnitude
    bits = tl.where(magnitude == 0, magnitude, bits)
    key = tl.where((bits >> 31) != 0, bits ^ 0xFFFFFFFF, bits | 0x80000000)
    return tl.where(magnitude > 0x7F800000, NAN, key)


@triton.jit
def write_keys(values, alives, parts, owners, places, keys, ABSOLUTE: tl.constexpr, CHUNK: tl.constexpr):
    """keys [all units]: of each unit the largest score (its magnitude, if ``ABSOLUTE``), 0 where nothing of it lives."""
    owner = tl.load(owners + tl.program_id(0))
    unit = tl.load(places + tl.program_id(0)) + tl.arange(0, CHUNK)
    part = parts + owner * WIDTH
    units, grain, channels, taps = tl.load(part), tl.load(part + 1), tl.load(part + 2), tl.load(part + 3)
    by_output, by_channel, by_tap = tl.load(part + 4), tl.load(part + 5), tl.load(part + 6)
    value = tl.load(values + owner).to(tl.pointer_type(tl.uint32))
    alive = tl.load(alives + owner).to(tl.pointer_type(tl.uint8))
    always = tl.load(alives + owner) == 0
    inside = unit < units
    key = tl.zeros([CHUNK], tl.uint32)
    living = tl.zeros([CHUNK], tl.int32)
    j = grain * 0
    while j < grain:
        i = unit * grain + j
        at = i // (channels * taps) * by_output + i // taps % channels * by_channel + i % taps * by_tap
        key = tl.maximum(key, _key(tl.load(value + at, mask=inside, other=0), ABSOLUTE))
        living |= tl.load(alive + i, mask=inside & (always == 0), other=0).to(tl.int32)
        j += 1
    key = tl.where((living != 0) | always, key, 0)
    tl.store(keys + tl.load(part + 7) + unit, key.to(tl.int32, bitcast=True), mask=inside)


@triton.jit
def _chunk_of_keys(keys, parts, owner, unit):
    part = parts + owner * WIDTH
    return tl.load(keys + tl.load(part + 7) + unit, mask=unit < tl.load(part), other=0).to(tl.uint32, bitcast=True)


@triton.jit
def count_digits(
    keys, parts, owners, places, cuts, counts, SHIFT: tl.constexpr, BITS: tl.constexpr, CHUNK: tl.constexpr
):
    """counts [parts, BINS] += how many living keys that agree with the cut so far have each next digit."""
    owner = tl.load(owners + tl.program_id(0))
    key = _chunk_of_keys(keys, parts, owner, tl.load(places + tl.program_id(0)) + tl.arange(0, CHUNK))
    counted = key != 0
    if SHIFT + BITS < 32:
        counted &= (key >> (SHIFT + BITS)) == tl.load(cuts + owner).to(tl.uint32, bitcast=True)
    digit = tl.where(counted, ((key >> SHIFT) & ((1 << BITS) - 1)).to(tl.int32), 0)
    found = tl.histogram(digit, BINS)
    bin = tl.arange(0, BINS)
    found -= tl.where(bin == 0, tl.sum((counted == 0).to(tl.int32), 0), 0)  # what does not count was told as digit 0
    tl.atomic_add(counts + owner * BINS + bin, found, mask=found > 0)


@triton.jit
def narrow(counts, cuts, wanteds, states, FIRST: tl.constexpr, BITS: tl.constexpr):
    """Append the digit that holds the ``wanted``-th largest key to each cut, and look for the rest of them below."""
    part = tl.program_id(0)
    bin = tl.arange(0, BINS)
    found, wanted = tl.load(counts + part * BINS + bin), tl.load(wanteds + part)
    if FIRST:
        living = tl.sum(found, 0)
        all_of_them = tl.where(wanted >= living, KEEP_ALL, 0)
        tl.store(states + part, tl.where(wanted > living, KEEP_ALL | REFUSED, all_of_them))
    digit = tl.maximum(tl.sum((tl.cumsum(found, 0, reverse=True) >= wanted).to(tl.int32), 0) - 1, 0)
    tl.store(wanteds + part, wanted - tl.sum(tl.where(bin > digit, found, 0), 0))
    tl.store(cuts + part, digit if FIRST else (tl.load(cuts + part) << BITS) | digit)


@triton.jit
def count_ties(keys, parts, owners, places, cuts, ties, nans, CHUNK: tl.constexpr):
    """Of every chunk how many keys are the cut, and how many are NaN."""
    chunk = tl.program_id(0)
    owner = tl.load(owners + chunk)
    key = _chunk_of_keys(keys, parts, owner, tl.load(places + chunk) + tl.arange(0, CHUNK))
    tied = (key == tl.load(cuts + owner).to(tl.uint32, bitcast=True)) & (key != NAN)
    tl.store(ties + chunk, tl.sum(tied.to(tl.int32), 0))
    tl.store(nans + chunk, tl.sum((key == NAN).to(tl.int32), 0))


@triton.jit
def settle(ties, nans, firsts, cuts, wanteds, states, after, BLOCK: tl.constexpr):
    """after [chunks]: ties behind each chunk; wanteds: ties to keep, standing in for NaN that ranks above the cut."""
    part = tl.program_id(0)
    first, last = tl.load(firsts + part), tl.load(firsts + part + 1)
    seen, nan, end = first * 0, first * 0, last
    while end > first:
        at = end - 1 - tl.arange(0, BLOCK)
        tied = tl.load(ties + at, mask=at >= first, other=0)
        tl.store(after + at, seen + tl.cumsum(tied, 0) - tied, mask=at >= first)
        seen += tl.sum(tied, 0)
        nan += tl.sum(tl.load(nans + at, mask=at >= first, other=0), 0)
        end -= BLOCK
    cut_is_nan = tl.load(cuts + part).to(tl.uint32, bitcast=True) == NAN
    missing = tl.load(wanteds + part) + tl.where(cut_is_nan, 0, nan)
    tl.store(wanteds + part, missing)
    state = tl.load(states + part)
    tl.store(states + part, tl.where((missing > seen) & (state == 0), REFUSED, state))


@triton.jit
def write_keep(keys, parts, owners, places, cuts, wanteds, states, after, outputs, keep, CHUNK: tl.constexpr):
    """keep [all weights]: a byte for each weight of the units above the cut, and of the last of those that tie."""
    chunk = tl.program_id(0)
    owner = tl.load(owners + chunk)
    unit = tl.load(places + chunk) + tl.arange(0, CHUNK)
    key = _chunk_of_keys(keys, parts, owner, unit)
    cut = tl.load(cuts + owner).to(tl.uint32, bitcast=True)
    tied = ((key == cut) & (key != NAN)).to(tl.int32)
    late = tl.load(after + chunk) + tl.cumsum(tied, 0, reverse=True) <= tl.load(wanteds + owner)
    best = ((key > cut) & (key != NAN)) | ((tied != 0) & late)
    everything = (tl.load(states + owner) & KEEP_ALL) != 0
    kept = tl.where(everything, key != 0, best).to(tl.uint8)
    units, grain = tl.load(parts + owner * WIDTH), tl.load(parts + owner * WIDTH + 1)
    start = tl.load(outputs + owner)
    j = grain * 0
    while j < grain:
        tl.store(keep + start + unit * grain + j, kept, mask=unit < units)
        j += 1


@triton.jit
def count_lost(masks, lengths, owners, places, lost, BLOCK: tl.constexpr):
    """lost [masks] += 1 for an output, ``lengths`` bytes in a row, that no weight reaches."""
    owner = tl.load(owners + tl.program_id(0))
    length = tl.load(lengths + owner)
    row = tl.load(masks + owner).to(tl.pointer_type(tl.uint8)) + tl.load(places + tl.program_id(0)) * length
    at, found = length * 0, tl.zeros([BLOCK], tl.int32)
    while at < length:
        entry = at + tl.arange(0, BLOCK)
        found |= tl.load(row + entry, mask=entry < length, other=0).to(tl.int32)
        at += BLOCK
    dead = (tl.sum(found, 0) == 0).to(tl.int32)
    tl.atomic_add(lost + owner, dead, mask=dead != 0)
