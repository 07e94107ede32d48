/* What a group's values are written as, and read from: tokens, and the raw bits that these leave out. Included
   by kernels_width.h. */

/* How many low bits a token leaves out, and the token. With SUB = 3 both follow from one rule, without a branch. */
static inline int NAME(raw_bits)(uint64_t u) {
    if (BITS == 8) return 0;
    if (SUB == 3) return 63 - SUB - __builtin_clzll(u | SMALL >> 1);
    return u < SMALL ? 0 : 63 - SUB - __builtin_clzll(u);
}

static inline uint8_t NAME(token)(uint64_t u, int left) {
    if (BITS == 8 || (SUB != 3 && u < SMALL)) return (uint8_t)u;
    return (uint8_t)((left << SUB) + (int)(u >> left) + (SUB == 3 ? 0 : 4));
}

#if ONE_WORD > 1
/* Tokens and raw bits of BLOCK values. Only the putting of words waits for the one before; all else is done to
   many at once. */
static inline uint8_t *NAME(write_block)(const LANE *value, uint8_t *tokens, uint8_t *raw, uint64_t *held,
                                         int *waiting) {
    uint8_t left[BLOCK];
    uint16_t two[BLOCK / 2];
    uint64_t word[BLOCK / ONE_WORD];
    LANE *rest = (LANE *)word;
    for (int i = 0; i < BLOCK; i++) {
        /* As raw_bits, counted by what floats keep of numbers, which processors do to many at once: the bit
           after the highest is cleared, lest rounding reach the next power of two, and all moved off the sign. */
        const uint32_t z = value[i], some = z | SMALL >> 1;
        const float power = (float)(int32_t)((some & ~(some >> 1)) >> 1);
        uint32_t bits;
        memcpy(&bits, &power, 4);
        const uint32_t by = (bits >> 23) - (126 + SUB), top = z >> by;
        left[i] = (uint8_t)by;
        tokens[i] = (uint8_t)((by << SUB) + top);
        rest[i] = (W)(z - (top << by));
    }
    for (int i = 0; i < BLOCK / 2; i++) {
        const uint16_t both = ((const lane_16 *)left)[i];
        two[i] = (uint16_t)((both & 0xff) + (both >> 8));
    }
#if ONE_WORD == 4
    for (int i = 0; i < BLOCK / 2; i++) {
        const uint32_t pair = ((const lane_32 *)word)[i], first = left[2 * i];
        ((lane_32 *)word)[i] = (pair & 0xffff) | pair >> 16 << first;
    }
    for (int i = 0; i < BLOCK / 4; i++) {
        word[i] = (word[i] & 0xffffffffu) | word[i] >> 32 << two[2 * i];
        two[i] = (uint16_t)(two[2 * i] + two[2 * i + 1]);
    }
#else
    for (int i = 0; i < BLOCK / 2; i++) word[i] = (word[i] & 0xffffffffu) | word[i] >> 32 << left[2 * i];
#endif
    for (int i = 0; i < BLOCK / ONE_WORD; i++) raw = put_bits(raw, held, waiting, word[i], two[i]);
    return raw;
}
#endif

/* Tokens and raw bits of one group. */
static inline uint8_t *NAME(write_group)(const LANE *value, int64_t count, uint8_t *tokens, uint8_t *raw) {
    uint64_t held = 0;
    int waiting = 0;
    int64_t i = 0;
#if ONE_WORD > 1
    for (; i + BLOCK <= count; i += BLOCK) {
        raw = NAME(write_block)(value + i, tokens + i, raw, &held, &waiting);
    }
#endif
    for (; i < count; i++) {
        const uint64_t z = value[i];
        const int left = NAME(raw_bits)(z), first = left < 32 ? left : 32;
        const uint64_t rest = z & (((uint64_t)1 << left) - 1);
        tokens[i] = NAME(token)(z, left);
        if (BITS == 8) continue;
        raw = put_bits(raw, &held, &waiting, rest & 0xffffffffu, first);
        if (BITS == 64 && left > 32) raw = put_bits(raw, &held, &waiting, rest >> 32, left - 32);
    }
    if (waiting) *raw++ = (uint8_t)held;
    return raw;
}

