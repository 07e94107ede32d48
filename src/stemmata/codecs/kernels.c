/* The inner loops of the codecs, for little-endian machines. FORMAT.md, section 5, says what they compute;
   numpy_kernels.py computes the same and is what they are tested against.

   No function here allocates, keeps state or trusts a length that its caller did not bound: every buffer
   comes with the sizes that numpy_kernels.py documents. zstd does the first two, in the contexts that it is
   given. Called without the interpreter's lock. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#define API __attribute__((visibility("default")))

enum { BLOCK = 128, KEYS = 2048, GROUP_MIN = 4096, GROUPS = 33, SMALL = 16, DRIFT_BITS = 6, LANES = 8 };
enum { SAME = 0, SCATTERED = 1, DRIFTED = 2 };

/* What stm_moments tells, in its order. */
enum { FINITE, NONFINITE, ZEROS, LEAST, GREATEST, MEAN, DEVIATION, SQUARES,
       BOTH, EQUAL, APART, FURTHEST, PRODUCT, OWN, OTHERS, RESULTS };

API int stm_abi(void) { return 6; }

/* Ascending keys are joined until a group has GROUP_MIN elements; a short last one joins the one before. */
static int group_lanes(uint32_t count[LANES][KEYS], int keys, uint8_t *group_of, uint32_t *group_count) {
    int groups = 0;
    uint32_t current = 0;
    for (int key = 0; key < keys; key++) {
        group_of[key] = (uint8_t)groups;
        for (int lane = 0; lane < LANES; lane++) current += count[lane][key];
        if (current >= GROUP_MIN) {
            group_count[groups++] = current;
            current = 0;
        }
    }
    if (current) {
        if (groups) {
            group_count[groups - 1] += current;
        } else {
            group_count[groups++] = current;
        }
    }
    /* The keys after the last full group belong to it, whether or not they hold anything. */
    const int last = groups ? groups - 1 : 0;
    for (int key = keys - 1; key >= 0 && group_of[key] > last; key--) group_of[key] = (uint8_t)last;
    return groups;
}

/* The first key of each group, and where it begins and ends where the first one begins at `at`. */
static void start_groups(const uint8_t *group_of, int keys, const uint32_t *group_count, int groups,
                         uint32_t at, uint16_t first_key[GROUPS], uint32_t first[GROUPS], uint32_t last[GROUPS]) {
    for (int g = 0; g < GROUPS; g++) {
        first_key[g] = 0;
        first[g] = at;
        at += g < groups ? group_count[g] : 0;
        last[g] = at;
    }
    for (int key = keys - 1; key >= 0; key--) first_key[group_of[key]] = (uint16_t)key;
}

/* Counts of the drifted become the places where each begins. Returns how many there are. */
static uint32_t start_keys(uint32_t at_of[1 << DRIFT_BITS]) {
    uint32_t at = 0;
    for (int key = 0; key < 1 << DRIFT_BITS; key++) {
        const uint32_t here = at_of[key];
        at_of[key] = at;
        at += here;
    }
    return at;
}

/* Scattered blocks are gone through from both ends of a frame at once, from the end each group from its own:
   neighbours are often of the same group, whose next place is known only after the one before was taken.
   To the first and behind the last that are left; 0 if none is. */
static int scattered_from_both_ends(const uint8_t *classes, int64_t *front, int64_t *back) {
    while (*front < *back && classes[*front] != SCATTERED) ++*front;
    while (*front < *back && classes[*back - 1] != SCATTERED) --*back;
    return *front < *back;
}

static inline uint64_t load64(const uint8_t *at) {
    uint64_t word;
    memcpy(&word, at, 8);
    return word;
}

/* At most 56 bits, while fewer than eight wait. Writes eight bytes, counts those that are full. */
static inline uint8_t *put_bits(uint8_t *at, uint64_t *held, int *waiting, uint64_t value, int width) {
    const uint64_t word = *held | value << *waiting;
    const int bits = *waiting + width;
    memcpy(at, &word, 8);
    *held = word >> (bits & 56);
    *waiting = bits & 7;
    return at + (bits >> 3);
}

