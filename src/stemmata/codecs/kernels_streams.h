/* Streams: runs of bytes inside a payload, as streams.py writes and reads them. Included by kernels.c.

   zstd is the library that Python's zstandard brings; nothing here is linked to it. Whatever a reader here is not
   sure of it leaves to Python, which says what is wrong with it: nothing is accepted here that is refused there. */

typedef size_t zstd_code(void *context, void *into, size_t room, const void *from, size_t size);
typedef size_t zstd_measure(const void *from, size_t size);

/* Of one thread. Memory as numpy_kernels.py documents it, for the largest frame; its sizes are native.py's. */
typedef struct {
    zstd_code *compress, *decompress;
    zstd_measure *frame_size;
    void *entropy, *general, *reader;
    uint8_t *words, *sorted, *classes, *tokens, *raw, *low, *high, *of_key, *planes, *spare;
    uint32_t *groups;
    int64_t *sizes;
    int64_t plane;
} Space;

typedef struct {
    const uint8_t *at, *end;
} Unread;

enum { STREAM_HEAD = 5, STORED = 0, CODED = 1, SPARE = 2 << 20 };

/* The smallest of what is tried, at `into`, which has room for whatever zstd might make of it; its end. */
static uint8_t *put_stream(const Space *s, const uint8_t *from, int64_t size, int entropy, int repeats,
                           uint8_t *into) {
    /* A failure of zstd is a number larger than any size. */
    size_t best = (size_t)size;
    uint8_t mode = STORED;
    if (size && entropy) {
        const size_t found = s->compress(s->entropy, into + STREAM_HEAD, SPARE, from, (size_t)size);
        if (found < best) {
            best = found;
            mode = CODED;
        }
    }
    if (size && repeats) {
        const size_t found = s->compress(s->general, s->spare, SPARE, from, (size_t)size);
        if (found < best) {
            memcpy(into + STREAM_HEAD, s->spare, found);
            best = found;
            mode = CODED;
        }
    }
    if (mode == STORED) memcpy(into + STREAM_HEAD, from, best);
    const uint32_t stored = (uint32_t)best;
    into[0] = mode;
    memcpy(into + 1, &stored, 4);
    return into + STREAM_HEAD + best;
}

/* Whether 13 bytes begin a zstd frame that states `expected` bytes, in a single segment, which needs no memory but
   theirs, without a dictionary or a checksum: RFC 8878, 3.1.1.1. */
static int is_headed(const uint8_t *at, int64_t expected) {
    if (at[0] != 0x28 || at[1] != 0xb5 || at[2] != 0x2f || at[3] != 0xfd || (at[4] & 0x3f) != 0x20) return 0;
    const int width = at[4] >> 6;
    uint64_t stated = load64(at + 5);
    if (width < 3) stated &= ((uint64_t)1 << (8 << width)) - 1;
    return stated + (width == 1 ? 256 : 0) == (uint64_t)expected;
}

/* One zstd frame, the whole of it, of `expected` bytes. 0, or -1. */
static int take_coded(const Space *s, const uint8_t *at, int64_t size, int64_t expected, uint8_t *into) {
    uint8_t head[13] = {0};
    memcpy(head, at, size < 13 ? (size_t)size : 13);
    if (!expected || !is_headed(head, expected) || s->frame_size(at, (size_t)size) != (size_t)size) return -1;
    return s->decompress(s->reader, into, (size_t)expected, at, (size_t)size) == (size_t)expected ? 0 : -1;
}

/* The mode of the next stream and its bytes; -1 if there is none. */
static int next_stream(Unread *payload, const uint8_t **at, int64_t *size) {
    if (payload->end - payload->at < STREAM_HEAD) return -1;
    const int mode = payload->at[0];
    uint32_t stored;
    memcpy(&stored, payload->at + 1, 4);
    *at = payload->at + STREAM_HEAD;
    *size = stored;
    if (stored > payload->end - *at) return -1;
    payload->at = *at + stored;
    return mode;
}

/* Where the next stream's `expected` bytes are: where they lie if they are stored as they are, else in `room`. Null
   if they are not to be had. */
static const uint8_t *find_stream(const Space *s, Unread *payload, int64_t expected, uint8_t *room) {
    const uint8_t *at;
    int64_t size;
    const int mode = next_stream(payload, &at, &size);
    if (mode == CODED) return take_coded(s, at, size, expected, room) ? NULL : room;
    return mode == STORED && size == expected ? at : NULL;
}

/* The next stream's `expected` bytes, into memory that has room for them. 0, or -1. */
static int take_stream(const Space *s, Unread *payload, int64_t expected, uint8_t *into) {
    const uint8_t *found = find_stream(s, payload, expected, into);
    if (!found) return -1;
    if (found != into) memcpy(into, found, (size_t)expected);
    return 0;
}

/* As take_stream, of a whole payload. */
API int stm_zstd_read(const Space *s, const uint8_t *payload, int64_t size, int64_t expected, uint8_t *into) {
    return take_coded(s, payload, size, expected, into);
}