/* How many raw bits follow a token. */
static inline uint8_t NAME(left)(uint8_t token) {
    if (BITS == 8) return 0;
    const uint8_t octave = (uint8_t)(token >> SUB);
    if (SUB == 3) return (uint8_t)((octave > 1 ? octave : 1) - 1);
    return (uint8_t)(token < SMALL ? 0 : octave + 2 - SMALL / 4);
}

/* BLOCK values whose raw bits begin at bit *at, and the bit where they end to *at. 0, or -1 if a token is none
   of this width or the end is beyond `all_bits`: after that no read needs to be looked at. Only the adding up of
   places waits for the value before; all else is done to many at once. */
static inline int NAME(read_block)(const uint8_t *tokens, const uint8_t *raw, uint64_t *at, uint64_t all_bits,
                                   LANE *value) {
    const int highest = BITS == 8 ? 255 : SMALL + ((BITS - 4) << SUB) - 1;
    uint8_t left[BLOCK], wrong = 0;
    uint16_t two[BLOCK / 2], bits = 0;
    uint64_t word[BLOCK / ONE_WORD], begin = *at;
    for (int i = 0; i < BLOCK; i++) {
        left[i] = NAME(left)(tokens[i]);
        wrong |= tokens[i] > highest;
    }
    for (int i = 0; i < BLOCK / 2; i++) {
        const uint16_t both = ((const lane_16 *)left)[i];
        two[i] = (uint16_t)((both & 0xff) + (both >> 8));
        bits = (uint16_t)(bits + two[i]);
    }
    if (wrong || begin + bits > all_bits) return -1;
    *at = begin + bits;
    for (int i = 0; i < BLOCK / ONE_WORD; i++) {
        word[i] = load64(raw + (begin >> 3)) >> (begin & 7);
        if (BITS == 64) {
            const uint64_t upper = begin + (left[i] < 32 ? left[i] : 32);
            word[i] = (word[i] & 0xffffffffu) | (load64(raw + (upper >> 3)) >> (upper & 7)) << 32;
        }
        begin += ONE_WORD == 1 ? left[i] : ONE_WORD == 2 ? two[i] : two[2 * i] + two[2 * i + 1];
    }
    /* What lies in one word to its halves, each as if it were alone, and to theirs. */
    if (ONE_WORD == 4) {
        for (int i = 0; i < BLOCK / 4; i++) {
            const uint32_t first = ((const lane_32 *)two)[i] & 0xffff;
            word[i] = (word[i] & 0xffffffffu) | word[i] >> first << 32;
        }
        lane_32 *half = (lane_32 *)word;
        for (int i = 0; i < BLOCK / 2; i++) {
            const uint32_t first = ((const lane_16 *)left)[i] & 0xff;
            half[i] = (half[i] & 0xffff) | half[i] >> first << 16;
        }
    } else if (ONE_WORD == 2) {
        for (int i = 0; i < BLOCK / 2; i++) {
            const uint64_t first = ((const lane_16 *)left)[i] & 0xff;
            word[i] = (word[i] & 0xffffffffu) | word[i] >> first << 32;
        }
    }
    const LANE *found = (const LANE *)word;
    for (int i = 0; i < BLOCK; i++) {
        const int offset = SUB == 3 || tokens[i] < SMALL ? 0 : 4;
        const W one = (W)((W)1 << left[i]), above = (W)(tokens[i] - (left[i] << SUB) - offset);
        value[i] = (W)((W)(above * one) | (found[i] & (W)(one - 1)));
    }
    return 0;
}

/* As read_block, of any number of values. */
static inline int NAME(read_group)(const uint8_t *tokens, int64_t count, const uint8_t *raw, uint64_t *at,
                                   uint64_t all_bits, LANE *value) {
    if (BITS == 8) {
        memcpy(value, tokens, (size_t)count);
        return 0;
    }
    int64_t i = 0;
    for (; i + BLOCK <= count; i += BLOCK) {
        if (NAME(read_block)(tokens + i, raw, at, all_bits, value + i)) return -1;
    }
    if (i == count) return 0;
    /* Filled up with tokens that leave nothing out. */
    uint8_t last[BLOCK] = {0};
    W found[BLOCK];
    memcpy(last, tokens + i, (size_t)(count - i));
    if (NAME(read_block)(last, raw, at, all_bits, found)) return -1;
    memcpy(value + i, found, (size_t)(count - i) * sizeof(W));
    return 0;
}
