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

/* Chan, Golub and LeVeque (1979): means and squared deviations of two parts, put together; `step` is how far their
   means are apart. */
static inline void NAME(join)(double here, double step, double deviation, double *out) {
    const double before = out[FINITE], all = before + here;
    out[MEAN] += step * (here / all);
    out[DEVIATION] += deviation;
    /* Else it is nothing times what may be infinite. */
    if (before > 0) out[DEVIATION] += step * step * (before * here / all);
    out[FINITE] = all;
}

/* One chunk, its length whole lots: what is beyond the tensor's end is not a number, and taken off. */
static void NAME(alone)(const LOT *x, int64_t lots, int64_t beyond, double *out) {
    LOT n = ZERO, sum = ZERO, squares = ZERO, zeros = ZERO, left = ZERO, apart = ZERO;
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
        left += off;
        apart += off * off;
    }
    /* What rounding the sum took from the mean is small beside it, but not beside a small deviation. */
    const double more = NAME(total)(left) / here;
    NAME(join)(here, (mean - out[MEAN]) + more, NAME(total)(apart) - more * more * here, out);
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

#define TWICE for (int u = 0; u < 2; u++)

/* One whole chunk whose numbers are all finite and near `around`, in one pass: how many, their sum and that of
   their squares, all from there, are added to `near`. 0, and nothing is done, if they are not. */
static int NAME(alone_quick)(const LOT *x, double around, double *near, double *out) {
    LOT sum[2] = {ZERO, ZERO}, squares[2] = {ZERO, ZERO};
    LOT least[2] = {x[0], x[1]}, greatest[2] = {x[0], x[1]};
    LOT_BITS zeros[2] = {{0}, {0}};
    for (int64_t i = 0; i < CHUNK / AT_ONCE; i += 2) TWICE {
        const LOT v = x[i + u], off = v - around;
        sum[u] += off;
        squares[u] += off * off;
        zeros[u] -= v == ZERO;
        least[u] = LOWER(least[u], v);
        greatest[u] = HIGHER(greatest[u], v);
    }
    const double off = NAME(total)(sum[0] + sum[1]), square = NAME(total)(squares[0] + squares[1]);
    /* One is infinite or no number; or the deviation would be the small difference of two large sums. */
    if (!(square < INFINITY) || off * (off / CHUNK) > square / 2) return 0;
    near[0] += CHUNK;
    near[1] += off;
    near[2] += square;
    out[ZEROS] += NAME(total)(__builtin_convertvector(zeros[0] + zeros[1], LOT));
    const LOT lowest = LOWER(least[0], least[1]), highest = HIGHER(greatest[0], greatest[1]);
    for (int l = 0; l < AT_ONCE; l++) {
        if (lowest[l] < out[LEAST]) out[LEAST] = lowest[l];
        if (highest[l] > out[GREATEST]) out[GREATEST] = highest[l];
    }
    return 1;
}

/* As `against`, of a whole chunk. 0, and nothing is done, unless all numbers are finite. */
static int NAME(against_quick)(const LOT *x, const LOT *y, double *out) {
    LOT apart[2] = {ZERO, ZERO}, furthest[2] = {ZERO, ZERO}, product[2] = {ZERO, ZERO};
    LOT own[2] = {ZERO, ZERO}, others[2] = {ZERO, ZERO};
    LOT_BITS equal[2] = {{0}, {0}};
    for (int64_t i = 0; i < CHUNK / AT_ONCE; i += 2) TWICE {
        const LOT a = x[i + u], b = y[i + u], off = a - b;
        apart[u] += off * off;
        furthest[u] = HIGHER(furthest[u], (LOT)((LOT_BITS)off & INT64_MAX));
        equal[u] -= a == b;
        product[u] += a * b;
        own[u] += a * a;
        others[u] += b * b;
    }
    const double mine = NAME(total)(own[0] + own[1]), theirs = NAME(total)(others[0] + others[1]);
    if (!(mine < INFINITY && theirs < INFINITY)) return 0;
    out[BOTH] += CHUNK;
    out[EQUAL] += NAME(total)(__builtin_convertvector(equal[0] + equal[1], LOT));
    out[APART] += NAME(total)(apart[0] + apart[1]);
    const LOT far = HIGHER(furthest[0], furthest[1]);
    for (int l = 0; l < AT_ONCE; l++) {
        if (far[l] > out[FURTHEST]) out[FURTHEST] = far[l];
    }
    out[PRODUCT] += NAME(total)(product[0] + product[1]);
    out[OWN] += mine;
    out[OTHERS] += theirs;
    return 1;
}

/* `out`: RESULTS numbers. `other` may be NULL; it has as many elements. */
API void NAME(stm_moments)(const uint8_t *data, int code, int size, const uint8_t *other, int other_code,
                           int other_size, int64_t count, double *out) {
    LOT x[CHUNK / AT_ONCE], y[CHUNK / AT_ONCE];
    double around = 0, near[3] = {0};
    for (int k = 0; k < RESULTS; k++) out[k] = 0;
    out[LEAST] = INFINITY;
    out[GREATEST] = -INFINITY;
    for (int64_t at = 0; at < count; at += CHUNK) {
        const int64_t here = count - at < CHUNK ? count - at : CHUNK, lots = (here + AT_ONCE - 1) / AT_ONCE;
        const int64_t beyond = AT_ONCE * lots - here;
        x[lots - 1] = y[lots - 1] = ZERO + NAN;
        NAME(as_doubles)(data + at * size, code, here, (double *)x);
        if (at == CHUNK) around = out[MEAN];
        if (!at || here < CHUNK || !NAME(alone_quick)(x, around, near, out)) NAME(alone)(x, lots, beyond, out);
        if (other) {
            NAME(as_doubles)(other + at * other_size, other_code, here, (double *)y);
            if (here < CHUNK || !NAME(against_quick)(x, y, out)) NAME(against)(x, y, lots, beyond, out);
        }
    }
    if (near[0] == 0) return;
    out[SQUARES] += near[2] + around * (2 * near[1] + near[0] * around);
    const double shift = near[1] / near[0];
    NAME(join)(near[0], (around - out[MEAN]) + shift, near[2] - shift * near[1], out);
}

#undef WHERE
#undef TWICE
#undef ONES
#undef KEPT
#undef LOT
#undef LOT_BITS
#undef ZERO
#undef CHUNK
