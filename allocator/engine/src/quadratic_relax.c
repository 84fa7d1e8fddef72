/* The convex program over parts of choices, by descent over groups. quadratic_relax.py has the twin in numpy. */
#include "engine.h"
#include <math.h>
#include <string.h>

enum { SETTLED = 8 };

typedef struct {
    int64_t groups, choices, rank, sides, sweeps, steps;
    const int64_t *start;  /* [G + 1] */
    const double *linear;  /* [n] */
    const double *vectors; /* [n, r] */
    const double *sign;    /* [r], > 0 */
    const double *column;  /* [S, n] */
    const double *limit;   /* [S] */
    double *parts;         /* [n] in and out */
    double *mean;          /* [n] out: of the parts after each sweep, later ones counting more */
    double *price;         /* [S] in and out */
    const double *options; /* push, still, seconds */
} program_t;

VECTORISED
static double product(const double *restrict a, const double *restrict b, int64_t n)
{
    double parts[8] = {0};
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int64_t j = 0; j < 8; j++)
            parts[j] += a[i + j] * b[i + j];
    for (; i < n; i++)
        parts[0] += a[i] * b[i];
    return ((parts[0] + parts[4]) + (parts[1] + parts[5])) + ((parts[2] + parts[6]) + (parts[3] + parts[7]));
}

VECTORISED
static double weighed(const double *restrict a, const double *restrict b, const double *restrict sign, int64_t n)
{
    double parts[8] = {0};
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int64_t j = 0; j < 8; j++)
            parts[j] += sign[i + j] * a[i + j] * b[i + j];
    for (; i < n; i++)
        parts[0] += sign[i] * a[i] * b[i];
    return ((parts[0] + parts[4]) + (parts[1] + parts[5])) + ((parts[2] + parts[6]) + (parts[3] + parts[7]));
}

VECTORISED
static void add(double *restrict along, const double *restrict row, const double *restrict sign, double step, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        along[i] += step * sign[i] * row[i];
}

/* ½ e c² between the choices of each group, without the sides: blocks one after the other. */
static void bends(const program_t *p, double *block)
{
    for (int64_t g = 0; g < p->groups; g++) {
        int64_t first = p->start[g], size = p->start[g + 1] - first;
        if (size < 2)
            continue;
        for (int64_t a = 0; a < size; a++)
            for (int64_t b = 0; b <= a; b++)
                block[a * size + b] = block[b * size + a] = weighed(
                    p->vectors + (first + a) * p->rank, p->vectors + (first + b) * p->rank, p->sign, p->rank);
        block += size * size;
    }
}

/* Mass of one group from its dearest choice to its cheapest, a few times; what that gains, by the first slope. */
static double settle(const program_t *p, int64_t first, int64_t size, const double *block, const double *price,
                     double *slope, double *begin)
{
    double push = p->options[0], gained = 0;
    double *parts = p->parts + first;
    memcpy(begin, parts, (size_t)size * sizeof *begin);
    memcpy(begin + size, slope, (size_t)size * sizeof *begin);
    for (int64_t step = 0; step < p->steps; step++) {
        int64_t high = -1, low = 0;
        for (int64_t k = 0; k < size; k++) {
            if (parts[k] > 0 && (high < 0 || slope[k] > slope[high]))
                high = k;
            if (slope[k] < slope[low])
                low = k;
        }
        if (high < 0 || high == low || !(slope[high] - slope[low] > 0))
            break;
        double bend = block[high * size + high] + block[low * size + low] - 2 * block[high * size + low];
        for (int64_t i = 0; i < p->sides; i++)
            if (price[i] > 0) {
                double c = p->column[i * p->choices + first + high] - p->column[i * p->choices + first + low];
                bend += push * c * c;
            }
        double moved = parts[high], steep = slope[high] - slope[low];
        if (bend > 0 && steep / bend < moved)
            moved = steep / bend;
        parts[high] -= moved;
        parts[low] += moved;
        for (int64_t k = 0; k < size; k++) {
            double more = block[low * size + k] - block[high * size + k];
            for (int64_t i = 0; i < p->sides; i++)
                if (price[i] > 0) {
                    const double *c = p->column + i * p->choices + first;
                    more += push * (c[low] - c[high]) * c[k];
                }
            slope[k] += moved * more;
        }
    }
    for (int64_t k = 0; k < size; k++)
        gained -= begin[size + k] * (parts[k] - begin[k]);
    return gained;
}

