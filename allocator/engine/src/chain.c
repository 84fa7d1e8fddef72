/* Chains: the price of the budget, and cuts that rise from the bound until something lies below one. */
#include "chain.h"
#include <string.h>

#define CHORDS 60
#define FLAT 1e-14
#define FIRST 65536
#define FEW 4

typedef struct {
    double value, least;
    int64_t use;
} Seen;

static Seen seen(const Chain *c, const int64_t *taken, double least)
{
    Seen s = {0, least, 0};
    for (int64_t i = 0; i < c->n; i++) {
        double between = 0;
        if (i)
            between = c->table[c->begin[i - 1] + (taken[i - 1] - c->start[i - 1]) * stage_size(c, i) + taken[i]
                               - c->start[i]];
        s.value += between + c->value[taken[i]];
        s.use += c->cost[taken[i]];
    }
    return s;
}

static void price_choices(Chain *c, double price)
{
    for (int64_t k = 0; k < c->start[c->n]; k++)
        c->along[k] = c->value[k] + price * (double)c->cost[k];
}

/* The first allocation of least value + price·use, into trial. */
static Seen least_priced(Chain *c, double price)
{
    price_choices(c, price);
    double *reached = c->reached, *through = c->through;
    memcpy(reached, c->along, sizeof(double) * (size_t)stage_size(c, 0));
    for (int64_t i = 0; i + 1 < c->n; i++) {
        const int64_t here = stage_size(c, i), there = stage_size(c, i + 1), to = c->start[i + 1];
        const double *table = c->table + c->begin[i];
        for (int64_t h = 0; h < there; h++) {
            double least = INFINITY;
            int64_t from = 0;
            for (int64_t k = 0; k < here; k++) {
                double sum = reached[k] + table[k * there + h];
                if (sum < least) {
                    least = sum;
                    from = k;
                }
            }
            c->back[to + h] = from;
            through[h] = least + c->along[to + h];
        }
        memcpy(reached, through, sizeof(double) * (size_t)there);
    }
    int64_t at = 0;
    for (int64_t k = 1; k < stage_size(c, c->n - 1); k++)
        at = reached[k] < reached[at] ? k : at;
    const double least = reached[at];
    for (int64_t i = c->n - 1; i >= 0; i--) {
        c->trial[i] = c->start[i] + at;
        at = i ? c->back[c->trial[i]] : 0;
    }
    return seen(c, c->trial, least);
}

/* Of each stage, the first choice of least value among those that use nothing. */
static Seen cheapest(Chain *c)
{
    for (int64_t i = 0; i < c->n; i++) {
        int64_t best = -1;
        for (int64_t k = c->start[i]; k < c->start[i + 1]; k++)
            if (!c->cost[k] && (best < 0 || c->value[k] < c->value[best]))
                best = k;
        c->trial[i] = best;
    }
    return seen(c, c->trial, -INFINITY);
}

static void keep(Chain *c, Seen *best, Seen new)
{
    *best = new;
    memcpy(c->best, c->trial, sizeof(int64_t) * (size_t)c->n);
}

/* The best allocation met on the way to the price of the highest bound. */
static Seen best_priced(Chain *c)
{
    const double room = (double)c->capacity;
    Seen best, over = least_priced(c, 0);
    c->bound = over.least;
    if (over.use <= c->capacity) {
        c->bound = over.value;
        keep(c, &best, over);
        return over;
    }
    Seen under = cheapest(c);
    keep(c, &best, under);
    for (int i = 0; i < CHORDS; i++) {
        const double price = (under.value - over.value) / (double)(over.use - under.use);
        if (!(price > 0) || now_seconds() > c->deadline)
            break;
        Seen new = least_priced(c, price);
        if (new.least - price * room > c->bound) {
            c->bound = new.least - price * room;
            c->price = price;
        }
        if (new.use <= c->capacity && new.value < best.value)
            keep(c, &best, new);
        const double line = over.value + price * (double)over.use;
        if (!(new.least < line - FLAT * (fabs(line) + fabs(over.value))))
            break;
        if (new.use > c->capacity)
            over = new;
        else
            under = new;
    }
    return best;
}

