/* An allocation with interactions: what each change would add, moves, and repair. quadratic_numpy.py is its twin. */
#include "engine.h"
#include "quadratic.h"
#include <math.h>
#include <string.h>

double draw(state_t *s)
{
    uint64_t z = (s->random += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

int64_t draw_below(state_t *s, int64_t n)
{
    return (int64_t)(draw(s) * (double)n);
}

int out_of_time(state_t *s)
{
    return ++s->polls % 256 == 0 && now_seconds() > s->deadline;
}

static double pair_of(const model_t *m, int64_t a, int64_t b)
{
    int64_t lo = m->first[a], hi = m->first[a + 1];
    while (lo < hi) {
        int64_t mid = (lo + hi) / 2;
        if (m->partner[mid] < b)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < m->first[a + 1] && m->partner[lo] == b ? m->worth[lo] : 0.0;
}

VECTORISED
static double along(const double *restrict sign, const double *restrict a, const double *restrict b,
                    const double *restrict c, const double *restrict d, int64_t count)
{
    double parts[4] = {0, 0, 0, 0};
    int64_t i = 0;
    for (; i + 4 <= count; i += 4)
        for (int64_t j = 0; j < 4; j++)
            parts[j] += sign[i + j] * (a[i + j] - b[i + j]) * (c[i + j] - d[i + j]);
    for (; i < count; i++)
        parts[0] += sign[i] * (a[i] - b[i]) * (c[i] - d[i]);
    return parts[0] + parts[1] + parts[2] + parts[3];
}

VECTORISED
static double drawn_by(const double *restrict a, const double *restrict b, const double *restrict sum,
                       const double *restrict sign, int64_t count)
{
    double parts[4] = {0, 0, 0, 0};
    int64_t i = 0;
    for (; i + 4 <= count; i += 4)
        for (int64_t j = 0; j < 4; j++)
            parts[j] += (a[i + j] - b[i + j]) * (sum[i + j] - sign[i + j] * b[i + j]);
    for (; i < count; i++)
        parts[0] += (a[i] - b[i]) * (sum[i] - sign[i] * b[i]);
    return parts[0] + parts[1] + parts[2] + parts[3];
}

int held(const model_t *m)
{
    return m->matrix || m->thin;
}

double gain_of(const state_t *s, int64_t row)
{
    const model_t *m = s->model;
    int64_t now = s->taken[m->group[row]];
    double gain = m->value[row] - m->value[now];
    if (held(m))
        return gain + (s->field[row] - s->field[now]);
    gain += drawn_by(m->vectors + row * m->rank, m->vectors + now * m->rank, s->sum, m->sign, m->rank);
    for (int64_t p = m->first[row]; p < m->first[row + 1]; p++)
        gain += s->taken[m->group[m->partner[p]]] == m->partner[p] ? m->worth[p] : 0.0;
    for (int64_t p = m->first[now]; p < m->first[now + 1]; p++)
        gain -= s->taken[m->group[m->partner[p]]] == m->partner[p] ? m->worth[p] : 0.0;
    return gain;
}

double cross_of(const state_t *s, int64_t a, int64_t b)
{
    const model_t *m = s->model;
    int64_t n = m->choices, x = s->taken[m->group[a]], y = s->taken[m->group[b]];
    if (m->matrix)
        return (m->matrix[a * n + b] - m->matrix[x * n + b]) - (m->matrix[a * n + y] - m->matrix[x * n + y]);
    if (m->thin)
        return ((double)m->thin[a * n + b] - m->thin[x * n + b]) - ((double)m->thin[a * n + y] - m->thin[x * n + y]);
    const double *v = m->vectors;
    double cross = along(m->sign, v + a * m->rank, v + x * m->rank, v + b * m->rank, v + y * m->rank, m->rank);
    return cross + (pair_of(m, a, b) - pair_of(m, x, b)) - (pair_of(m, a, y) - pair_of(m, x, y));
}

VECTORISED
static void apart(double *restrict step, const double *restrict in, const double *restrict out, int64_t n)
{
    for (int64_t k = 0; k < n; k++)
        step[k] = in[k] - out[k];
}

VECTORISED
static void apart_thin(double *restrict step, const float *restrict in, const float *restrict out, int64_t n)
{
    for (int64_t k = 0; k < n; k++)
        step[k] = (double)in[k] - (double)out[k];
}

const double *step_of(state_t *s, int64_t in, int64_t out)
{
    const model_t *m = s->model;
    int64_t n = m->choices;
    if (m->matrix)
        apart(s->step, m->matrix + in * n, m->matrix + out * n, n);
    else
        apart_thin(s->step, m->thin + in * n, m->thin + out * n, n);
    return s->step;
}

void change_of(const state_t *s, int64_t row, double *change)
{
    const model_t *m = s->model;
    int64_t now = s->taken[m->group[row]];
    for (int64_t r = 0; r < m->rows; r++)
        change[r] = m->column[row * m->rows + r] - m->column[now * m->rows + r];
}

double excess_of(const model_t *m, const double *use, const double *change, const double *change2)
{
    double excess = 0;
    for (int64_t r = 0; r < m->rows; r++) {
        double u = use[r] + (change ? change[r] : 0.0) + (change2 ? change2[r] : 0.0);
        if (u > m->hi[r])
            excess += (u - m->hi[r]) / m->size[r];
        if (u < m->lo[r])
            excess += (m->lo[r] - u) / m->size[r];
    }
    return excess;
}

int state_open(state_t *s, const model_t *m, int64_t *taken, uint64_t seed, double seconds)
{
    memset(s, 0, sizeof *s);
    s->model = m;
    s->taken = taken;
    s->random = seed;
    s->deadline = now_seconds() + seconds;
    size_t n = (size_t)m->choices, rows = (size_t)m->rows + 1;
    s->field = calloc(n, sizeof(double));
    s->gain = calloc(n, sizeof(double));
    s->step = calloc(n, sizeof(double));
    s->sum = calloc((size_t)m->rank + 1, sizeof(double));
    s->use = calloc(5 * rows, sizeof(double));
    s->touched = calloc((size_t)m->groups + 1, 1);
    s->kept_field = calloc(n + (size_t)m->rank + rows, sizeof(double));
    s->kept_taken = calloc((size_t)m->groups + 1, sizeof *s->kept_taken);
    if (!s->kept_field || !s->kept_taken || !s->touched || !s->field || !s->gain || !s->step || !s->sum || !s->use) {
        state_close(s);
        return -1;
    }
    s->kept_sum = s->kept_field + n;
    s->kept_use = s->kept_sum + m->rank;
    state_set(s, NULL);
    state_keep(s);
    return 0;
}

void state_close(state_t *s)
{
    free(s->field);
    free(s->gain);
    free(s->step);
    free(s->sum);
    free(s->use);
    free(s->touched);
    free(s->kept_field);
    free(s->kept_taken);
}

static void carry(const model_t *m, double *to[3], double *from[3])
{
    memcpy(to[0], from[0], (held(m) ? (size_t)m->choices : 0) * sizeof(double));
    memcpy(to[1], from[1], (size_t)m->rank * sizeof(double));
    memcpy(to[2], from[2], (size_t)m->rows * sizeof(double));
}

/* Keep the allocation with its sums; go back to what was kept. */
void state_keep(state_t *s)
{
    double *now[3] = {s->field, s->sum, s->use}, *kept[3] = {s->kept_field, s->kept_sum, s->kept_use};
    carry(s->model, kept, now);
    memcpy(s->kept_taken, s->taken, (size_t)s->model->groups * sizeof *s->taken);
    s->kept_total = s->total;
}

void state_back(state_t *s)
{
    double *now[3] = {s->field, s->sum, s->use}, *kept[3] = {s->kept_field, s->kept_sum, s->kept_use};
    carry(s->model, now, kept);
    memcpy(s->taken, s->kept_taken, (size_t)s->model->groups * sizeof *s->taken);
    s->total = s->kept_total;
}

VECTORISED
static void add_row(double *restrict field, const double *restrict in, int64_t n)
{
    for (int64_t k = 0; k < n; k++)
        field[k] += in[k];
}

VECTORISED
static void add_thin(double *restrict field, const float *restrict in, int64_t n)
{
    for (int64_t k = 0; k < n; k++)
        field[k] += (double)in[k];
}

VECTORISED
static void swap_rows(double *restrict field, const double *restrict in, const double *restrict out, int64_t n)
{
    for (int64_t k = 0; k < n; k++)
        field[k] += in[k] - out[k];
}

VECTORISED
static void swap_thin(double *restrict field, const float *restrict in, const float *restrict out, int64_t n)
{
    for (int64_t k = 0; k < n; k++)
        field[k] += (double)in[k] - (double)out[k];
}

/* W's row of `in` comes into the field, that of `out` (−1: none) goes. */
static void enter(const model_t *m, double *field, int64_t in, int64_t out)
{
    int64_t n = m->choices;
    if (m->matrix && out >= 0)
        swap_rows(field, m->matrix + in * n, m->matrix + out * n, n);
    else if (m->matrix)
        add_row(field, m->matrix + in * n, n);
    else if (out >= 0)
        swap_thin(field, m->thin + in * n, m->thin + out * n, n);
    else
        add_thin(field, m->thin + in * n, n);
}

/* Everything afresh from an allocation (NULL: the one that is there). */
void state_set(state_t *s, const int64_t *taken)
{
    const model_t *m = s->model;
    if (taken)
        memcpy(s->taken, taken, (size_t)m->groups * sizeof *taken);
    memset(s->field, 0, (size_t)m->choices * sizeof(double));
    memset(s->sum, 0, (size_t)m->rank * sizeof(double));
    memset(s->use, 0, (size_t)m->rows * sizeof(double));
    double alone = 0, between = 0;
    for (int64_t g = 0; g < m->groups; g++) {
        int64_t row = s->taken[g];
        alone += m->value[row];
        for (int64_t r = 0; r < m->rows; r++)
            s->use[r] += m->column[row * m->rows + r];
        if (held(m))
            enter(m, s->field, row, -1);
        else
            for (int64_t i = 0; i < m->rank; i++)
                s->sum[i] += m->sign[i] * m->vectors[row * m->rank + i];
    }
    for (int64_t g = 0; g < m->groups; g++) {
        int64_t row = s->taken[g];
        if (held(m)) {
            between += s->field[row];
            continue;
        }
        const double *v = m->vectors + row * m->rank;
        for (int64_t i = 0; i < m->rank; i++)
            between += v[i] * (s->sum[i] - m->sign[i] * v[i]);
        for (int64_t p = m->first[row]; p < m->first[row + 1]; p++)
            between += s->taken[m->group[m->partner[p]]] == m->partner[p] ? m->worth[p] : 0.0;
    }
    s->total = alone + 0.5 * between;
}

void state_move(state_t *s, int64_t row)
{
    const model_t *m = s->model;
    int64_t g = m->group[row], now = s->taken[g];
    s->total += gain_of(s, row);
    for (int64_t r = 0; r < m->rows; r++)
        s->use[r] += m->column[row * m->rows + r] - m->column[now * m->rows + r];
    if (held(m)) {
        enter(m, s->field, row, now);
    } else {
        const double *in = m->vectors + row * m->rank, *out = m->vectors + now * m->rank;
        for (int64_t i = 0; i < m->rank; i++)
            s->sum[i] += m->sign[i] * (in[i] - out[i]);
    }
    s->taken[g] = row;
    s->touched[g] = 1;
}

/* Least loss for each part of the excess that a change removes; with vectors, a few groups between two looks. */
int repair(state_t *s)
{
    const model_t *m = s->model;
    int64_t batch = held(m) ? 1 : 1 + m->groups / 64;
    double *change = s->use + m->rows + 1, *key = s->gain, *best = s->step;
    for (int64_t pass = 0; pass < 64 * m->groups; pass++) {
        double excess = excess_of(m, s->use, NULL, NULL);
        if (excess == 0)
            return 1;
        if (out_of_time(s))
            return 0;
        for (int64_t g = 0; g < m->groups; g++) {
            key[g] = INFINITY;
            for (int64_t k = m->start[g]; k < m->start[g + 1]; k++) {
                if (k == s->taken[g])
                    continue;
                change_of(s, k, change);
                double removed = excess - excess_of(m, s->use, change, NULL);
                if (removed <= 1e-12 * excess)
                    continue;
                double score = gain_of(s, k) / removed;
                if (score < key[g]) {
                    key[g] = score;
                    best[g] = (double)k;
                }
            }
        }
        int moved = 0;
        for (int64_t b = 0; b < batch; b++) {
            int64_t at = 0;
            for (int64_t g = 1; g < m->groups; g++)
                at = key[g] < key[at] ? g : at;
            if (key[at] == INFINITY)
                break;
            key[at] = INFINITY;
            change_of(s, (int64_t)best[at], change);
            double now = excess_of(m, s->use, NULL, NULL);
            if (now - excess_of(m, s->use, change, NULL) > 1e-12 * now) {
                state_move(s, (int64_t)best[at]);
                moved = 1;
            }
        }
        if (!moved)
            return 0;
    }
    return 0;
}
