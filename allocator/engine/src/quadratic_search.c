/* Local search with interactions: changes of one and two groups, and kicks. quadratic_numpy.py is its twin. */
#include "engine.h"
#include "quadratic.h"
#include <math.h>
#include <string.h>

enum { PASSES = 1000, AFRESH = 256 };
static const double WORSE = 1e-3; /* of the best: what a kick may lose at first and still be gone on from */

/* The best change of one group g, alone or with one of another group; rows in found[2], second −1: none. */
static double best_of(state_t *s, int64_t g, int64_t *found)
{
    const model_t *m = s->model;
    int64_t rows = m->rows, x = s->taken[g];
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
        if (!held(m))
            continue;
        const double *step = step_of(s, k, x);
        for (int64_t h = 0; h < m->groups; h++) {
            if (h == g)
                continue;
            int64_t y = s->taken[h];
            double base = mine - (m->value[y] + s->field[y]) - step[y];
            for (int64_t l = m->start[h]; l < m->start[h + 1]; l++) {
                double both = base + (m->value[l] + s->field[l]) + step[l];
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
int climb(state_t *s, int64_t kicks, int64_t *best)
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

/* frame, taken [G] in and out, kicks, seed, seconds → 1 feasible, 0 not. */
PyObject *quadratic_search(PyObject *self, PyObject *args)
{
    (void)self;
    Py_ssize_t a_model, a_taken, kicks;
    unsigned long long seed;
    double seconds;
    if (!PyArg_ParseTuple(args, "nnnKd", &a_model, &a_taken, &kicks, &seed, &seconds))
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
    kept = climb(&s, kicks, keep);
    state_close(&s);
    free(keep);
    Py_END_ALLOW_THREADS
    return PyLong_FromLong(kept);
}
