/* The loops of one element width: W the unsigned type, BITS its width, SUB how many bits after the highest
   a token keeps. Included by kernels.c once for each width. */

static inline W NAME(ordered)(W v, int is_float) {
    if (!is_float) return v;
    return (v >> (BITS - 1)) ? (W)~v : (W)(v | (W)((W)1 << (BITS - 1)));
}

static inline W NAME(unordered)(W o, int is_float) {
    if (!is_float) return o;
    return (o >> (BITS - 1)) ? (W)(o ^ (W)((W)1 << (BITS - 1))) : (W)~o;
}

static inline int NAME(key)(W b, int mantissa) {
    return mantissa < 0 ? 0 : (int)((b >> mantissa) & (W)(((uint64_t)1 << (BITS - 1 - mantissa)) - 1));
}

static inline int NAME(raw_bits)(uint64_t u) {
    return BITS == 8 || u < SMALL ? 0 : 63 - __builtin_clzll(u) - SUB;
}

static inline uint8_t NAME(token)(uint64_t u) {
    if (BITS == 8 || u < SMALL) return (uint8_t)u;
    int e = 63 - __builtin_clzll(u);
    return (uint8_t)(SMALL + ((e - 4) << SUB) + ((u >> (e - SUB)) & ((1 << SUB) - 1)));
}

/* At most 32 bits, of which fewer than eight wait. */
static inline void NAME(put_bits)(uint8_t **at, uint64_t *held, int *waiting, uint64_t value, int width) {
    const uint64_t word = *held | value << *waiting;
    const int bits = *waiting + width;
    memcpy(*at, &word, 8);
    *at += bits >> 3;
    *held = word >> (bits & 56);
    *waiting = bits & 7;
}

/* Returns the number of groups. `raw` has room for 8 bytes more than needed for each group. sizes: [0] bytes
   of raw bits, [1] drifted elements. u: n elements. */
API int NAME(stm_delta_split)(const NAME(lane) *x, const NAME(lane) *b, int64_t n, int mantissa,
                               NAME(lane) *u, uint8_t *classes, uint8_t *tokens, uint32_t *group_count,
                               uint8_t *raw, uint8_t *low, uint8_t *high, int64_t *sizes) {
    uint32_t count[KEYS] = {0}, drift_count[1 << DRIFT_BITS] = {0};
    uint64_t bits[KEYS] = {0};
    uint8_t group_of[KEYS];
    const int is_float = mantissa >= 0;
    const int may_drift = mantissa > DRIFT_BITS;
    for (int64_t begin = 0; begin < n; begin += BLOCK) {
        const int64_t end = begin + BLOCK < n ? begin + BLOCK : n;
        int64_t negative = 0, positive = 0;
        W all = 0;
        for (int64_t i = begin; i < end; i++) {
            W d = (W)(NAME(ordered)(x[i], is_float) - NAME(ordered)(b[i], is_float));
            if (is_float && (b[i] >> (BITS - 1))) d = (W)(0 - d);
            const W minus = (W)(0 - (d >> (BITS - 1)));
            const W z = (W)((W)(d << 1) ^ minus);
            u[i] = z;
            all |= z;
            negative += z & 1;
            positive += z && !(z & 1);
        }
        const int64_t most = 20 * (negative > positive ? negative : positive);
        uint8_t class = SCATTERED;
        if (!all) {
            class = SAME;
        } else if (may_drift && (BITS <= 16 || all <= (W)0xffff) && most >= 19 * (end - begin)) {
            class = DRIFTED;
            for (int64_t i = begin; i < end; i++) {
                drift_count[(b[i] >> (mantissa - DRIFT_BITS)) & ((1 << DRIFT_BITS) - 1)]++;
            }
        } else {
            for (int64_t i = begin; i < end; i++) {
                const int key = NAME(key)(b[i], mantissa);
                count[key]++;
                bits[key] += NAME(raw_bits)(u[i]);
            }
        }
        classes[begin / BLOCK] = class;
    }
    const int groups = group_keys(count, group_of, group_count);
    uint64_t group_bits[GROUPS] = {0}, held[GROUPS] = {0};
    int held_bits[GROUPS] = {0};
    uint8_t *token_at[GROUPS], *raw_at[GROUPS];
    for (int key = 0; key < KEYS; key++) group_bits[group_of[key]] += bits[key];
    /* Groups are written apart, for each write is of eight bytes, and moved together at the end. */
    uint8_t *raw_from[GROUPS], *apart = raw;
    for (int g = 0; g < groups; g++) {
        token_at[g] = tokens;
        raw_at[g] = raw_from[g] = apart;
        tokens += group_count[g];
        apart += (group_bits[g] + 7) / 8 + 8;
    }
    int64_t drift_at[1 << DRIFT_BITS], drifted = 0;
    for (int key = 0; key < 1 << DRIFT_BITS; key++) {
        drift_at[key] = drifted;
        drifted += drift_count[key];
    }
    for (int64_t begin = 0; begin < n; begin += BLOCK) {
        const int64_t end = begin + BLOCK < n ? begin + BLOCK : n;
        const uint8_t class = classes[begin / BLOCK];
        if (class == DRIFTED) {
            for (int64_t i = begin; i < end; i++) {
                const int64_t at = drift_at[(b[i] >> (mantissa - DRIFT_BITS)) & ((1 << DRIFT_BITS) - 1)]++;
                low[at] = (uint8_t)u[i];
                high[at] = (uint8_t)((uint64_t)u[i] >> 8);
            }
        } else if (class == SCATTERED) {
            for (int64_t i = begin; i < end; i++) {
                const int g = group_of[NAME(key)(b[i], mantissa)];
                const uint64_t z = u[i];
                *token_at[g]++ = NAME(token)(z);
                if (BITS == 8) continue;
                int left = NAME(raw_bits)(z);
                uint64_t value = z & (((uint64_t)1 << left) - 1);
                if (BITS == 64 && left > 32) {
                    NAME(put_bits)(&raw_at[g], &held[g], &held_bits[g], value & 0xffffffffu, 32);
                    value >>= 32;
                    left -= 32;
                }
                NAME(put_bits)(&raw_at[g], &held[g], &held_bits[g], value, left);
            }
        }
    }
    uint8_t *raw_end = raw;
    for (int g = 0; g < groups; g++) {
        if (held_bits[g]) *raw_at[g] = (uint8_t)held[g];
        const uint64_t size = (group_bits[g] + 7) / 8;
        memmove(raw_end, raw_from[g], size);
        raw_end += size;
    }
    sizes[0] = raw_end - raw;
    sizes[1] = drifted;
    return groups;
}

