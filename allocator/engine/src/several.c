/* Depth-first search for several budgets: every node is bounded by the largest of K Lagrangian bounds.
 *
 * One address: `frame`, int64 numbers and addresses of arrays that the caller keeps alive (see several_search.py).
 * The whole state lies in those arrays, so that a search can stop (for a candidate, the clock, a share of nodes)
 * and go on, and a table of completions can be hung in while it waits. */
#include "engine.h"
#include "several.h"

enum { FOUND = 1, DONE = 2, PAUSED = 3, OUT_OF_TIME = 4 };

/* Bounds of a child [K] from its parent's; 1 if the largest reaches the target. */
VECTORISED
static int priced(double *restrict child, const double *restrict parent, const double *restrict reduced, int64_t K,
                  double target)
{
    int over = 0;
    for (int64_t k = 0; k < K; k++) {
        double b = parent[k] + reduced[k];
        child[k] = b;
        over |= b >= target;
    }
    return over;
}

/* Bounds of a child with a row in integers; 1 if one of them reaches the target. */
static int stepped(const frame_t *f, int64_t d, int64_t c, const int64_t *now, double target)
{
    const int64_t S = f->stairs, R = f->rows;
    for (int64_t i = 0; i < S; i++) {
        const stair_t *s = f->stair + i;
        const double paid = f->stair_bound[d * S + i] + s->column[c];
        f->stair_bound[(d + 1) * S + i] = paid;
        const int64_t r = s->row;
        int64_t left = s->sign > 0 ? s->limit - now[r] - f->least[(d + 1) * R + r]
                                   : now[r] + f->most[(d + 1) * R + r] - s->limit;
        left /= s->divisor;
        left = left < s->width ? left : s->width;
        if (paid + s->table[(d + 1) * (s->width + 1) + left] >= target)
            return 1;
    }
    return 0;
}

static int64_t search(const frame_t *f)
{
    const int64_t D = f->depth, K = f->vectors, R = f->rows;
    int64_t d = f->state[0], nodes = f->state[1];
    const int64_t stop = f->state[2];
    const double target = f->real[0], deadline = f->real[1];
    int64_t status = DONE, poll = nodes + 4096;

    while (d >= 0) {
        if (nodes >= stop) {
            status = PAUSED;
            break;
        }
        if (nodes >= poll) {
            poll = nodes + 4096;
            if (now_seconds() >= deadline) {
                status = OUT_OF_TIME;
                break;
            }
        }
        const int64_t c = f->position[d];
        if (c >= f->indptr[d + 1]) {
            d--;
            continue;
        }
        f->position[d] = c + 1;
        nodes++;
        const double *acc = f->bound + d * K;
        if (acc[0] + f->reduced[c * K] >= target) { /* choices come in ascending order of the first vector */
            f->position[d] = f->indptr[d + 1];
            continue;
        }
        const int64_t *used = f->used + d * R, *use = f->use + c * R;
        int64_t *now = f->used + (d + 1) * R;
        const int64_t *least = f->least + (d + 1) * R, *most = f->most + (d + 1) * R;
        int out = 0;
        for (int64_t r = 0; r < R; r++) {
            now[r] = used[r] + use[r];
            out |= now[r] + least[r] > f->hi[r];
            out |= now[r] + most[r] < f->lo[r];
        }
        if (out)
            continue;
        if (priced(f->bound + (d + 1) * K, acc, f->reduced + c * K, K, target))
            continue;
        if (f->stairs && stepped(f, d, c, now, target))
            continue;
        const double total = f->total[d] + f->value[c];
        if (d + 1 == D) {
            if (total < target) {
                f->state[3] = c;
                f->total[D] = total;
                status = FOUND;
                break;
            }
            continue;
        }
        if (f->points && d + 1 == f->table_depth && !completes(f, f->bound[(d + 1) * K], now, target))
            continue;
        d++;
        f->total[d] = total;
        f->position[d] = f->indptr[d];
    }
    f->state[0] = d;
    f->state[1] = nodes;
    return status;
}

PyObject *several_search(PyObject *self, PyObject *args)
{
    (void)self;
    Py_ssize_t address;
    if (!PyArg_ParseTuple(args, "n", &address))
        return NULL;
    int64_t status;
    Py_BEGIN_ALLOW_THREADS
    status = search((const frame_t *)address);
    Py_END_ALLOW_THREADS
    return PyLong_FromLongLong(status);
}