/* along [r] = Σ sign·part·vectors, over [S] = Σ part·column − limit. */
static void sums(const program_t *p, double *along, double *over)
{
    memset(along, 0, (size_t)p->rank * sizeof *along);
    for (int64_t k = 0; k < p->choices; k++)
        if (p->parts[k] != 0)
            add(along, p->vectors + k * p->rank, p->sign, p->parts[k], p->rank);
    for (int64_t i = 0; i < p->sides; i++)
        over[i] = product(p->parts, p->column + i * p->choices, p->choices) - p->limit[i];
}

static void descend_parts(const program_t *p, double *block, double *along, double *over, double *room)
{
    double push = p->options[0], deadline = now_seconds() + p->options[2];
    double *price = over + p->sides, *slope = room, *begin;
    bends(p, block);
    for (int64_t sweep = 0; sweep < p->sweeps; sweep++) {
        const double *mine = block;
        double gained = 0;
        sums(p, along, over);
        for (int64_t g = 0; g < p->groups; g++) {
            int64_t first = p->start[g], size = p->start[g + 1] - first;
            if (size < 2)
                continue;
            begin = slope + size;
            for (int64_t i = 0; i < p->sides; i++)
                price[i] = fmax(p->price[i] + push * over[i], 0.0);
            for (int64_t k = 0; k < size; k++) {
                slope[k] = p->linear[first + k] + product(p->vectors + (first + k) * p->rank, along, p->rank);
                for (int64_t i = 0; i < p->sides; i++)
                    slope[k] += price[i] * p->column[i * p->choices + first + k];
            }
            gained += settle(p, first, size, mine, price, slope, begin);
            for (int64_t k = 0; k < size; k++) {
                double step = p->parts[first + k] - begin[k];
                if (step == 0)
                    continue;
                add(along, p->vectors + (first + k) * p->rank, p->sign, step, p->rank);
                for (int64_t i = 0; i < p->sides; i++)
                    over[i] += step * p->column[i * p->choices + first + k];
            }
            mine += size * size;
        }
        for (int64_t i = 0; i < p->sides; i++)
            p->price[i] = fmax(p->price[i] + push * over[i], 0.0);
        for (int64_t k = 0; k < p->choices; k++)
            p->mean[k] += (p->parts[k] - p->mean[k]) * 2.0 / (double)(sweep + 2);
        if (now_seconds() > deadline || (sweep > SETTLED && fabs(gained) < p->options[1]))
            break;
    }
}

/* The frame that quadratic_relax.py fills (64-bit fields, in the order of program_t). */
PyObject *quadratic_relax(PyObject *self, PyObject *args)
{
    (void)self;
    Py_ssize_t a_program;
    if (!PyArg_ParseTuple(args, "n", &a_program))
        return NULL;
    const program_t *p = (const program_t *)a_program;
    int64_t widest = 1, cells = 1;
    for (int64_t g = 0; g < p->groups; g++) {
        int64_t size = p->start[g + 1] - p->start[g];
        widest = size > widest ? size : widest;
        cells += size * size;
    }
    double *room = malloc((size_t)(cells + p->rank + 2 * p->sides + 3 * widest + 4) * sizeof *room);
    if (!room)
        return PyErr_NoMemory();
    double *along = room + cells, *over = along + p->rank, *rest = over + 2 * p->sides;
    Py_BEGIN_ALLOW_THREADS
    descend_parts(p, room, along, over, rest);
    free(room);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}
