/* Codes of 1 to 8 bits, as a stream or a byte each, and the scales that runs of weights share: what codes_stream.c,
 * codes_decode.c and codes_encode.c have in common. Streams and numbers are little-endian, at any address.
 * See allocator/applier/packing.py and quantizer.py, whose results these kernels give bit for bit. */
#ifndef ALLOCATOR_CODES_H
#define ALLOCATOR_CODES_H

#include "engine.h"
#include <string.h>

#if defined(__GNUC__)
#define INLINED static inline __attribute__((always_inline)) /* into each clone, with constants where there are any */
#else
#define INLINED static inline
#endif

#define TILE 4096 /* codes that are unpacked at a time: they stay in the nearest cache */

/* The low `n` bits, n below 64. */
#define LOW(n) (((uint64_t)1 << (n)) - 1)

/* Eight codes in the low 8·bits bits, to a byte each. */
INLINED uint64_t spread(uint64_t x, int bits)
{
    x = (x & LOW(4 * bits)) | (x & LOW(4 * bits) << 4 * bits) << (32 - 4 * bits);
    x = (x & LOW(2 * bits) * 0x0000000100000001u) |
        (x & (LOW(2 * bits) * 0x0000000100000001u) << 2 * bits) << (16 - 2 * bits);
    return (x & LOW(bits) * 0x0001000100010001u) |
           (x & (LOW(bits) * 0x0001000100010001u) << bits) << (8 - bits);
}

/* The other way round; each byte is below 2^bits. */
INLINED uint64_t fold(uint64_t x, int bits)
{
    x = (x & 0x00FF00FF00FF00FFu) | (x >> (8 - bits) & (uint64_t)0x00FF00FF00FF00FFu << bits);
    x = (x & 0x0000FFFF0000FFFFu) | (x >> (16 - 2 * bits) & (uint64_t)0x0000FFFF0000FFFFu << 2 * bits);
    return (x & 0x00000000FFFFFFFFu) | (x >> (32 - 4 * bits) & (uint64_t)0x00000000FFFFFFFFu << 4 * bits);
}

INLINED void unpack_words_of(const uint8_t *in, const uint8_t *end, int64_t words, int bits, uint8_t *out)
{
    uint64_t x;
    for (; words > 0 && end - in >= 8; words--, in += bits, out += 8) {
        memcpy(&x, in, 8);
        x = spread(x, bits);
        memcpy(out, &x, 8);
    }
    for (; words > 0; words--, in += bits, out += 8) {
        x = 0;
        for (int k = 0; k < bits && in + k < end; k++)
            x |= (uint64_t)in[k] << 8 * k;
        x = spread(x, bits);
        memcpy(out, &x, 8);
    }
}

INLINED void pack_words_of(const uint8_t *codes, int64_t words, int bits, uint8_t *out, const uint8_t *end)
{
    uint64_t x;
    for (; words > 0 && end - out >= 8; words--, codes += 8, out += bits) { /* what follows is written over */
        memcpy(&x, codes, 8);
        x = fold(x, bits);
        memcpy(out, &x, 8);
    }
    for (; words > 0; words--, codes += 8, out += bits) {
        memcpy(&x, codes, 8);
        x = fold(x, bits);
        for (int k = 0; k < bits && out + k < end; k++)
            out[k] = (uint8_t)(x >> 8 * k);
    }
}

/* Codes of 8·words places, from a stream that goes on up to `end`; bits below 8. */
INLINED void unpack_words(const uint8_t *in, const uint8_t *end, int64_t words, int bits, uint8_t *out)
{
    switch (bits) {
    case 1: unpack_words_of(in, end, words, 1, out); break;
    case 2: unpack_words_of(in, end, words, 2, out); break;
    case 3: unpack_words_of(in, end, words, 3, out); break;
    case 4: unpack_words_of(in, end, words, 4, out); break;
    case 5: unpack_words_of(in, end, words, 5, out); break;
    case 6: unpack_words_of(in, end, words, 6, out); break;
    default: unpack_words_of(in, end, words, 7, out);
    }
}

INLINED void pack_words(const uint8_t *codes, int64_t words, int bits, uint8_t *out, const uint8_t *end)
{
    switch (bits) {
    case 1: pack_words_of(codes, words, 1, out, end); break;
    case 2: pack_words_of(codes, words, 2, out, end); break;
    case 3: pack_words_of(codes, words, 3, out, end); break;
    case 4: pack_words_of(codes, words, 4, out, end); break;
    case 5: pack_words_of(codes, words, 5, out, end); break;
    case 6: pack_words_of(codes, words, 6, out, end); break;
    default: pack_words_of(codes, words, 7, out, end);
    }
}

/* Rows of `columns` weights in runs of `size` (the last of a row may be shorter), each with a scale and a minimum. */
typedef struct {
    int64_t columns, size;
    const uint8_t *scales, *minima; /* minima NULL: symmetric */
    int half;                       /* float16, else float32 */
} Sharing;

/* Where one is: the run's number, its first column, and how many of its weights are still to come. */
typedef struct {
    int64_t run, column, left;
    float scale, minimum;
} Place;

INLINED float number_at(const uint8_t *numbers, int64_t i, int half)
{
    uint32_t bits;
    float value;
    if (!half) {
        memcpy(&value, numbers + 4 * i, 4);
        return value;
    }
    uint32_t h = (uint32_t)numbers[2 * i] | (uint32_t)numbers[2 * i + 1] << 8, e = h >> 10 & 31, m = h & 1023;
    if (!e) { /* zero or subnormal: m · 2^−24 is exact */
        value = (float)m * 0x1p-24f;
        return h >> 15 ? -value : value;
    }
    bits = (h & 0x8000) << 16 | (e == 31 ? 255 : e + 112) << 23 | m << 13;
    memcpy(&value, &bits, 4);
    return value;
}

INLINED void read_place(const Sharing *s, Place *p)
{
    p->scale = number_at(s->scales, p->run, s->half);
    p->minimum = s->minima ? number_at(s->minima, p->run, s->half) : 0;
}

/* The place of weight `first`. */
INLINED Place place_of(const Sharing *s, int64_t first)
{
    int64_t row = first / s->columns, column = first % s->columns, run = column / s->size;
    int64_t runs = (s->columns + s->size - 1) / s->size, stop = (run + 1) * s->size;
    Place p = {row * runs + run, run * s->size, (stop < s->columns ? stop : s->columns) - column, 0, 0};
    read_place(s, &p);
    return p;
}

/* On to the next run. */
INLINED void next_place(const Sharing *s, Place *p)
{
    p->run++;
    p->column += s->size;
    if (p->column >= s->columns)
        p->column = 0;
    p->left = s->columns - p->column < s->size ? s->columns - p->column : s->size;
    read_place(s, p);
}

#endif
