/* The inner loops of the codecs, for little-endian machines. FORMAT.md, section 5, says what they compute;
   numpy_kernels.py computes the same and is what they are tested against.

   No function here allocates, keeps state or trusts a length that its caller did not bound: every buffer
   comes with the sizes that numpy_kernels.py documents. Called without the interpreter's lock. */

#include <stdint.h>
#include <string.h>

#define API __attribute__((visibility("default")))

enum { BLOCK = 128, KEYS = 2048, GROUP_MIN = 4096, GROUPS = 33, SMALL = 16, DRIFT_BITS = 6, LANES = 4 };
enum { SAME = 0, SCATTERED = 1, DRIFTED = 2 };

API int stm_abi(void) { return 2; }

/* Ascending keys are joined until a group has GROUP_MIN elements; a short last one joins the one before. */
static int group_keys(uint32_t count[LANES][KEYS], uint8_t *group_of, uint32_t *group_count) {
    int groups = 0;
    uint32_t current = 0;
    for (int key = 0; key < KEYS; key++) {
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
    for (int key = KEYS - 1; key >= 0 && group_of[key] > last; key--) group_of[key] = (uint8_t)last;
    return groups;
}

static void start_groups(const uint32_t *group_count, int groups, uint32_t *at_of) {
    uint32_t at = 0;
    for (int g = 0; g < groups; g++) {
        at_of[g] = at;
        at += group_count[g];
    }
}

static inline uint64_t load64(const uint8_t *at) {
    uint64_t word;
    memcpy(&word, at, 8);
    return word;
}

/* At most 32 bits, of which fewer than eight wait. Writes eight bytes, counts those that are full. */
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

#define JOINED(a, b) a##_##b
#define EXPANDED(a, b) JOINED(a, b)
#define NAME(a) EXPANDED(a, BITS)

#define W uint8_t
#define BITS 8
#define SUB 3
#include "kernels_width.h"
#undef W
#undef BITS
#undef SUB

#define W uint16_t
#define BITS 16
#define SUB 3
#include "kernels_width.h"
#undef W
#undef BITS
#undef SUB

#define W uint32_t
#define BITS 32
#define SUB 3
#include "kernels_width.h"
#undef W
#undef BITS
#undef SUB

#define W uint64_t
#define BITS 64
#define SUB 2
#include "kernels_width.h"
#undef W
#undef BITS
#undef SUB

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
