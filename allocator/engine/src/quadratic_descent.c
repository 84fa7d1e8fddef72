/* The convex program over parts of choices: descent over groups, prices of the sides, bound, fixing. */
#include "engine.h"
#include "quadratic_tree.h"
#include <math.h>

enum { STEPS = 6, CHORDS = 40 };
static const double SLIP = 1e-13;

double target_of(const search_t *s)
{
    return *s->t->worth - s->t->options[0];
}

VECTORISED
static void add_rows(double *restrict out, const double *restrict a, const double *restrict b, double step, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        out[i] += step * (a[i] - b[i]);
}

static void shift(const tree_t *t, level_t *v, int64_t from, int64_t to, double step)
{
    v->y[from] -= step;
    v->y[to] += step;
    add_rows(v->my, t->curved + to * t->choices, t->curved + from * t->choices, step, t->choices);
}

static double slope(const tree_t *t, const level_t *v, int64_t k)
{
    return t->linear[k] + v->my[k] + v->fixed_n[k];
}

void settle(search_t *s, level_t *v)
{
    const tree_t *t = s->t;
    for (int64_t g = 0; g < t->groups; g++) {
        if (v->is_fixed[g])
            continue;
        int64_t left = 0, best = -1;
        for (int64_t k = t->start[g]; k < t->start[g + 1]; k++)
            if (v->alive[k]) {
                left++;
                if (best < 0 || v->y[k] > v->y[best])
                    best = k;
            }
        if (best < 0)
            continue;
        for (int64_t k = t->start[g]; k < t->start[g + 1]; k++)
            if (!v->alive[k] && v->y[k] != 0) {
                double step = v->y[k];
                shift(t, v, k, best, step);
                v->y[k] = 0;
            }
        if (left > 1)
            continue;
        v->is_fixed[g] = 1;
        v->y[best] = 1;
        for (int64_t k = 0; k < t->choices; k++)
            v->fixed_n[k] += t->apart[best * t->choices + k];
        for (int64_t i = 0; i < t->sides; i++)
            v->paid[i] += t->spare[i * t->choices + best];
    }
}

/* Price of a side under the augmented Lagrangian; the groups that are fixed have paid for some of it. */
static double pressure(const search_t *s, const level_t *v, int64_t i)
{
    double over = v->dual[i] + s->t->options[2] * (s->use[i] - s->t->limit[i]);
    return (over > 0 ? over : 0) - v->paid[i];
}

void sweep(search_t *s, level_t *v, int64_t count)
{
    const tree_t *t = s->t;
    int64_t n = t->choices, sides = t->sides;
    for (int64_t i = 0; i < sides; i++) {
        s->use[i] = 0;
        for (int64_t k = 0; k < n; k++)
            s->use[i] += v->y[k] * t->column[i * n + k];
    }
    for (int64_t round = 0; round < count; round++) {
        for (int64_t g = 0; g < t->groups; g++) {
            if (v->is_fixed[g])
                continue;
            for (int step = 0; step < STEPS; step++) {
                int64_t high = -1, low = -1;
                double most = -INFINITY, least = INFINITY;
                for (int64_t k = t->start[g]; k < t->start[g + 1]; k++) {
                    if (!v->alive[k])
                        continue;
                    double d = slope(t, v, k);
                    for (int64_t i = 0; i < sides; i++)
                        d += pressure(s, v, i) * t->column[i * n + k];
                    if (v->y[k] > 0 && d > most) {
                        most = d;
                        high = k;
                    }
                    if (d < least) {
                        least = d;
                        low = k;
                    }
                }
                if (high < 0 || high == low || most <= least)
                    break;
                double bend = t->curved[high * n + high] + t->curved[low * n + low] - 2 * t->curved[high * n + low];
                for (int64_t i = 0; i < sides; i++)
                    if (pressure(s, v, i) > -v->paid[i]) {
                        double c = t->column[i * n + high] - t->column[i * n + low];
                        bend += t->options[2] * c * c;
                    }
                double moved = v->y[high];
                if (bend > 0 && (most - least) / bend < moved)
                    moved = (most - least) / bend;
                else
                    step = step > STEPS - 3 ? step : STEPS - 3;
                int all = moved == v->y[high];
                shift(t, v, high, low, moved);
                if (all)
                    v->y[high] = 0;
                for (int64_t i = 0; i < sides; i++)
                    s->use[i] += moved * (t->column[i * n + low] - t->column[i * n + high]);
                if (!all && moved < 1e-6)
                    break;
            }
        }
        for (int64_t i = 0; i < sides; i++)
            v->dual[i] = pressure(s, v, i) + v->paid[i];
    }
}

/* Σ_g min over the choices alive of cost + price·column, less price·limit; its slope in the price. */
static double priced(const search_t *s, const level_t *v, const double *column, double limit, double price, double *rise)
{
    const tree_t *t = s->t;
    double sum = -price * limit, use = -limit;
    for (int64_t g = 0; g < t->groups; g++) {
        double least = INFINITY, at = 0;
        for (int64_t k = t->start[g]; k < t->start[g + 1]; k++) {
            double d = s->cost[k] + price * column[k];
            if (v->alive[k] && d < least) {
                least = d;
                at = column[k];
            }
        }
        sum += least;
        use += at;
    }
    *rise = use;
    return sum;
}

