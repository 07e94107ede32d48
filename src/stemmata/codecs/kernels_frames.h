/* Whole payloads of one element width: what delta.py and planes.py write and read, in one call each, so that a
   thread does not wait for the interpreter between a frame's many streams. Included by kernels_width.h. */

/* Bytes of the payload behind its reference. `into` has room for SPARE bytes more than the frame. */
API int64_t NAME(stm_delta_write)(const Space *s, const LANE *x, const LANE *b, int64_t n, int mantissa,
                                  int repeats, uint8_t *into) {
    const int groups = NAME(stm_delta_split)(x, b, n, mantissa, (LANE *)s->words, (LANE *)s->sorted, s->classes,
                                             s->tokens, s->groups, s->raw, s->low, s->high, s->sizes);
    const uint8_t *tokens = s->tokens;
    uint8_t *end = put_stream(s, s->classes, (n + BLOCK - 1) / BLOCK, 0, 1, into);
    for (int g = 0; g < groups; g++) {
        end = put_stream(s, tokens, s->groups[g], 1, repeats, end);
        tokens += s->groups[g];
    }
    end = put_stream(s, s->raw, s->sizes[0], 0, 0, end);
    if (s->sizes[1]) {
        end = put_stream(s, s->low, s->sizes[1], 1, 1, end);
        end = put_stream(s, s->high, s->sizes[1], 1, 1, end);
    }
    return end - into;
}

/* 0, or -1 where Python has to look. */
API int NAME(stm_delta_read)(const Space *s, const uint8_t *payload, int64_t size, const LANE *b, int64_t n,
                             int mantissa, LANE *x) {
    Unread rest = {payload, payload + size};
    const int64_t blocks = (n + BLOCK - 1) / BLOCK;
    if (take_stream(s, &rest, blocks, s->classes)) return -1;
    const uint8_t most = mantissa > DRIFT_BITS ? DRIFTED : SCATTERED;
    for (int64_t k = 0; k < blocks; k++) {
        if (s->classes[k] > most) return -1;
    }
    const int groups = NAME(stm_delta_groups)(b, n, mantissa, s->classes, s->of_key, s->groups, s->sizes);
    uint8_t *tokens = s->tokens;
    for (int g = 0; g < groups; g++) {
        if (take_stream(s, &rest, s->groups[g], tokens)) return -1;
        tokens += s->groups[g];
    }
    const uint8_t *raw;
    int64_t raw_size;
    if (next_stream(&rest, &raw, &raw_size) != STORED || raw_size > n * (int64_t)sizeof(W)) return -1;
    memcpy(s->raw, raw, (size_t)raw_size); /* behind it there is more to read, as there may not be here */
    const int64_t drifted = s->sizes[0];
    if (drifted && (take_stream(s, &rest, drifted, s->low) || take_stream(s, &rest, drifted, s->high))) return -1;
    if (rest.at != rest.end) return -1;
    return NAME(stm_delta_join)(b, n, mantissa, s->classes, s->of_key, s->groups, groups, s->tokens, s->raw,
                                raw_size, s->low, s->high, (LANE *)s->sorted, x);
}

/* Bytes of the payload. Bit k of `repeats`: whether they are looked for in plane k. */
API int64_t NAME(stm_planes_write)(const Space *s, const LANE *x, int64_t n, int rotate, int repeats,
                                   uint8_t *into) {
    uint8_t *end = into;
    NAME(stm_split)(x, n, rotate, s->planes, s->plane);
    for (int k = 0; k < BITS / 8; k++) {
        end = put_stream(s, s->planes + k * s->plane, n, 1, repeats >> k & 1, end);
    }
    return end - into;
}

/* 0, or -1 where Python has to look. */
API int NAME(stm_planes_read)(const Space *s, const uint8_t *payload, int64_t size, int64_t n, int rotate, LANE *x) {
    Unread rest = {payload, payload + size};
    const uint8_t *planes[BITS / 8];
    for (int k = 0; k < BITS / 8; k++) {
        planes[k] = find_stream(s, &rest, n, s->planes + k * s->plane);
        if (!planes[k]) return -1;
    }
    if (rest.at != rest.end) return -1;
    NAME(stm_join)(planes, n, rotate, x);
    return 0;
}
