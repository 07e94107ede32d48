/* What the numbers of a tensor are, and how they differ from another's of as many elements. Included by
   kernels.c, for every processor and for modern ones. moments.py says what the results mean. */

#define CHUNK 1024

static inline float NAME(float_of)(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

/* Halves and smaller floats: their bits where a float's stand, times the difference of the exponents' zero
   points, which also makes subnormal numbers normal. */
static inline double NAME(half)(uint32_t bits) {
    const uint32_t wide = (bits & 0x7fff) << 13;
    const float scaled = NAME(float_of)(wide) * NAME(float_of)(0x77800000);
    uint32_t result;
    memcpy(&result, &scaled, 4);
    result |= (bits & 0x7c00) == 0x7c00 ? 0x7f800000 : 0;
    return NAME(float_of)(result | (bits & 0x8000) << 16);
}

static inline double NAME(eighth)(uint32_t bits) {
    const float scaled = NAME(float_of)((bits & 0x7f) << 20) * NAME(float_of)(0x7b800000);
    uint32_t result;
    memcpy(&result, &scaled, 4);
    result = (bits & 0x7f) == 0x7f ? 0x7fc00000 : result;
    return NAME(float_of)(result | (bits & 0x80) << 24);
}

#define LOADED(type, value) \
    for (int64_t i = 0; i < count; i++) { const type x = ((const type *)at)[i]; into[i] = (value); } \
    return

typedef int16_t __attribute__((aligned(1), may_alias)) NAME(i16);
typedef int32_t __attribute__((aligned(1), may_alias)) NAME(i32);
typedef int64_t __attribute__((aligned(1), may_alias)) NAME(i64);
typedef float __attribute__((aligned(1), may_alias)) NAME(f32);
typedef double __attribute__((aligned(1), may_alias)) NAME(f64);

static void NAME(as_doubles)(const uint8_t *at, int code, int64_t count, double *restrict into) {
    switch (code) {
        case 3: LOADED(int8_t, x);
        case 4: LOADED(uint8_t, NAME(eighth)(x));
        case 5: LOADED(uint8_t, NAME(half)((uint32_t)x << 8));
        case 6: LOADED(NAME(i16), x);
        case 7: LOADED(lane_16, x);
        case 8: LOADED(lane_16, NAME(half)(x));
        case 9: LOADED(lane_16, NAME(float_of)((uint32_t)x << 16));
        case 10: LOADED(NAME(i32), x);
        case 11: LOADED(lane_32, x);
        case 12: LOADED(NAME(f32), x);
        case 13: LOADED(NAME(i64), (double)x);
        case 14: LOADED(lane_64, (double)x);
        case 15: LOADED(NAME(f64), x);
        default: LOADED(uint8_t, x);
    }
}
#undef LOADED

#define WHERE(mask, a, b) ((LOT)(((mask) & (LOT_BITS)(a)) | (~(mask) & (LOT_BITS)(b))))
#define ONES(mask) ((LOT)((mask) & (LOT_BITS)(ZERO + 1)))
#define KEPT(mask, a) ((LOT)((mask) & (LOT_BITS)(a)))
#define ZERO ((LOT){0})
#define LOT NAME(lot)
#define LOT_BITS NAME(lot_bits)

/* AT_ONCE numbers, and the answers to a question about each: all bits or none. */
typedef double __attribute__((vector_size(8 * AT_ONCE), may_alias)) LOT;
typedef int64_t __attribute__((vector_size(8 * AT_ONCE), may_alias)) LOT_BITS;

static inline double NAME(total)(const LOT sums) {
    double total = 0;
    for (int l = 0; l < AT_ONCE; l++) total += sums[l];
    return total;
}

/* One chunk, its length whole lots: what is beyond the tensor's end is not a number, and taken off. */
static void NAME(alone)(const LOT *x, int64_t lots, int64_t beyond, double *out) {
    LOT n = ZERO, sum = ZERO, squares = ZERO, zeros = ZERO, apart = ZERO;
    LOT least = ZERO + INFINITY, greatest = ZERO - INFINITY;
    for (int64_t i = 0; i < lots; i++) {
        const LOT v = x[i];
        const LOT_BITS finite = v - v == ZERO;
        /* An infinity is no number here: it would be all that is told of the rest. */
        const LOT kept = KEPT(finite, v);
        n += ONES(finite);
        sum += kept;
        squares += kept * kept;
        zeros += ONES(v == ZERO);
        least = WHERE(finite & (v < least), v, least);
        greatest = WHERE(finite & (v > greatest), v, greatest);
    }
    const double here = NAME(total)(n);
    out[NONFINITE] += (double)(AT_ONCE * lots - beyond) - here;
    out[ZEROS] += NAME(total)(zeros);
    out[SQUARES] += NAME(total)(squares);
    for (int l = 0; l < AT_ONCE; l++) {
        if (least[l] < out[LEAST]) out[LEAST] = least[l];
        if (greatest[l] > out[GREATEST]) out[GREATEST] = greatest[l];
    }
    if (here == 0) return;
    const double mean = NAME(total)(sum) / here;
    for (int64_t i = 0; i < lots; i++) {
        const LOT off = KEPT(x[i] - x[i] == ZERO, x[i] - mean);
        apart += off * off;
    }
    /* Chan, Golub and LeVeque (1979): means and squared deviations of two parts, put together. */
    const double before = out[FINITE], all = before + here, step = mean - out[MEAN];
    out[MEAN] += step * (here / all);
    out[DEVIATION] += NAME(total)(apart) + step * step * (before * here / all);
    out[FINITE] = all;
}

static void NAME(against)(const LOT *x, const LOT *y, int64_t lots, int64_t beyond, double *out) {
    LOT n = ZERO, equal = ZERO, apart = ZERO, furthest = ZERO, product = ZERO, own = ZERO, others = ZERO;
    for (int64_t i = 0; i < lots; i++) {
        const LOT_BITS both = (x[i] - x[i] == ZERO) & (y[i] - y[i] == ZERO);
        const LOT a = KEPT(both, x[i]), b = KEPT(both, y[i]), off = a - b;
        const LOT far = (LOT)((LOT_BITS)off & INT64_MAX);
        n += ONES(both);
        equal += ONES((x[i] == y[i]) | ((x[i] != x[i]) & (y[i] != y[i])));
        apart += off * off;
        furthest = WHERE(far > furthest, far, furthest);
        product += a * b;
        own += a * a;
        others += b * b;
    }
    out[BOTH] += NAME(total)(n);
    out[EQUAL] += NAME(total)(equal) - (double)beyond;
    out[APART] += NAME(total)(apart);
    for (int l = 0; l < AT_ONCE; l++) {
        if (furthest[l] > out[FURTHEST]) out[FURTHEST] = furthest[l];
    }
    out[PRODUCT] += NAME(total)(product);
    out[OWN] += NAME(total)(own);
    out[OTHERS] += NAME(total)(others);
}

/* `out`: RESULTS numbers. `other` may be NULL; it has as many elements. */
API void NAME(stm_moments)(const uint8_t *data, int code, int size, const uint8_t *other, int other_code,
                           int other_size, int64_t count, double *out) {
    LOT x[CHUNK / AT_ONCE], y[CHUNK / AT_ONCE];
    for (int k = 0; k < RESULTS; k++) out[k] = 0;
    out[LEAST] = INFINITY;
    out[GREATEST] = -INFINITY;
    for (int64_t at = 0; at < count; at += CHUNK) {
        const int64_t here = count - at < CHUNK ? count - at : CHUNK, lots = (here + AT_ONCE - 1) / AT_ONCE;
        x[lots - 1] = y[lots - 1] = ZERO + NAN;
        NAME(as_doubles)(data + at * size, code, here, (double *)x);
        NAME(alone)(x, lots, AT_ONCE * lots - here, out);
        if (other) {
            NAME(as_doubles)(other + at * other_size, other_code, here, (double *)y);
            NAME(against)(x, y, lots, AT_ONCE * lots - here, out);
        }
    }
}

#undef WHERE
#undef ONES
#undef KEPT
#undef LOT
#undef LOT_BITS
#undef ZERO
#undef CHUNK