/* The price of one side, at least `low`, with the highest bound: chords between the ends of a bracket. */
static double best_price(const search_t *s, const level_t *v, int64_t side, double low, double guess)
{
    const tree_t *t = s->t;
    const double *column = t->column + side * t->choices;
    double limit = t->limit[side], up, down, rise, high = guess > low ? guess : low + 1e-3 * (1 + fabs(low));
    double left = priced(s, v, column, limit, low, &up);
    if (up <= 0)
        return low;
    double right = priced(s, v, column, limit, high, &down);
    for (int i = 0; down > 0 && i < 80; i++) {
        double next = high + 2 * (high - low);
        low = high;
        left = right;
        up = down;
        high = next;
        right = priced(s, v, column, limit, high, &down);
    }
    if (down > 0)
        return high; /* nothing keeps the side: the bound grows without end */
    double best = left > right ? low : high, top = left > right ? left : right;
    for (int i = 0; i < CHORDS && up > down; i++) {
        double at = (right - left + up * low - down * high) / (up - down);
        if (!(at > low && at < high))
            break;
        double here = priced(s, v, column, limit, at, &rise), line = left + up * (at - low);
        if (here > top) {
            top = here;
            best = at;
        }
        if (here >= line - 1e-15 * fabs(line) || rise == 0)
            break;
        if (rise > 0) {
            low = at;
            left = here;
            up = rise;
        } else {
            high = at;
            right = here;
            down = rise;
        }
    }
    return best;
}

double bound_at(search_t *s, level_t *v)
{
    const tree_t *t = s->t;
    int64_t n = t->choices, sides = t->sides;
    double bent = 0, rise, bound = 0;
    for (int64_t k = 0; k < n; k++) {
        bent += v->y[k] * v->my[k];
        double half = v->is_fixed[t->group[k]] ? 0.5 : 1.0;
        s->cost[k] = t->linear[k] + v->my[k] + half * v->fixed_n[k];
    }
    for (int64_t i = 0; i < sides; i++)
        s->price[i] = v->dual[i] - v->paid[i];
    for (int64_t i = 1; /* one side after the other, the others' prices inside the cost */ i < sides; i++)
        for (int64_t k = 0; k < n; k++)
            s->cost[k] += s->price[i] * t->column[i * n + k];
    for (int64_t turn = 0; turn < (sides > 1 ? 3 * sides : sides); turn++) {
        int64_t i = turn % sides;
        if (turn)
            for (int64_t k = 0; k < n; k++)
                s->cost[k] -= s->price[i] * t->column[i * n + k];
        s->price[i] = best_price(s, v, i, -v->paid[i], s->price[i]);
        for (int64_t k = 0; k < n; k++)
            s->cost[k] += s->price[i] * t->column[i * n + k];
    }
    bound = priced(s, v, t->linear, 0.0, 0.0, &rise) - 0.5 * bent;
    for (int64_t i = 0; i < sides; i++)
        bound -= s->price[i] * t->limit[i];
    return bound;
}

int64_t exclude(search_t *s, level_t *v, double room)
{
    const tree_t *t = s->t;
    int64_t n = t->choices, gone = 0;
    for (int64_t g = 0; g < t->groups; g++) {
        double least = INFINITY;
        int64_t left = 0;
        for (int64_t k = t->start[g]; k < t->start[g + 1]; k++)
            if (v->alive[k] && s->cost[k] < least)
                least = s->cost[k];
        for (int64_t k = t->start[g]; k < t->start[g + 1]; k++)
            if (v->alive[k]) {
                int dead = s->cost[k] - least >= room;
                v->alive[k] = (char)!dead;
                gone += dead;
                left += !dead;
            }
        if (!left)
            return -1;
    }
    for (int64_t i = 0; i < t->sides; i++) {
        const double *c = t->column + i * n;
        double sum = 0;
        for (int64_t g = 0; g < t->groups; g++) {
            double least = INFINITY;
            for (int64_t k = t->start[g]; k < t->start[g + 1]; k++)
                if (v->alive[k] && c[k] < least)
                    least = c[k];
            sum += least;
        }
        if (sum > t->limit[i] + SLIP)
            return -1;
        for (int64_t g = 0; g < t->groups; g++) {
            double least = INFINITY;
            for (int64_t k = t->start[g]; k < t->start[g + 1]; k++)
                if (v->alive[k] && c[k] < least)
                    least = c[k];
            for (int64_t k = t->start[g]; k < t->start[g + 1]; k++)
                if (v->alive[k] && sum - least + c[k] > t->limit[i] + SLIP) {
                    v->alive[k] = 0;
                    gone++;
                }
        }
    }
    return gone;
}