/* Elements as they lie in a caller's bytes, wherever these begin. */
typedef uint8_t lane_8;
typedef uint16_t __attribute__((aligned(1), may_alias)) lane_16;
typedef uint32_t __attribute__((aligned(1), may_alias)) lane_32;
typedef uint64_t __attribute__((aligned(1), may_alias)) lane_64;

#include "kernels_streams.h"

#define JOINED(a, b) a##_##b
#define EXPANDED(a, b) JOINED(a, b)
#define NAME(a) EXPANDED(a, SUFFIX)
#define LANE EXPANDED(lane, BITS)

#define SUFFIXED(bits) bits
#include "kernels_widths.h"
#undef SUFFIXED

#define AT_ONCE 2
/* Of each two numbers, none of them NaN. */
#define LOWER(a, b) WHERE((a) < (b), a, b)
#define HIGHER(a, b) WHERE((a) > (b), a, b)
#define SUFFIX any
#include "kernels_moments.h"
#undef SUFFIX
#undef AT_ONCE
#undef LOWER
#undef HIGHER

/* Once more for processors of about 2013 and later, which count leading zeros and shift by a register at once. */
#if defined(__x86_64__) && defined(__GNUC__)
#define MODERN 1
#include <immintrin.h>
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,bmi,bmi2,lzcnt"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,bmi,bmi2,lzcnt")
#endif
#define SUFFIXED(bits) bits##_modern
#include "kernels_widths.h"
#undef SUFFIXED
#define AT_ONCE 4
#define LOWER(a, b) ((LOT)_mm256_min_pd((__m256d)(a), (__m256d)(b)))
#define HIGHER(a, b) ((LOT)_mm256_max_pd((__m256d)(a), (__m256d)(b)))
#define SUFFIX modern
#include "kernels_moments.h"
#undef SUFFIX
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#else
#define MODERN 0
#endif

/* Whether the functions whose names end in _modern are there and run on this processor. */
API int stm_modern(void) {
#if MODERN
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
#else
    return 0;
#endif
}

API int stm_same(const uint8_t *a, const uint8_t *b, int64_t n) { return !memcmp(a, b, (size_t)n); }

/* Rounding to nearest, ties to even, of float32 bits. 1 if there was a NaN, whose bits no rule settles. */
API int stm_narrow_bf16(const lane_32 *wide, int64_t n, lane_16 *narrow) {
    uint32_t nan = 0;
    for (int64_t i = 0; i < n; i++) {
        const uint32_t v = wide[i];
        nan |= (v & 0x7fffffffu) > 0x7f800000u;
        narrow[i] = (uint16_t)((v + 0x7fffu + ((v >> 16) & 1)) >> 16);
    }
    return (int)nan;
}

API int stm_narrow_f16(const lane_32 *wide, int64_t n, lane_16 *narrow) {
    for (int64_t i = 0; i < n; i++) {
        const uint32_t v = wide[i], sign = (v >> 16) & 0x8000u, rest = v & 0x7fffffffu;
        const int e = (int)(rest >> 23) - 112;
        uint32_t h;
        if (rest > 0x7f800000u) return 1;
        if (e >= 31) {
            h = 0x7c00u;
        } else if (e > 0) {
            h = ((rest - (112u << 23)) + 0xfffu + ((rest >> 13) & 1)) >> 13;
        } else if (e < -10) {
            h = 0;
        } else {
            const uint32_t m = (rest & 0x7fffffu) | 0x800000u;
            const int shift = 14 - e;
            h = (m + ((1u << (shift - 1)) - 1) + ((m >> shift) & 1)) >> shift;
        }
        narrow[i] = (uint16_t)(sign | h);
    }
    return 0;
}
