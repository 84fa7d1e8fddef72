/* Local search with interactions: changes of one and two groups, kicks, annealing. quadratic_numpy.py is its twin. */
#include "engine.h"
#include "quadratic.h"
#include <math.h>
#include <string.h>

enum { PASSES = 1000, STEADY = 64, AFRESH = 256 };
static const double WORSE = 1e-3; /* of the best: what a kick may lose at first and still be gone on from */

/* The best change of one group g, alone or with one of another group; rows in found[2], second −1: none. */
static double best_of(state_t *s, int64_t g, int64_t *found)
{
    const model_t *m = s->model;
    int64_t n = m->choices, rows = m->rows, x = s->taken[g];
    double best = -*m->least, *first = s->use + (rows + 1), *second = first + rows + 1;
    found[0] = found[1] = -1;
    for (int64_t k = m->start[g]; k < m->start[g + 1]; k++) {
        if (k == x)
            continue;
        double mine = gain_of(s, k);
        change_of(s, k, first);
        if (mine < best && excess_of(m, s->use, first, NULL) == 0) {
            best = mine;
            found[0] = k;
            found[1] = -1;
        }
        if (!m->matrix)
            continue;
        const double *in = m->matrix + k * n, *out = m->matrix + x * n;
        for (int64_t h = 0; h < m->groups; h++) {
            if (h == g)
                continue;
            int64_t y = s->taken[h];
            double base = mine - (m->value[y] + s->field[y]) - (in[y] - out[y]);
            for (int64_t l = m->start[h]; l < m->start[h + 1]; l++) {
                double both = base + (m->value[l] + s->field[l]) + (in[l] - out[l]);
                if (both >= best || l == y)
                    continue;
                change_of(s, l, second);
                if (excess_of(m, s->use, first, second) == 0) {
                    best = both;
                    found[0] = k;
                    found[1] = l;
                }
            }
        }
    }
    return best;
}

void descend(state_t *s, int touched)
{
    const model_t *m = s->model;
    int64_t quiet = 0, found[2];
    for (int64_t pass = 0; pass < PASSES && quiet < m->groups; pass++) {
        for (int64_t g = 0; g < m->groups && quiet < m->groups; g++) {
            if (out_of_time(s))
                return;
            quiet++;
            if (touched && !s->touched[g])
                continue;
            if (m->start[g + 1] - m->start[g] < 2)
                continue;
            best_of(s, g, found);
            for (int i = 0; i < 2; i++)
                if (found[i] >= 0) {
                    state_move(s, found[i]);
                    quiet = 0;
                }
        }
    }
}

static void kick(state_t *s)
{
    const model_t *m = s->model;
    int64_t count = 2 + draw_below(s, 4);
    for (int64_t i = 0; i < count; i++) {
        int64_t g = draw_below(s, m->groups), size = m->start[g + 1] - m->start[g];
        int64_t up = draw(s) < 0.5 ? 1 : size - 1;
        if (size > 1)
            state_move(s, m->start[g] + (s->taken[g] - m->start[g] + up) % size);
    }
}

/* Repair, then descend; then `kicks` times: kick, repair, descend from the groups that moved, and back where that is
 * worse than the best by more than a little, which shrinks to nothing; at last a descent over all groups from the best.
 * Sums are added up afresh now and then. */
static int climb(state_t *s, int64_t kicks, int64_t *best)
{
    const model_t *m = s->model;
    size_t bytes = (size_t)m->groups * sizeof *best;
    if (!repair(s))
        return 0;
    descend(s, 0);
    state_set(s, NULL);
    state_keep(s);
    memcpy(best, s->taken, bytes);
    double lowest = s->total;
    for (int64_t i = 0; i < kicks && now_seconds() < s->deadline; i++) {
        memset(s->touched, 0, (size_t)m->groups);
        kick(s);
        int kept = repair(s);
        if (kept)
            descend(s, 1);
        double bar = lowest + WORSE * (1 - (double)i / (double)kicks) * fabs(lowest);
        if (kept && (s->total <= s->kept_total || s->total <= bar))
            state_keep(s);
        else
            state_back(s);
        if (s->total < lowest) {
            lowest = s->total;
            memcpy(best, s->taken, bytes);
        }
        if (i % AFRESH == AFRESH - 1 || i == kicks - 1) {
            state_set(s, NULL);
            if (excess_of(m, s->use, NULL, NULL) > 0) /* rounding of a row */
                repair(s);
            state_keep(s);
        }
    }
    if (kicks) {
        state_set(s, best);
        if (!repair(s))
            return 0;
        descend(s, 0);
    }
    state_set(s, NULL);
    return excess_of(m, s->use, NULL, NULL) == 0 || repair(s);
}

