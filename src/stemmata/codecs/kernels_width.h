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

/* The keys of a whole block. */
static inline void NAME(keys_of)(const LANE *b, int mantissa, NARROW key[BLOCK]) {
    for (int i = 0; i < BLOCK; i++) key[i] = (NARROW)NAME(key)(b[i], mantissa);
}

/* Adds to LANES counts in turn: one alone would wait for itself where neighbours have the same key. */
static inline void NAME(count_keys)(const LANE *b, int64_t size, int mantissa, uint32_t count[LANES][KEYS]) {
    if (size < BLOCK) {
        for (int64_t i = 0; i < size; i++) count[0][NAME(key)(b[i], mantissa)]++;
        return;
    }
    NARROW key[BLOCK];
    NAME(keys_of)(b, mantissa, key);
    for (int i = 0; i < BLOCK; i += LANES) {
        for (int lane = 0; lane < LANES; lane++) count[lane][key[i + lane]]++;
    }
}

/* The group of each of a block's elements: how many of the later groups' first keys it reaches. */
static inline void NAME(groups_of)(const LANE *b, int mantissa, const uint16_t *first_key, int groups,
                                   NARROW group[BLOCK]) {
    NARROW key[BLOCK];
    NAME(keys_of)(b, mantissa, key);
    memset(group, 0, BLOCK * sizeof(NARROW));
    for (int g = 1; g < groups; g++) {
        const NARROW least = (NARROW)first_key[g];
        for (int i = 0; i < BLOCK; i++) group[i] = (NARROW)(group[i] + (key[i] >= least));
    }
}

/* Where in their groups the elements of two blocks lie, of the later one's from their ends. Before any of them
   is written: a place that is looked up waits for every write that is not yet known to go elsewhere. */
static inline void NAME(places_of)(const LANE *earlier, const LANE *later, int mantissa,
                                   const uint16_t *first_key, int groups, uint32_t *first, uint32_t *last,
                                   uint32_t up[BLOCK], uint32_t down[BLOCK]) {
    NARROW early[BLOCK], late[BLOCK];
    NAME(groups_of)(earlier, mantissa, first_key, groups, early);
    NAME(groups_of)(later, mantissa, first_key, groups, late);
    for (int i = 0, j = BLOCK - 1; i < BLOCK; i++, j--) {
        up[i] = first[early[i]]++;
        down[j] = --last[late[j]];
    }
}

/* Values whose raw bits fit into 64 bits together, wherever in a byte they begin. */
#if BITS == 16 || BITS == 32
#define ONE_WORD (64 / BITS)
#else
#define ONE_WORD 1
#endif
#include "kernels_tokens.h"
#undef ONE_WORD

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

/* Returns the number of groups; sizes: [0] bytes of raw bits, [1] drifted elements. u, sorted: n elements; raw:
   room for n elements and 8 bytes. */
API int NAME(stm_delta_split)(const LANE *x, const LANE *b, int64_t n, int mantissa,
                               LANE *u, LANE *sorted, uint8_t *classes, uint8_t *tokens,
                               uint32_t *group_count, uint8_t *raw, uint8_t *low, uint8_t *high,
                               int64_t *sizes) {
    uint32_t count[LANES][KEYS], drift_at[1 << DRIFT_BITS] = {0};
    uint8_t group_of[KEYS];
    const int is_float = mantissa >= 0;
    const int may_drift = mantissa > DRIFT_BITS;
    const int drift_shift = may_drift ? mantissa - DRIFT_BITS : 0, drift_mask = (1 << DRIFT_BITS) - 1;
    const int keys = is_float ? 1 << (BITS - 1 - mantissa) : 1;
    for (int lane = 0; lane < LANES; lane++) memset(count[lane], 0, (size_t)keys * sizeof(uint32_t));
    for (int64_t begin = 0; begin < n; begin += BLOCK) {
        const int64_t size = n - begin < BLOCK ? n - begin : BLOCK;
        const LANE *under = b + begin;
        const uint8_t class = NAME(differ)(x + begin, under, size, is_float, may_drift, u + begin);
        classes[begin / BLOCK] = class;
        if (class == SCATTERED) NAME(count_keys)(under, size, mantissa, count);
        if (class != DRIFTED) continue;
        for (int64_t i = 0; i < size; i++) drift_at[(under[i] >> drift_shift) & drift_mask]++;
    }
    const int groups = group_lanes(count, keys, group_of, group_count);
    uint16_t first_key[GROUPS];
    uint32_t first[GROUPS], last[GROUPS];
    start_groups(group_of, keys, group_count, groups, 0, first_key, first, last);
    const uint32_t drifted = start_keys(drift_at);
    for (int64_t begin = 0; begin < n && drifted; begin += BLOCK) {
        if (classes[begin / BLOCK] != DRIFTED) continue;
        const int64_t end = begin + BLOCK < n ? begin + BLOCK : n;
        for (int64_t i = begin; i < end; i++) {
            const uint32_t at = drift_at[(b[i] >> drift_shift) & drift_mask]++;
            low[at] = (uint8_t)u[i];
            high[at] = (uint8_t)((uint64_t)u[i] >> 8);
        }
    }
    uint32_t up[BLOCK], down[BLOCK];
    int64_t front = 0, back = (n + BLOCK - 1) / BLOCK;
    while (scattered_from_both_ends(classes, &front, &back)) {
        const int64_t begin = --back * BLOCK, size = n - begin < BLOCK ? n - begin : BLOCK;
        if (front == back || size < BLOCK) {
            for (int64_t i = begin + size - 1; i >= begin; i--) {
                sorted[--last[group_of[NAME(key)(b[i], mantissa)]]] = u[i];
            }
            continue;
        }
        const LANE *earlier = u + front * BLOCK, *later = u + begin;
        NAME(places_of)(b + front++ * BLOCK, b + begin, mantissa, first_key, groups, first, last, up, down);
        for (int i = 0; i < BLOCK; i++) sorted[up[i]] = earlier[i];
        for (int i = BLOCK - 1; i >= 0; i--) sorted[down[i]] = later[i];
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
        const int64_t size = n - begin < BLOCK ? n - begin : BLOCK;
        const uint8_t class = classes[begin / BLOCK];
        if (class == DRIFTED) *drifted += size;
        if (class == SCATTERED) NAME(count_keys)(b + begin, size, mantissa, count);
    }
    return group_lanes(count, KEYS, group_of, group_count);
}