/* At the price: the least that the stages before, and that those after each choice add. */
static void completions(Chain *c)
{
    price_choices(c, c->price);
    for (int64_t k = 0; k < stage_size(c, 0); k++)
        c->before[k] = 0;
    for (int64_t k = c->start[c->n - 1]; k < c->start[c->n]; k++)
        c->after[k] = 0;
    for (int64_t i = 0; i + 1 < c->n; i++) {
        const int64_t here = c->start[i], there = c->start[i + 1], width = stage_size(c, i + 1);
        const double *table = c->table + c->begin[i];
        for (int64_t h = 0; h < width; h++) {
            double least = INFINITY;
            for (int64_t k = 0; k < stage_size(c, i); k++)
                least = fmin(least, (c->before[here + k] + c->along[here + k]) + table[k * width + h]);
            c->before[there + h] = least;
        }
    }
    for (int64_t i = c->n - 2; i >= 0; i--) {
        const int64_t here = c->start[i], there = c->start[i + 1], width = stage_size(c, i + 1);
        const double *table = c->table + c->begin[i];
        for (int64_t k = 0; k < stage_size(c, i); k++) {
            double least = INFINITY;
            for (int64_t h = 0; h < width; h++)
                least = fmin(least, table[k * width + h] + (c->after[there + h] + c->along[there + h]));
            c->after[here + k] = least;
        }
    }
}

/* numbers: tolerance, gap, offset, seconds in; value, bound, price out. counts: states, cuts, limit. */
static int solve(Chain *c, double *numbers, int64_t *counts)
{
    const double tolerance = numbers[0], gap = numbers[1], offset = numbers[2];
    Seen best = best_priced(c);
    double bound = c->bound, width = (best.value - bound) / FIRST;
    int stop = 0;
    if (best.value - bound > tolerance)
        completions(c);
    for (;;) {
        const double wide = fmax(tolerance, gap * fabs(best.value + offset)), top = best.value - wide;
        if (!(best.value - bound > wide)) {
            bound = wide <= tolerance ? best.value : bound;
            break;
        }
        const double cut = fmin(bound + width, top);
        const int64_t earlier = c->states;
        double found = cut;
        counts[1]++;
        stop = chain_below(c, cut, &found);
        if (stop)
            break;
        if (found < cut) {
            bound = best.value = seen(c, c->taken, 0).value;
            memcpy(c->best, c->taken, sizeof(int64_t) * (size_t)c->n);
            break;
        }
        if (cut == top) {
            bound = wide <= tolerance ? best.value : cut;
            break;
        }
        bound = cut;
        width *= c->states - earlier <= FEW * c->n ? 8 : 2;
    }
    numbers[0] = best.value;
    numbers[1] = bound;
    numbers[2] = c->price;
    counts[0] = c->states;
    counts[2] = stop;
    return stop < 0 ? -1 : 0;
}

static int allocate(Chain *c)
{
    const size_t m = (size_t)c->start[c->n], n = (size_t)c->n;
    for (int64_t i = 0; i < c->n; i++)
        c->widest = stage_size(c, i) > c->widest ? stage_size(c, i) : c->widest;
    const size_t w = (size_t)c->widest;
    c->along = malloc(sizeof(double) * (3 * m + 2 * w));
    c->back = malloc(sizeof(int64_t) * (m + 2 * n + 4 * (w + 1)));
    c->alive = malloc(m);
    if (!c->along || !c->back || !c->alive)
        return -1;
    c->before = c->along + m;
    c->after = c->before + m;
    c->reached = c->after + m;
    c->through = c->reached + w;
    c->taken = c->back + m;
    c->trial = c->taken + n;
    c->left.ends = c->trial + n;
    c->left.next = c->left.ends + w + 1;
    c->right.ends = c->left.next + w + 1;
    c->right.next = c->right.ends + w + 1;
    return 0;
}

PyObject *native_chain(PyObject *self, PyObject *args)
{
    (void)self;
    Py_ssize_t address;
    if (!PyArg_ParseTuple(args, "n", &address))
        return NULL;
    const int64_t *frame = (const int64_t *)address;
    Chain c = {.n = frame[0],
               .capacity = frame[1],
               .most = frame[2],
               .start = (const int64_t *)(intptr_t)frame[3],
               .value = (const double *)(intptr_t)frame[4],
               .cost = (const int64_t *)(intptr_t)frame[5],
               .table = (const double *)(intptr_t)frame[6],
               .begin = (const int64_t *)(intptr_t)frame[7],
               .best = (int64_t *)(intptr_t)frame[8]};
    double *numbers = (double *)(intptr_t)frame[9];
    int64_t *counts = (int64_t *)(intptr_t)frame[10];
    int status;
    Py_BEGIN_ALLOW_THREADS
    c.deadline = now_seconds() + numbers[3];
    status = allocate(&c);
    if (!status)
        status = solve(&c, numbers, counts);
    free(c.along), free(c.back), free(c.alive);
    free(c.left.states), free(c.right.states), free(c.merged), free(c.spare);
    Py_END_ALLOW_THREADS
    return PyLong_FromLong(status);
}