/* Another row of a random group: the next one up or down, or any; −1 where that is the one taken, or the group `but`. */
static int64_t other(state_t *s, int64_t but)
{
    const model_t *m = s->model;
    int64_t g = draw_below(s, m->groups), size = m->start[g + 1] - m->start[g], now = s->taken[g] - m->start[g];
    if (g == but || size < 2)
        return -1;
    double way = draw(s);
    int64_t to = way < 0.3 ? (now + 1) % size : way < 0.6 ? (now + size - 1) % size : draw_below(s, size);
    return to == now ? -1 : m->start[g] + to;
}

/* Random changes that keep the rows, of one group or two; worse ones with probability exp(−gain/temperature). */
static void anneal(state_t *s, int64_t proposals, double hot, double cold, int64_t *keep)
{
    const model_t *m = s->model;
    size_t bytes = (size_t)m->groups * sizeof *keep;
    double *first = s->use + (m->rows + 1), *second = first + m->rows + 1;
    double best = s->total, t = hot, cooling = exp(log(cold / hot) * STEADY / (double)proposals);
    memcpy(keep, s->taken, bytes);
    for (int64_t i = 0; i < proposals; i++) {
        if (i % STEADY == 0 && i) {
            t *= cooling;
            if (out_of_time(s))
                break;
        }
        int64_t k = other(s, -1);
        if (k < 0)
            continue;
        change_of(s, k, first);
        double gain = gain_of(s, k);
        int64_t l = -1;
        if (draw(s) < 0.5 || excess_of(m, s->use, first, NULL) > 0) {
            l = other(s, m->group[k]);
            if (l < 0)
                continue;
            change_of(s, l, second);
            if (excess_of(m, s->use, first, second) > 0)
                continue;
            gain += gain_of(s, l) + cross_of(s, k, l);
        }
        if (gain > 0 && draw(s) >= exp(-gain / t))
            continue;
        state_move(s, k);
        if (l >= 0)
            state_move(s, l);
        if (s->total < best - *m->least) {
            best = s->total;
            memcpy(keep, s->taken, bytes);
        }
    }
    state_set(s, keep);
}

/* frame, taken [G] in and out, kicks, proposals, seed, seconds, hot, cold → 1 feasible, 0 not. */
PyObject *quadratic_search(PyObject *self, PyObject *args)
{
    (void)self;
    Py_ssize_t a_model, a_taken, kicks, proposals;
    unsigned long long seed;
    double seconds, hot, cold;
    if (!PyArg_ParseTuple(args, "nnnnKddd", &a_model, &a_taken, &kicks, &proposals, &seed, &seconds, &hot, &cold))
        return NULL;
    const model_t *m = (const model_t *)a_model;
    int64_t *keep = malloc((size_t)(m->groups + 1) * sizeof *keep);
    state_t s;
    if (!keep || state_open(&s, m, (int64_t *)a_taken, seed, seconds) < 0) {
        free(keep);
        return PyErr_NoMemory();
    }
    int kept;
    Py_BEGIN_ALLOW_THREADS
    kept = repair(&s);
    if (kept && proposals > 0)
        anneal(&s, proposals, hot, cold, keep);
    kept = kept && climb(&s, kicks, keep);
    state_close(&s);
    free(keep);
    Py_END_ALLOW_THREADS
    return PyLong_FromLong(kept);
}