/* x from what lies under it and z. */
static inline void NAME(add)(const LANE *b, const W *moved, int64_t size, int is_float, LANE *x) {
    for (int64_t i = 0; i < size; i++) {
        W d = (W)((W)(moved[i] >> 1) ^ (W)(0 - (W)(moved[i] & 1)));
        if (is_float && (b[i] >> (BITS - 1))) d = (W)(0 - d);
        x[i] = NAME(unordered)((W)(NAME(ordered)(b[i], is_float) + d), is_float);
    }
}

/* 0, or -1 if a class or a token is none of this width or the raw bits are not as many as the tokens say. Groups
   are what stm_delta_groups says. `raw` has 8 readable bytes after its end; sorted: room for 2 n elements, so that
   groups of another base lead nowhere else. Without drifted blocks low and high are not read. */
API int NAME(stm_delta_join)(const LANE *b, int64_t n, int mantissa, const uint8_t *classes,
                             const uint8_t *group_of, const uint32_t *group_count, int groups,
                             const uint8_t *tokens, const uint8_t *raw, int64_t raw_size, const uint8_t *low,
                             const uint8_t *high, LANE *sorted, LANE *x) {
    uint32_t drift_at[1 << DRIFT_BITS] = {0};
    const int is_float = mantissa >= 0;
    const int may_drift = mantissa > DRIFT_BITS;
    const int drift_shift = may_drift ? mantissa - DRIFT_BITS : 0, drift_mask = (1 << DRIFT_BITS) - 1;
    const int keys = is_float ? 1 << (BITS - 1 - mantissa) : 1;
    for (int64_t begin = 0; begin < n; begin += BLOCK) {
        const int64_t end = begin + BLOCK < n ? begin + BLOCK : n;
        const uint8_t class = classes[begin / BLOCK];
        if (class > (may_drift ? DRIFTED : SCATTERED)) return -1;
        if (class != DRIFTED) continue;
        for (int64_t i = begin; i < end; i++) drift_at[(b[i] >> drift_shift) & drift_mask]++;
    }
    uint16_t first_key[GROUPS];
    uint32_t first[GROUPS], last[GROUPS];
    /* From the front half of the whole blocks are taken, from the end the rest: whatever the groups, they lead to
       no place before the first of sorted and to none after its 2 n. */
    const uint32_t from_end = (uint32_t)(n - n / (2 * BLOCK) * BLOCK);
    start_groups(group_of, keys, group_count, groups, from_end, first_key, first, last);
    const uint64_t all_bits = 8 * (uint64_t)raw_size;
    uint64_t at = 0;
    for (int g = 0; g < groups; g++) {
        if (NAME(read_group)(tokens, group_count[g], raw, &at, all_bits, sorted + first[g])) return -1;
        at = (at + 7) & ~(uint64_t)7;
        tokens += group_count[g];
    }
    if (at != all_bits) return -1;
    start_keys(drift_at);
    W moved[2][BLOCK];
    for (int64_t begin = 0; begin < n; begin += BLOCK) {
        const int64_t size = n - begin < BLOCK ? n - begin : BLOCK;
        const LANE *under = b + begin;
        if (classes[begin / BLOCK] == SAME) memcpy(x + begin, under, (size_t)size * sizeof(W));
        if (classes[begin / BLOCK] != DRIFTED) continue;
        for (int64_t i = 0; i < size; i++) {
            const uint32_t from = drift_at[(under[i] >> drift_shift) & drift_mask]++;
            moved[0][i] = (W)((uint64_t)low[from] | (uint64_t)high[from] << 8);
        }
        NAME(add)(under, moved[0], size, is_float, x + begin);
    }
    int64_t front = 0, back = (n + BLOCK - 1) / BLOCK;
    while (scattered_from_both_ends(classes, &front, &back)) {
        const int64_t begin = --back * BLOCK, size = n - begin < BLOCK ? n - begin : BLOCK;
        const LANE *later = b + begin, *earlier = b + front * BLOCK;
        if (front == back || size < BLOCK) {
            for (int64_t i = size - 1; i >= 0; i--) {
                moved[1][i] = sorted[--last[group_of[NAME(key)(later[i], mantissa)]]];
            }
            NAME(add)(later, moved[1], size, is_float, x + begin);
            continue;
        }
        NARROW early[BLOCK], late[BLOCK];
        NAME(groups_of)(earlier, mantissa, first_key, groups, early);
        NAME(groups_of)(later, mantissa, first_key, groups, late);
        for (int i = 0, j = BLOCK - 1; i < BLOCK; i++, j--) {
            moved[0][i] = sorted[first[early[i]]++];
            moved[1][j] = sorted[--last[late[j]]];
        }
        NAME(add)(earlier, moved[0], BLOCK, is_float, x + front++ * BLOCK);
        NAME(add)(later, moved[1], BLOCK, is_float, x + begin);
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
