/* Weights to codes, straight into their stream, and what their scales are made of. Weights are finite. */
#include "codes.h"
#include <math.h>

/* Added to a number below 2^22 in size, it leaves no bits behind the point: rounding to the nearest, ties to even. */
#define WHOLE 12582912.0f

enum { NEAREST, FLOOR, CEIL, SIGN };

typedef struct {
    uint8_t *stream, *end;
    int width, way;
    int32_t shift; /* codes are whole numbers + shift */
    float low, high;
} Target;

INLINED float clipped(float weight, float minimum, float step, float low, float high)
{
    float x = (weight - minimum) / step;
    x = x < low ? low : x; /* limits are whole: rounding first would end the same */
    return x > high ? high : x;
}

INLINED void codes_of(const float *weights, int64_t n, const Target *t, const Place *p, uint8_t *out)
{
    float minimum = p->minimum, step = p->scale == 0 ? INFINITY : p->scale, low = t->low, high = t->high;
    int32_t shift = t->shift;
    switch (t->way) {
    case NEAREST:
        for (int64_t i = 0; i < n; i++)
            out[i] = (uint8_t)((int32_t)((clipped(weights[i], minimum, step, low, high) + WHOLE) - WHOLE) + shift);
        break;
    case FLOOR:
        for (int64_t i = 0; i < n; i++) {
            float x = clipped(weights[i], minimum, step, low, high), whole = (x + WHOLE) - WHOLE;
            out[i] = (uint8_t)((int32_t)whole - (whole > x) + shift);
        }
        break;
    case CEIL:
        for (int64_t i = 0; i < n; i++) {
            float x = clipped(weights[i], minimum, step, low, high), whole = (x + WHOLE) - WHOLE;
            out[i] = (uint8_t)((int32_t)whole + (whole < x) + shift);
        }
        break;
    default:
        for (int64_t i = 0; i < n; i++)
            out[i] = weights[i] >= 0;
    }
}

VECTORISED static void encode(const float *restrict weights, int64_t n, const Target *t, const Sharing *s)
{
    uint8_t tile[TILE];
    uint8_t *stream = t->stream;
    Place p = place_of(s, 0);
    while (n > 0) {
        int64_t count = n < TILE ? n : TILE, done = 0;
        uint8_t *codes = t->width < 8 ? tile : stream;
        while (done < count) {
            if (!p.left)
                next_place(s, &p);
            int64_t m = p.left < count - done ? p.left : count - done;
            codes_of(weights + done, m, t, &p, codes + done);
            done += m;
            p.left -= m;
        }
        if (t->width < 8) {
            int64_t words = (count + 7) / 8;
            memset(tile + count, 0, (size_t)(8 * words - count));
            pack_words(tile, words, t->width, stream, t->end);
        }
        stream += TILE / 8 * t->width;
        weights += count;
        n -= count;
    }
}

/* Numbers in the order of their bits, which integers compare: −0 below 0. */
INLINED int32_t rank_of(int32_t bits)
{
    return bits ^ ((bits >> 31) & INT32_MAX);
}

VECTORISED static void ranges(const int32_t *restrict weights, int64_t n, int64_t columns, int64_t size,
                              int32_t *restrict low, int32_t *restrict high)
{
    for (int64_t at = 0, column = 0, run = 0; at < n; run++) {
        int64_t m = columns - column < size ? columns - column : size;
        int32_t least = INT32_MAX, most = INT32_MIN;
        for (int64_t i = 0; i < m; i++) {
            int32_t rank = rank_of(weights[at + i]);
            least = rank < least ? rank : least;
            most = rank > most ? rank : most;
        }
        low[run] = rank_of(least);
        high[run] = rank_of(most);
        at += m;
        column = column + m < columns ? column + m : 0;
    }
}

/* Σ|w| of each run, in eight sums side by side, so that every machine adds in the same order. */
VECTORISED static void sizes(const float *restrict weights, int64_t n, int64_t columns, int64_t size,
                             double *restrict sum)
{
    for (int64_t at = 0, column = 0, run = 0; at < n; run++) {
        int64_t m = columns - column < size ? columns - column : size, i = 0;
        double parts[8] = {0}, total = 0;
        for (; i + 8 <= m; i += 8)
            for (int k = 0; k < 8; k++)
                parts[k] += (double)fabsf(weights[at + i + k]);
        for (; i < m; i++)
            parts[i % 8] += (double)fabsf(weights[at + i]);
        for (int k = 0; k < 8; k++)
            total += parts[k];
        sum[run] = total;
        at += m;
        column = column + m < columns ? column + m : 0;
    }
}

/* codes_encode(weights, n, scales, minima or 0, half, columns, size, shift, low, high, way, width, stream);
 * way: 0 nearest, 1 floor, 2 ceil, 3 the sign alone */
PyObject *codes_encode(PyObject *module, PyObject *args)
{
    unsigned long long weights, scales, minima, stream;
    long long n, columns, size;
    int half, shift, low, high, way, width;
    (void)module;
    if (!PyArg_ParseTuple(args, "KLKKiLLiiiiiK", &weights, &n, &scales, &minima, &half, &columns, &size, &shift, &low,
                          &high, &way, &width, &stream))
        return NULL;
    uint8_t *start = (uint8_t *)(uintptr_t)stream;
    Target t = {start, start + (n * width + 7) / 8, width, way, shift, (float)low, (float)high};
    Sharing s = {columns, size, (const uint8_t *)(uintptr_t)scales, (const uint8_t *)(uintptr_t)minima, half};
    Py_BEGIN_ALLOW_THREADS
    encode((const float *)(uintptr_t)weights, n, &t, &s);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

/* codes_ranges(weights, n, columns, size, low, high): least and largest weight of each run, float32 */
PyObject *codes_ranges(PyObject *module, PyObject *args)
{
    unsigned long long weights, low, high;
    long long n, columns, size;
    (void)module;
    if (!PyArg_ParseTuple(args, "KLLLKK", &weights, &n, &columns, &size, &low, &high))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    ranges((const int32_t *)(uintptr_t)weights, n, columns, size, (int32_t *)(uintptr_t)low,
           (int32_t *)(uintptr_t)high);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

/* codes_sizes(weights, n, columns, size, sum): Σ|w| of each run, float64 */
PyObject *codes_sizes(PyObject *module, PyObject *args)
{
    unsigned long long weights, sum;
    long long n, columns, size;
    (void)module;
    if (!PyArg_ParseTuple(args, "KLLLK", &weights, &n, &columns, &size, &sum))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    sizes((const float *)(uintptr_t)weights, n, columns, size, (double *)(uintptr_t)sum);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}
