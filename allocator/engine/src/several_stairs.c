/* The dynamic programme of one row in integers, from the back and from both ends (see several_stairs.py). */
#include "engine.h"
#include <math.h>

/* out[i + u] = min(out[i + u], in[i] + value) for i ≤ width − u. */
VECTORISED
static void widen(double *restrict out, const double *restrict in, int64_t count, double value)
{
    for (int64_t i = 0; i < count; i++) {
        double v = in[i] + value;
        out[i] = v < out[i] ? v : out[i];
    }
}

/* min over i of in[i] + after[count − 1 − i]. */
VECTORISED
static double joined(const double *restrict in, const double *restrict after, int64_t count)
{
    double best = INFINITY;
    for (int64_t i = 0; i < count; i++) {
        double v = in[i] + after[count - 1 - i];
        best = v < best ? v : best;
    }
    return best;
}

PyObject *several_stair(PyObject *self, PyObject *args)
{
    (void)self;
    Py_ssize_t depth, width, a_indptr, a_steps, a_column, a_table;
    if (!PyArg_ParseTuple(args, "nnnnnn", &depth, &width, &a_indptr, &a_steps, &a_column, &a_table))
        return NULL;
    const int64_t *indptr = (const int64_t *)a_indptr, *steps = (const int64_t *)a_steps;
    const double *column = (const double *)a_column;
    double *table = (double *)a_table;
    Py_BEGIN_ALLOW_THREADS
    for (int64_t i = 0; i <= width; i++)
        table[depth * (width + 1) + i] = 0.0;
    for (int64_t d = depth - 1; d >= 0; d--) {
        double *here = table + d * (width + 1);
        for (int64_t i = 0; i <= width; i++)
            here[i] = INFINITY;
        for (int64_t c = indptr[d]; c < indptr[d + 1]; c++)
            if (steps[c] <= width)
                widen(here + steps[c], here + (width + 1), width + 1 - steps[c], column[c]);
    }
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

PyObject *several_through(PyObject *self, PyObject *args)
{
    (void)self;
    Py_ssize_t depth, width, a_indptr, a_steps, a_column, a_table, a_found;
    if (!PyArg_ParseTuple(args, "nnnnnnn", &depth, &width, &a_indptr, &a_steps, &a_column, &a_table, &a_found))
        return NULL;
    const int64_t *indptr = (const int64_t *)a_indptr, *steps = (const int64_t *)a_steps;
    const double *column = (const double *)a_column, *table = (const double *)a_table;
    double *found = (double *)a_found;
    const int64_t w = width + 1;
    double *both = malloc(2 * (size_t)w * sizeof *both);
    if (!both)
        return PyErr_NoMemory();
    Py_BEGIN_ALLOW_THREADS
    double *before = both, *now = both + w;
    for (int64_t i = 0; i < w; i++)
        before[i] = 0.0;
    for (int64_t d = 0; d < depth; d++) {
        for (int64_t i = 0; i < w; i++)
            now[i] = INFINITY;
        for (int64_t c = indptr[d]; c < indptr[d + 1]; c++) {
            if (steps[c] > width) {
                found[c] = INFINITY;
                continue;
            }
            found[c] = column[c] + joined(before, table + (d + 1) * w, w - steps[c]);
            widen(now + steps[c], before, w - steps[c], column[c]);
        }
        double *t = before;
        before = now;
        now = t;
    }
    Py_END_ALLOW_THREADS
    free(both);
    Py_RETURN_NONE;
}
