/* The loops of one element width: W the unsigned type, BITS its width, SUB how many bits after the highest
   a token keeps. Included by kernels_widths.h once for each width. */

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

/* Adds to LANES counts in turn: one alone would wait for itself where neighbours have the same key. */
static inline void NAME(count_keys)(const LANE *b, int64_t begin, int64_t end, int mantissa,
                                    uint32_t count[LANES][KEYS]) {
    int64_t i = begin;
    for (; i + LANES <= end; i += LANES) {
        for (int lane = 0; lane < LANES; lane++) count[lane][NAME(key)(b[i + lane], mantissa)]++;
    }
    for (; i < end; i++) count[0][NAME(key)(b[i], mantissa)]++;
}

/* A block's differences to u; its class. */
static inline uint8_t NAME(differ)(const LANE *x, const LANE *b, int64_t size, int is_float,
                                   int may_drift, LANE *u) {
    W odd = 0, any = 0, all = 0;
    for (int64_t i = 0; i < size; i++) {
        W d = (W)(NAME(ordered)(x[i], is_float) - NAME(ordered)(b[i], is_float));
        if (is_float && (b[i] >> (BITS - 1))) d = (W)(0 - d);
        const W minus = (W)(0 - (d >> (BITS - 1)));
        const W z = (W)((W)(d << 1) ^ minus);
        u[i] = z;
        all |= z;
        odd += z & 1;
        any += z != 0;
    }
    if (!all) return SAME;
    const int64_t negative = odd, positive = any - odd;
    const int64_t most = 20 * (negative > positive ? negative : positive);
    return may_drift && (uint64_t)all <= 0xffff && most >= 19 * size ? DRIFTED : SCATTERED;
}

/* Tokens and raw bits of one group, PUT values at a time: each put waits for the one before. */
static inline uint8_t *NAME(write_group)(const LANE *value, int64_t count, uint8_t *tokens,
                                         uint8_t *raw) {
    enum { PUT = BITS == 16 ? 4 : BITS == 32 ? 2 : 1 };
    uint64_t held = 0;
    int waiting = 0;
    int64_t i = 0;
    for (; i + PUT <= count; i += PUT) {
        uint64_t bits = 0;
        int width = 0;
        for (int k = 0; k < PUT; k++) {
            const uint64_t z = value[i + k];
            const int left = NAME(raw_bits)(z);
            tokens[i + k] = NAME(token)(z, left);
            if (BITS == 64 && left > 32) {
                raw = put_bits(raw, &held, &waiting, z & 0xffffffffu, 32);
                bits = (z & (((uint64_t)1 << left) - 1)) >> 32;
                width = left - 32;
            } else {
                bits |= (z & (((uint64_t)1 << left) - 1)) << width;
                width += left;
            }
        }
        if (BITS != 8) raw = put_bits(raw, &held, &waiting, bits, width);
    }
    for (; i < count; i++) {
        const uint64_t z = value[i];
        const int left = NAME(raw_bits)(z);
        tokens[i] = NAME(token)(z, left);
        raw = put_bits(raw, &held, &waiting, z & (((uint64_t)1 << left) - 1), left);
    }
    if (waiting) *raw++ = (uint8_t)held;
    return raw;
}

/* Returns the number of groups; sizes: [0] bytes of raw bits, [1] drifted elements. u, sorted: n elements; raw:
   room for n elements and 8 bytes.

   The frame is gone through in LANES places at once, each with counts of its own: neighbours often have the
   same key, and one count for all would wait for itself. A group's elements still end up in their order. */