/* How many elements each group has, and how many drifted; classes are 0, 1 or 2. Returns the groups. */
API int NAME(stm_delta_sizes)(const NAME(lane) *b, int64_t n, int mantissa, const uint8_t *classes,
                               uint32_t *group_count, int64_t *drifted) {
    uint32_t count[KEYS] = {0};
    uint8_t group_of[KEYS];
    *drifted = 0;
    for (int64_t begin = 0; begin < n; begin += BLOCK) {
        const int64_t end = begin + BLOCK < n ? begin + BLOCK : n;
        if (classes[begin / BLOCK] == DRIFTED) *drifted += end - begin;
        if (classes[begin / BLOCK] != SCATTERED) continue;
        for (int64_t i = begin; i < end; i++) count[NAME(key)(b[i], mantissa)]++;
    }
    return group_keys(count, group_of, group_count);
}

/* 0, or -1 if a class or a token is none of this width or the raw bits are not as many as the tokens say.
   `raw` has 8 readable bytes after its end. Without drifted blocks low and high are not read. */
API int NAME(stm_delta_join)(const NAME(lane) *b, int64_t n, int mantissa, const uint8_t *classes,
                              const uint8_t *tokens, const uint8_t *raw, int64_t raw_size, const uint8_t *low,
                              const uint8_t *high, NAME(lane) *x) {
    uint32_t count[KEYS] = {0}, drift_count[1 << DRIFT_BITS] = {0}, group_count[GROUPS] = {0};
    uint8_t group_of[KEYS], width[256];
    const int is_float = mantissa >= 0;
    const int may_drift = mantissa > DRIFT_BITS;
    const int limit = BITS == 8 ? 256 : SMALL + ((BITS - 4) << SUB);
    uint64_t start[256];
    for (int t = 0; t < 256; t++) {
        const int direct = BITS == 8 || t < SMALL || t >= limit;
        width[t] = (uint8_t)(direct ? 0 : ((t - SMALL) >> SUB) + 4 - SUB);
        start[t] = direct ? (uint64_t)t : (uint64_t)((1 << SUB) | ((t - SMALL) & ((1 << SUB) - 1))) << width[t];
    }
    for (int64_t begin = 0; begin < n; begin += BLOCK) {
        const int64_t end = begin + BLOCK < n ? begin + BLOCK : n;
        const uint8_t class = classes[begin / BLOCK];
        if (class == DRIFTED) {
            if (!may_drift) return -1;
            for (int64_t i = begin; i < end; i++) {
                drift_count[(b[i] >> (mantissa - DRIFT_BITS)) & ((1 << DRIFT_BITS) - 1)]++;
            }
        } else if (class == SCATTERED) {
            for (int64_t i = begin; i < end; i++) count[NAME(key)(b[i], mantissa)]++;
        } else if (class != SAME) {
            return -1;
        }
    }
    const int groups = group_keys(count, group_of, group_count);
    const uint8_t *token_at[GROUPS];
    uint64_t bit_at[GROUPS], bits = 0;
    for (int g = 0; g < groups; g++) {
        token_at[g] = tokens;
        bit_at[g] = bits;
        for (uint32_t i = 0; i < group_count[g]; i++) {
            if (tokens[i] >= limit) return -1;
            bits += width[tokens[i]];
        }
        bits = (bits + 7) & ~(uint64_t)7;
        tokens += group_count[g];
    }
    if (bits / 8 != (uint64_t)raw_size) return -1;
    int64_t drift_at[1 << DRIFT_BITS], drifted = 0;
    for (int key = 0; key < 1 << DRIFT_BITS; key++) {
        drift_at[key] = drifted;
        drifted += drift_count[key];
    }
    for (int64_t begin = 0; begin < n; begin += BLOCK) {
        const int64_t end = begin + BLOCK < n ? begin + BLOCK : n;
        const uint8_t class = classes[begin / BLOCK];
        if (class == SAME) {
            memcpy(x + begin, b + begin, (size_t)(end - begin) * sizeof(W));
            continue;
        }
        for (int64_t i = begin; i < end; i++) {
            uint64_t z;
            if (class == DRIFTED) {
                const int64_t at = drift_at[(b[i] >> (mantissa - DRIFT_BITS)) & ((1 << DRIFT_BITS) - 1)]++;
                z = (uint64_t)low[at] | (uint64_t)high[at] << 8;
            } else {
                const int g = group_of[NAME(key)(b[i], mantissa)];
                const int t = *token_at[g]++;
                z = start[t];
                if (BITS != 8) {
                    const int left = width[t];
                    const uint64_t at = bit_at[g];
                    uint64_t value = load64(raw + (at >> 3)) >> (at & 7);
                    if (BITS == 64 && left > 32) {
                        const uint64_t next = at + 32;
                        const uint64_t upper = load64(raw + (next >> 3)) >> (next & 7);
                        value = (value & 0xffffffffu) | upper << 32;
                    }
                    bit_at[g] = at + (uint64_t)left;
                    z |= value & (((uint64_t)1 << left) - 1);
                }
            }
            W d = (W)((W)(z >> 1) ^ (W)(0 - (W)(z & 1)));
            if (is_float && (b[i] >> (BITS - 1))) d = (W)(0 - d);
            x[i] = NAME(unordered)((W)(NAME(ordered)(b[i], is_float) + d), is_float);
        }
    }
    return 0;
}

/* Byte k of every element, rotated left by one if asked, to planes[k * stride ...]. */
API void NAME(stm_split)(const NAME(lane) *x, int64_t n, int rotate, uint8_t *planes, int64_t stride) {
    for (int k = 0; k < BITS / 8; k++) {
        uint8_t *plane = planes + k * stride;
        const int by = 8 * k;
        if (rotate) {
            for (int64_t i = 0; i < n; i++) {
                plane[i] = (uint8_t)((W)((W)(x[i] << 1) | (W)(x[i] >> (BITS - 1))) >> by);
            }
        } else {
            for (int64_t i = 0; i < n; i++) plane[i] = (uint8_t)(x[i] >> by);
        }
    }
}

API void NAME(stm_join)(const uint8_t *const *planes, int64_t n, int rotate, NAME(lane) *x) {
    for (int64_t i = 0; i < n; i++) {
        W v = 0;
        for (int k = 0; k < BITS / 8; k++) v |= (W)((W)planes[k][i] << (8 * k));
        x[i] = rotate ? (W)((W)(v >> 1) | (W)(v << (BITS - 1))) : v;
    }
}
