/* Codes to the weights that they stand for, straight out of their stream: scale · code, then + minimum.
 *
 * The product is rounded before the sum, as torch does it: this file must not be compiled to fused multiply-adds
 * (-ffp-contract=off; the clones here have none). */
#include "codes.h"

typedef struct {
    const uint8_t *stream, *end;
    int width; /* bits of a code in the stream */
    int twice; /* a code c stands for 2^twice·c − shift */
    int32_t shift;
} Codes;

INLINED void weights_of(const uint8_t *codes, int64_t n, const Codes *c, const Place *p, int lifted, float *out)
{
    int twice = c->twice;
    int32_t shift = c->shift;
    float scale = p->scale, minimum = p->minimum;
    if (lifted)
        for (int64_t i = 0; i < n; i++) {
            float product = (float)codes[i] * scale;
            out[i] = product + minimum;
        }
    else
        for (int64_t i = 0; i < n; i++)
            out[i] = (float)((int32_t)((uint32_t)codes[i] << twice) - shift) * scale;
}

/* Weights first … first + n − 1. */
VECTORISED static void decode(const Codes *c, const Sharing *s, int64_t first, int64_t n, float *restrict out)
{
    uint8_t tile[TILE];
    Place p = place_of(s, first);
    int lifted = s->minima != NULL;
    while (n > 0) {
        int64_t skipped = first % 8, count = n < TILE - skipped ? n : TILE - skipped;
        const uint8_t *codes = c->stream + first; /* a byte each: where they lie */
        if (c->width < 8) {
            unpack_words(c->stream + first / 8 * c->width, c->end, (skipped + count + 7) / 8, c->width, tile);
            codes = tile + skipped;
        }
        first += count;
        n -= count;
        while (count > 0) {
            if (!p.left)
                next_place(s, &p);
            int64_t m = p.left < count ? p.left : count;
            weights_of(codes, m, c, &p, lifted, out);
            codes += m;
            out += m;
            count -= m;
            p.left -= m;
        }
    }
}

/* codes_decode(stream, bytes, width, twice, shift, scales, minima or 0, half, columns, size, rows or 0, count, length,
 * out): `count` stretches of `length` weights, the i-th from weight rows[i]·length on (rows 0: i·length) */
PyObject *codes_decode(PyObject *module, PyObject *args)
{
    unsigned long long stream, scales, minima, rows, out;
    long long bytes, columns, size, count, length;
    int width, twice, shift, half;
    (void)module;
    if (!PyArg_ParseTuple(args, "KLiiiKKiLLKLLK", &stream, &bytes, &width, &twice, &shift, &scales, &minima, &half,
                          &columns, &size, &rows, &count, &length, &out))
        return NULL;
    const uint8_t *start = (const uint8_t *)(uintptr_t)stream;
    Codes c = {start, start + bytes, width, twice, shift};
    Sharing s = {columns, size, (const uint8_t *)(uintptr_t)scales, (const uint8_t *)(uintptr_t)minima, half};
    const int64_t *from = (const int64_t *)(uintptr_t)rows;
    float *to = (float *)(uintptr_t)out;
    Py_BEGIN_ALLOW_THREADS
    for (int64_t i = 0; i < count; i++)
        decode(&c, &s, (from ? from[i] : i) * length, length, to + i * length);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}