API int NAME(stm_delta_split)(const LANE *x, const LANE *b, int64_t n, int mantissa,
                               LANE *u, LANE *sorted, uint8_t *classes, uint8_t *tokens,
                               uint32_t *group_count, uint8_t *raw, uint8_t *low, uint8_t *high,
                               int64_t *sizes) {
    uint32_t count[LANES][KEYS], drift_count[LANES][1 << DRIFT_BITS] = {{0}};
    uint8_t group_of[KEYS];
    const int is_float = mantissa >= 0;
    const int may_drift = mantissa > DRIFT_BITS;
    const int drift_shift = may_drift ? mantissa - DRIFT_BITS : 0, drift_mask = (1 << DRIFT_BITS) - 1;
    const int keys = is_float ? 1 << (BITS - 1 - mantissa) : 1;
    const int64_t blocks = (n + BLOCK - 1) / BLOCK;
    /* Odd, lest the places be a power of two apart and share the cache's sets. */
    const int64_t span = ((blocks + LANES - 1) / LANES) | 1;
    for (int lane = 0; lane < LANES; lane++) memset(count[lane], 0, (size_t)keys * sizeof(uint32_t));
    for (int64_t j = 0; j < span; j++) {
        int together = 1;
        for (int lane = 0; lane < LANES; lane++) {
            const int64_t block = lane * span + j, begin = block * BLOCK;
            if (block >= blocks) {
                together = 0;
                continue;
            }
            const int64_t size = n - begin < BLOCK ? n - begin : BLOCK;
            classes[block] = NAME(differ)(x + begin, b + begin, size, is_float, may_drift, u + begin);
            together &= classes[block] == SCATTERED && size == BLOCK;
        }
        if (together) {
            const LANE *under = b + j * BLOCK;
            for (int i = 0; i < BLOCK; i++) {
                for (int lane = 0; lane < LANES; lane++) {
                    count[lane][NAME(key)(under[lane * span * BLOCK + i], mantissa)]++;
                }
            }
            continue;
        }
        for (int lane = 0; lane < LANES; lane++) {
            const int64_t block = lane * span + j, begin = block * BLOCK;
            if (block >= blocks) break;
            const int64_t end = begin + BLOCK < n ? begin + BLOCK : n;
            if (classes[block] == SCATTERED) {
                for (int64_t i = begin; i < end; i++) count[lane][NAME(key)(b[i], mantissa)]++;
            } else if (classes[block] == DRIFTED) {
                for (int64_t i = begin; i < end; i++) drift_count[lane][(b[i] >> drift_shift) & drift_mask]++;
            }
        }
    }
    const int groups = group_lanes(count, keys, group_of, group_count);
    uint32_t at_of[LANES][GROUPS];
    start_lanes(count, keys, group_of, groups, at_of);
    uint32_t drifted = 0;
    for (int key = 0; key < 1 << DRIFT_BITS; key++) {
        for (int lane = 0; lane < LANES; lane++) {
            const uint32_t here = drift_count[lane][key];
            drift_count[lane][key] = drifted;
            drifted += here;
        }
    }
    for (int64_t j = 0; j < span; j++) {
        int together = 1;
        for (int lane = 0; lane < LANES && together; lane++) {
            const int64_t block = lane * span + j;
            together = (block + 1) * BLOCK <= n && classes[block] == SCATTERED;
        }
        if (together) {
            const LANE *under = b + j * BLOCK, *value = u + j * BLOCK;
            for (int i = 0; i < BLOCK; i++) {
                for (int lane = 0; lane < LANES; lane++) {
                    const int64_t from = lane * span * BLOCK + i;
                    const uint32_t at = at_of[lane][group_of[NAME(key)(under[from], mantissa)]]++;
                    /* Too many lines are written to in turn for the processor to see what is next. */
                    __builtin_prefetch(sorted + at + 192 / sizeof(W), 1);
                    sorted[at] = value[from];
                }
            }
            continue;
        }
        for (int lane = 0; lane < LANES; lane++) {
            const int64_t block = lane * span + j, begin = block * BLOCK;
            if (block >= blocks) break;
            const int64_t end = begin + BLOCK < n ? begin + BLOCK : n;
            if (classes[block] == DRIFTED) {
                for (int64_t i = begin; i < end; i++) {
                    const uint32_t at = drift_count[lane][(b[i] >> drift_shift) & drift_mask]++;
                    low[at] = (uint8_t)u[i];
                    high[at] = (uint8_t)((uint64_t)u[i] >> 8);
                }
            } else if (classes[block] == SCATTERED) {
                for (int64_t i = begin; i < end; i++) {
                    sorted[at_of[lane][group_of[NAME(key)(b[i], mantissa)]]++] = u[i];
                }
            }
        }
    }
    uint8_t *raw_end = raw;
    for (int g = 0; g < groups; g++) {
        raw_end = NAME(write_group)(sorted, group_count[g], tokens, raw_end);
        sorted += group_count[g];
        tokens += group_count[g];
    }
    sizes[0] = raw_end - raw;
    sizes[1] = drifted;
    return groups;
}

/* Which group each key belongs to, how many elements each group has, and how many drifted; classes are 0, 1 or
   2. Returns the groups. */
