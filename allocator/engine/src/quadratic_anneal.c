/* Annealing with prices: changes of one group, the rows as augmented Lagrangians. quadratic_numpy.py is its twin.
 *
 * A hard row lets few changes of one group through, and pairs of changes that keep it are rare. Here a use beyond its
 * limit costs ½ρ max(0, over + price/ρ)², with ρ = temperature/width² and the width a few typical steps: the walk passes
 * to and fro across the limit, ever closer to it as it cools, and what it meets within all rows is kept. Prices
 * follow the mean of what is over. (Augmented Lagrangian: Hestenes 1969, Powell 1969; annealing: Kirkpatrick, Gelatt and
 * Vecchi 1983.) */
#include "engine.h"
#include "quadratic.h"
#include <math.h>
#include <string.h>

enum { STEADY = 64, LOOK = 1024, AFRESH = 65536 };
static const double RATE = 0.05, FLOOR = 1e-3; /* of a price in one look; of the first price */

static double over(const model_t *m, int64_t i, double use)
{
    return i < m->rows ? use - m->hi[i] : m->lo[i - m->rows] - use;
}

/* What passing from one use of all rows to another adds; rho = t / width². */
static double pressed(const state_t *s, const double *price, const double *width, const double *change, double t)
{
    const model_t *m = s->model;
    double sum = 0;
    for (int64_t i = 0; i < 2 * m->rows; i++) {
        int64_t r = i < m->rows ? i : i - m->rows;
        if (isinf(i < m->rows ? m->hi[r] : m->lo[r]) || change[r] == 0)
            continue;
        double rho = t / (width[r] * width[r]), lift = price[i] / rho;
        double now = over(m, i, s->use[r]) + lift, then = over(m, i, s->use[r] + change[r]) + lift;
        now = now > 0 ? now : 0;
        then = then > 0 ? then : 0;
        sum += 0.5 * rho * (then - now) * (then + now);
    }
    return sum;
}

static void follow(const state_t *s, double *price, const double *width, double *mean, const double *least)
{
    const model_t *m = s->model;
    for (int64_t i = 0; i < 2 * m->rows; i++) {
        double e = mean[i] / LOOK / width[i < m->rows ? i : i - m->rows];
        e = e > 1 ? 1 : e < -1 ? -1 : e;
        price[i] *= exp(RATE * e);
        if (price[i] < least[i])
            price[i] = least[i];
        mean[i] = 0;
    }
}

/* Mean step of each row between neighbouring choices of a group. */
static void widths(const model_t *m, double share, double *width)
{
    for (int64_t r = 0; r < m->rows; r++) {
        double sum = 0;
        int64_t count = 0;
        for (int64_t g = 0; g < m->groups; g++)
            for (int64_t k = m->start[g] + 1; k < m->start[g + 1]; k++, count++)
                sum += fabs(m->column[k * m->rows + r] - m->column[(k - 1) * m->rows + r]);
        width[r] = sum > 0 ? share * sum / (double)count : 1.0;
    }
}

/* Another row of a random group, mostly the next one up or down; −1 where there is none. */
static int64_t other(state_t *s)
{
    const model_t *m = s->model;
    int64_t g = draw_below(s, m->groups), size = m->start[g + 1] - m->start[g], now = s->taken[g] - m->start[g];
    double way = draw(s);
    int64_t to = way < 0.35 ? now + 1 : way < 0.7 ? now - 1 : draw_below(s, size);
    return to < 0 || to >= size || to == now ? -1 : m->start[g] + to;
}

/* room [6R] doubles. Returns whether something within all rows was met; then it is in `best`, and taken. */
static int anneal(state_t *s, int64_t proposals, double hot, double cold, double share, double *price, double *room,
                  int64_t *best)
{
    const model_t *m = s->model;
    size_t bytes = (size_t)m->groups * sizeof *best;
    double *width = room, *mean = width + m->rows, *least = mean + 2 * m->rows, *change = least + 2 * m->rows;
    double lowest = INFINITY, t = hot, cooling = exp(log(cold / hot) * STEADY / (double)proposals);
    widths(m, share, width);
    for (int64_t i = 0; i < 2 * m->rows; i++) {
        least[i] = FLOOR * price[i];
        mean[i] = 0;
    }
    if (excess_of(m, s->use, NULL, NULL) == 0) {
        lowest = s->total;
        memcpy(best, s->taken, bytes);
    }
    for (int64_t i = 0; i < proposals; i++) {
        if (i % STEADY == 0 && i) {
            t *= cooling;
            if (out_of_time(s))
                break;
        }
        if (i % LOOK == 0 && i)
            follow(s, price, width, mean, least);
        if (i % AFRESH == 0 && i)
            state_set(s, NULL);
        for (int64_t j = 0; j < 2 * m->rows; j++) {
            double out = over(m, j, s->use[j < m->rows ? j : j - m->rows]);
            mean[j] += isinf(out) ? 0 : out;
        }
        int64_t k = other(s);
        if (k < 0)
            continue;
        change_of(s, k, change);
        double gain = gain_of(s, k) + pressed(s, price, width, change, t);
        if (gain > 0 && draw(s) >= exp(-gain / t))
            continue;
        state_move(s, k);
        if (s->total < lowest && excess_of(m, s->use, NULL, NULL) == 0) {
            lowest = s->total;
            memcpy(best, s->taken, bytes);
        }
    }
    if (lowest < INFINITY)
        state_set(s, best);
    return lowest < INFINITY;
}

/* frame, taken [G] in and out, prices [2R] in and out, proposals, seed, seconds, hot, cold, share → 1 feasible, 0 not. */
PyObject *quadratic_anneal(PyObject *self, PyObject *args)
{
    (void)self;
    Py_ssize_t a_model, a_taken, a_price, proposals;
    unsigned long long seed;
    double seconds, hot, cold, share;
    if (!PyArg_ParseTuple(args, "nnnnKdddd", &a_model, &a_taken, &a_price, &proposals, &seed, &seconds, &hot, &cold,
                          &share))
        return NULL;
    const model_t *m = (const model_t *)a_model;
    int64_t *best = malloc((size_t)(m->groups + 1) * sizeof *best);
    double *room = malloc((size_t)(6 * m->rows + 1) * sizeof *room);
    state_t s;
    if (!best || !room || state_open(&s, m, (int64_t *)a_taken, seed, seconds) < 0) {
        free(best);
        free(room);
        return PyErr_NoMemory();
    }
    int kept;
    Py_BEGIN_ALLOW_THREADS
    anneal(&s, proposals, hot, cold, share, (double *)a_price, room, best);
    kept = climb(&s, 0, best);
    state_close(&s);
    free(best);
    free(room);
    Py_END_ALLOW_THREADS
    return PyLong_FromLong(kept);
}