API int NAME(stm_delta_groups)(const LANE *b, int64_t n, int mantissa, const uint8_t *classes, uint8_t *group_of,
                               uint32_t *group_count, int64_t *drifted) {
    uint32_t count[LANES][KEYS] = {{0}};
    *drifted = 0;
    for (int64_t begin = 0; begin < n; begin += BLOCK) {
        const int64_t end = begin + BLOCK < n ? begin + BLOCK : n;
        if (classes[begin / BLOCK] == DRIFTED) *drifted += end - begin;
        if (classes[begin / BLOCK] != SCATTERED) continue;
        NAME(count_keys)(b, begin, end, mantissa, count);
    }
    return group_keys(count, group_of, group_count);
}

/* 0, or -1 if a class or a token is none of this width or the raw bits are not as many as the tokens say. Groups
   are what stm_delta_groups says. `raw` has 8 readable bytes after its end; sorted: room for 2 n elements, so that
   groups of another base lead nowhere else. Without drifted blocks low and high are not read. */
API int NAME(stm_delta_join)(const LANE *b, int64_t n, int mantissa, const uint8_t *classes,
                             const uint8_t *group_of, const uint32_t *group_count, int groups,
                             const uint8_t *tokens, const uint8_t *raw, int64_t raw_size, const uint8_t *low,
                             const uint8_t *high, LANE *sorted, LANE *x) {
    uint32_t drift_count[1 << DRIFT_BITS] = {0};
    uint8_t width[256];
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
        } else if (class != SCATTERED && class != SAME) {
            return -1;
        }
    }
    const uint64_t all_bits = 8 * (uint64_t)raw_size;
    uint64_t at = 0;
    LANE *next = sorted;
    for (int g = 0; g < groups; g++) {
        for (const LANE *end = next + group_count[g]; next < end; next++) {
            const int t = *tokens++;
            /* Also what is no token takes no step beyond the end. */
            if (t >= limit || at > all_bits) return -1;
            if (BITS == 8) {
                *next = (W)t;
                continue;
            }
            const int left = width[t];
            uint64_t value = load64(raw + (at >> 3)) >> (at & 7);
            if (BITS == 64 && left > 32) {
                const uint64_t upper = at + 32 <= all_bits ? at + 32 : all_bits;
                value = (value & 0xffffffffu) | (load64(raw + (upper >> 3)) >> (upper & 7)) << 32;
            }
            at += (uint64_t)left;
            *next = (W)(start[t] | (value & (((uint64_t)1 << left) - 1)));
        }
        at = (at + 7) & ~(uint64_t)7;
    }
    if (at != all_bits) return -1;
    uint32_t at_of[GROUPS];
    start_groups(group_count, groups, at_of);
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
        W moved[BLOCK];
        const LANE *under = b + begin;
        const int64_t size = end - begin;
        if (class == DRIFTED) {
            for (int64_t i = 0; i < size; i++) {
                const int64_t from = drift_at[(under[i] >> (mantissa - DRIFT_BITS)) & ((1 << DRIFT_BITS) - 1)]++;
                moved[i] = (W)((uint64_t)low[from] | (uint64_t)high[from] << 8);
            }
        } else {
            for (int64_t i = 0; i < size; i++) {
                moved[i] = sorted[at_of[group_of[NAME(key)(under[i], mantissa)]]++];
            }
        }
        LANE *over = x + begin;
        for (int64_t i = 0; i < size; i++) {
            W d = (W)((W)(moved[i] >> 1) ^ (W)(0 - (W)(moved[i] & 1)));
            if (is_float && (under[i] >> (BITS - 1))) d = (W)(0 - d);
            over[i] = NAME(unordered)((W)(NAME(ordered)(under[i], is_float) + d), is_float);
        }
    }
    return 0;
}

/* Byte k of every element, rotated left by one if asked, to planes[k * stride ...]. */
API void NAME(stm_split)(const LANE *x, int64_t n, int rotate, uint8_t *planes, int64_t stride) {
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

API void NAME(stm_join)(const uint8_t *const *planes, int64_t n, int rotate, LANE *x) {
    for (int64_t i = 0; i < n; i++) {
        W v = 0;
        for (int k = 0; k < BITS / 8; k++) v |= (W)((W)planes[k][i] << (8 * k));
        x[i] = rotate ? (W)((W)(v >> 1) | (W)(v << (BITS - 1))) : v;
    }
}

#include "kernels_frames.h"
